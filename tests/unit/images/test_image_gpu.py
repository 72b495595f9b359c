import logging

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import JPEG2000, HTJ2KLossless, JPEG2000Lossless

from mammoflow.errors import RenderError
from mammoflow.images.decoders import DECODERS
from mammoflow.images.gpu import checked_decoders, decoders
from mammoflow.images.jpeg2000 import is_reversible
from mammoflow.images.stored import read_stored

PICTURE = np.random.default_rng(0).integers(0, 4096, (60, 44)).astype(np.uint16)
J2K = bytes(imagecodecs.jpeg2k_encode(PICTURE, reversible=True, level=0, bitspersample=12, codecformat="j2k"))
HTJ2K = bytes(imagecodecs.htj2k_encode(PICTURE, reversible=True))
LOSSY = bytes(imagecodecs.jpeg2k_encode(PICTURE, level=50, bitspersample=12, codecformat="j2k"))
FILES = [(JPEG2000Lossless, J2K), (HTJ2KLossless, HTJ2K), (JPEG2000Lossless, J2K)]


@pytest.fixture
def read(mammogram, save):
    """Read a file of each codestream by one and the same GPU; `decode` stands for it."""

    def run(decode, files=FILES):
        chosen = checked_decoders(decode)
        return [read_stored(save(mammogram(PICTURE, syntax=s, codestream=data)), chosen) for s, data in files]

    return run


def exact(codestream):
    return (imagecodecs.jpeg2k_decode if codestream in (J2K, LOSSY) else imagecodecs.htj2k_decode)(codestream)


def wrong(codestream):
    picture = exact(codestream).copy()
    picture[59, 43] ^= 1
    return picture


def failing(codestream):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("decode", "used"),
    [(exact, [False, True, True]), (wrong, [False] * 3), (failing, [False] * 3), (lambda data: None, [False] * 3),
     (lambda data: exact(data).astype(np.int16), [False] * 3)],
    ids=["equal", "one pixel different", "failing", "giving nothing", "other type"],
)  # fmt: skip
def test_pixel_equal_or_not_used(read, decode, used):
    found = read(decode)
    assert all(np.array_equal(stored.patterns, PICTURE) for stored in found)
    assert [stored.decoder == "nvimagecodec" for stored in found] == used


def test_only_reversible_codestreams_are_taken(read):
    assert (is_reversible(J2K), is_reversible(HTJ2K), is_reversible(LOSSY)) == (True, True, False)
    found = read(exact, [*FILES, (JPEG2000, LOSSY)])
    assert [stored.decoder for stored in found[2:]] == ["nvimagecodec", "imagecodecs.jpeg2k"]


def test_a_cut_codestream_is_no_picture_there_either(read):
    with pytest.raises(RenderError) as caught:
        read(exact, [*FILES, (JPEG2000Lossless, J2K[: len(J2K) // 2])])
    assert caught.value.reason == "truncated_pixel_data"


def test_without_library_or_gpu_the_cpu_decodes(caplog):
    decoders.cache_clear()
    with caplog.at_level(logging.WARNING, "mammoflow"):
        chosen = decoders("gpu")
    decoders.cache_clear()
    if chosen is not DECODERS:
        pytest.skip("nvImageCodec and a GPU are here")
    assert "images.jpeg2000: gpu, but there is none" in caplog.text
    assert decoders("cpu") is DECODERS
