import imagecodecs
import numpy as np
import pytest
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from mammoflow.errors import RenderError
from mammoflow.images.codestreams import picture_size
from mammoflow.images.huffman import BadStream
from mammoflow.images.stored import read_stored

PICTURE = np.random.default_rng(0).integers(0, 4096, (60, 44)).astype(np.uint16)
STREAMS = {
    "jpeg": imagecodecs.jpeg8_encode((PICTURE >> 4).astype(np.uint8)),
    "lossless": imagecodecs.ljpeg_encode(PICTURE, bitspersample=12),
    "jpeg-ls": imagecodecs.jpegls_encode(PICTURE),
    "jpeg 2000": imagecodecs.jpeg2k_encode(PICTURE, level=0, codecformat="j2k"),
    "htj2k": imagecodecs.htj2k_encode(PICTURE, reversible=True),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))
def test_size_of_a_picture(stream):
    assert picture_size(bytes(stream)) == (60, 44, 1)


def test_size_of_a_colour_picture():
    colours = np.zeros((7, 9, 3), np.uint8)
    assert picture_size(bytes(imagecodecs.jpeg8_encode(colours))) == (7, 9, 3)
    assert picture_size(bytes(imagecodecs.jpeg2k_encode(colours, codecformat="j2k"))) == (7, 9, 3)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda" + bytes(20), b"\xff\x4f\xff\x51", bytes(99)])
def test_no_size(data):
    with pytest.raises(BadStream):
        picture_size(data)


def test_codestream_far_larger_than_its_header_is_not_decoded(mammogram, save):
    streams = {
        JPEGLosslessSV1: "lossless",
        JPEGLSLossless: "jpeg-ls",
        JPEG2000Lossless: "jpeg 2000",
        HTJ2KLossless: "htj2k",
    }
    for syntax, name in streams.items():
        header = mammogram(PICTURE[:4, :4], syntax=syntax, codestream=bytes(STREAMS[name]))
        with pytest.raises(RenderError, match="60 x 44 x 1, Rows and Columns say 4 x 4"):
            read_stored(save(header))


def test_more_pixels_than_can_be_held(mammogram, save):
    header = mammogram(PICTURE, Rows=65535, Columns=65535)
    with pytest.raises(RenderError, match="65535 x 65535 pixels") as caught:
        read_stored(save(header))
    assert caught.value.reason == "too_many_pixels"
