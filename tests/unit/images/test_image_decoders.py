"""Every transfer syntax: equal between two independent decoders, and damage is never a picture when it can be known."""

import contextlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from mammoflow.errors import RenderError
from mammoflow.images import decoders, render
from mammoflow.images.huffman import NotCovered
from mammoflow.images.stored import read_stored

LOSSLESS = {
    uid.JPEGLossless: lambda picture: imagecodecs.jpeg8_encode(picture, lossless=True, predictor=5, bitspersample=12),
    uid.JPEGLosslessSV1: lambda picture: imagecodecs.jpeg8_encode(
        picture, lossless=True, predictor=1, bitspersample=12
    ),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEG2000Lossless: lambda picture: imagecodecs.jpeg2k_encode(
        picture, reversible=True, level=0, bitspersample=12, codecformat="j2k"
    ),
    uid.HTJ2KLossless: lambda picture: imagecodecs.htj2k_encode(picture, reversible=True),
    uid.HTJ2KLosslessRPCL: lambda picture: imagecodecs.htj2k_encode(picture, reversible=True, tile=(128, 128)),
}
LOSSY = {
    uid.JPEGBaseline8Bit: lambda picture: imagecodecs.jpeg8_encode((picture >> 4).astype(np.uint8), level=90),
    uid.JPEGExtended12Bit: lambda picture: imagecodecs.jpeg8_encode(picture, bitspersample=12, level=90),
    uid.JPEGLSNearLossless: lambda picture: imagecodecs.jpegls_encode(picture, level=2),
    uid.JPEG2000: lambda picture: imagecodecs.jpeg2k_encode(picture, level=50, bitspersample=12, codecformat="j2k"),
    uid.HTJ2K: lambda picture: imagecodecs.htj2k_encode(picture, reversible=False),
}
ENCODERS = LOSSLESS | LOSSY
TEST_FILES = sorted(Path(pydicom.data.data_manager.DATA_ROOT).glob("test_files/**/*.dcm"))


def name_of(syntax):
    return syntax.name.split(" (")[0]


@pytest.fixture(scope="module")
def picture():
    """A mammogram's corner, small: uint16 (150, 131), 12 bits."""
    y, x = np.mgrid[:150, :131]
    tissue = 900 + 2500 * np.clip(1 - (x / 100) ** 2 - ((y - 75) / 70) ** 2, 0, None)
    noisy = tissue + np.random.default_rng(0).normal(0, 15, tissue.shape)
    return np.where(tissue > 900, noisy, 0).clip(0, 4095).astype(np.uint16)


@pytest.fixture(scope="module")
def codestreams(picture):
    return {syntax: bytes(encode(picture)) for syntax, encode in ENCODERS.items()}


def file_of(mammogram, save, picture, syntax, codestream):
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    return save(mammogram(picture if bits == 12 else picture >> 4, bits, syntax=syntax, codestream=codestream))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=name_of)
def test_lossless_equal_to_another_decoder(mammogram, save, picture, codestreams, syntax):
    path = file_of(mammogram, save, picture, syntax, codestreams[syntax])
    stored = read_stored(path)
    assert np.array_equal(stored.patterns, picture)
    # pydicom's plugins: pylibjpeg's libjpeg and OpenJPEG, pyjpegls; none of them decodes here
    assert np.array_equal(stored.patterns, pydicom.dcmread(path).pixel_array)
    assert stored.decoder


@pytest.mark.parametrize("syntax", LOSSY, ids=name_of)
def test_lossy_close_to_the_source(mammogram, save, picture, codestreams, syntax):
    stored = read_stored(file_of(mammogram, save, picture, syntax, codestreams[syntax]))
    source = picture >> 4 if syntax == uid.JPEGBaseline8Bit else picture
    assert np.abs(stored.patterns.astype(int) - source).mean() < 12
    assert stored.patterns.shape == picture.shape


@pytest.mark.parametrize("syntax", ENCODERS, ids=name_of)
def test_fragments_are_joined(mammogram, save, picture, codestreams, syntax):
    path = file_of(mammogram, save, picture, syntax, codestreams[syntax])
    whole = read_stored(path).patterns
    header = pydicom.dcmread(path)
    header.PixelData = encapsulate([codestreams[syntax]], fragments_per_frame=3)
    assert np.array_equal(read_stored(save(header)).patterns, whole)


@pytest.mark.parametrize("syntax", ENCODERS, ids=name_of)
def test_truncation_is_never_a_picture(mammogram, save, picture, codestreams, syntax):
    codestream = codestreams[syntax]
    for tenth in range(1, 10):
        cut = codestream[: len(codestream) * tenth // 10]
        for damaged in (cut, cut + b"\xff\xd9"):
            with pytest.raises(RenderError) as caught:
                read_stored(file_of(mammogram, save, picture, syntax, damaged))
            assert caught.value.reason in ("truncated_pixel_data", "undecodable_pixel_data", "no_pixel_data")


@pytest.mark.parametrize("syntax", ENCODERS, ids=name_of)
def test_truncated_file_is_never_a_picture(mammogram, save, picture, codestreams, syntax):
    path = file_of(mammogram, save, picture, syntax, codestreams[syntax])
    content = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(RenderError):
            read_stored(path)


@pytest.mark.parametrize("syntax", ENCODERS, ids=name_of)
def test_flipped_bits_never_crash(mammogram, save, picture, codestreams, syntax):
    rng = np.random.default_rng(5)
    for _ in range(25):
        damaged = bytearray(codestreams[syntax])
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(RenderError):
            assert (
                read_stored(file_of(mammogram, save, picture, syntax, bytes(damaged))).patterns.shape == picture.shape
            )


@given(st.integers(140, 600), st.integers(0, 7))
def test_flipped_header_bits_never_crash(tmp_path_factory, place, bit):
    path = tmp_path_factory.getbasetemp() / "flipped.dcm"
    content = bytearray(Path(pydicom.data.get_testdata_file("MR_small.dcm", download=False)).read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(bytes(content))
    with contextlib.suppress(RenderError):
        render(path, {"mode": "none"})


def test_an_error_inside_openjph_is_noticed(mammogram, save, picture, codestreams):
    # these bytes make OpenJPH stop with an error, which imagecodecs 2026.3 doesn't pass on
    damaged = bytearray(codestreams[uid.HTJ2KLossless])
    damaged[-400:-392] = bytes(8)
    with pytest.raises(RenderError, match="ojph"):
        read_stored(file_of(mammogram, save, picture, uid.HTJ2KLossless, bytes(damaged)))


def test_what_is_left_to_a_library_is_whole_or_not(mammogram, save, picture, codestreams, monkeypatch):
    def refuse(data):
        raise NotCovered("a rare kind")

    monkeypatch.setattr(decoders, "decode_lossless", refuse)
    whole = codestreams[uid.JPEGLosslessSV1]
    stored = read_stored(file_of(mammogram, save, picture, uid.JPEGLosslessSV1, whole))
    assert np.array_equal(stored.patterns, picture)
    assert stored.decoder == "imagecodecs.jpeg8"
    for share in (0.2, 0.5, 0.9, 0.99):
        cut = whole[: int(len(whole) * share)] + b"\xff\xd9"
        with pytest.raises(RenderError):
            read_stored(file_of(mammogram, save, picture, uid.JPEGLosslessSV1, cut))


def test_a_missing_tile_is_noticed(mammogram, save, picture):
    codestream = bytes(imagecodecs.htj2k_encode(picture, reversible=True, tile=(64, 64)))
    last = codestream.rfind(b"\xff\x90\x00\x0a")
    cut = codestream[:last] + b"\xff\xd9"
    with pytest.raises(RenderError, match="tiles"):
        read_stored(file_of(mammogram, save, picture, uid.HTJ2KLossless, cut))


def test_values_beyond_bits_stored_are_refused_in_compressed_files(mammogram, save, picture, codestreams):
    header = mammogram(picture, 10, syntax=uid.JPEGLosslessSV1, codestream=codestreams[uid.JPEGLosslessSV1])
    with pytest.raises(RenderError) as caught:
        read_stored(save(header))
    assert caught.value.reason == "high_bit"


def test_bits_that_do_not_fit_are_refused(mammogram, save, picture):
    with pytest.raises(RenderError) as caught:
        read_stored(save(mammogram(picture, HighBit=7)))
    assert caught.value.reason == "unsupported_pixel_format"


@pytest.mark.parametrize("bits", [8, 12])
def test_big_endian(mammogram, save, picture, bits):
    values = picture >> 4 if bits == 8 else picture
    header = mammogram(values, bits, syntax=uid.ExplicitVRBigEndian)
    header["PixelData"].VR = "OW"
    if bits == 8:  # two bytes a word, swapped in the file
        header.PixelData = np.frombuffer(header.PixelData, "<u2").astype(">u2").tobytes()
    else:
        header.PixelData = values.astype(">u2").tobytes()
    path = save(header)
    assert np.array_equal(read_stored(path).patterns, values)
    assert np.array_equal(pydicom.dcmread(path).pixel_array, values)


def test_overlays_in_high_bits_are_cleared(mammogram, save, picture):
    header = mammogram(picture | 0x4000)
    header.add_new((0x6000, 0x0100), "US", 16)  # Overlay Bits Allocated
    header.add_new((0x6000, 0x0102), "US", 14)  # Overlay Bit Position
    assert np.array_equal(read_stored(save(header)).patterns, picture)


def test_enhanced_file_of_one_frame(mammogram, save, picture):
    header = mammogram(picture, NumberOfFrames=1)
    rescale, voi, shared, frame = Dataset(), Dataset(), Dataset(), Dataset()
    rescale.RescaleIntercept, rescale.RescaleSlope = -1000, 2
    voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = 3000, 4000, "LINEAR_EXACT"
    shared.PixelValueTransformationSequence = [rescale]
    frame.FrameVOILUTSequence = [voi]
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], [frame]
    drawn, record = render(save(header), {"mode": "dicom"})
    expected = np.clip((picture.astype(float) * 2 - 1000 - 3000) / 4000 + 0.5, 0, 1) * 255
    assert np.array_equal(drawn, np.floor(np.round(expected, 6) + 0.5))
    assert '"center": 3000.0' in record.window


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_pydicom_files_give_a_picture_or_a_reason(path):
    try:
        drawn, record = render(path, {"mode": "dicom"})
    except RenderError as error:
        reason = error.reason
    else:
        reason = ""
    if reason:
        assert reason.replace("_", "").isalpha()
        return
    assert drawn.dtype == np.uint8
    assert drawn.ndim == 2
    assert record.stored_range[0] <= record.stored_range[1]
