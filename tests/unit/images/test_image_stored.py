import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mammoflow.errors import RenderError
from mammoflow.images.stored import read_stored

ENCODERS = {
    JPEGLosslessSV1: lambda picture: imagecodecs.ljpeg_encode(picture, bitspersample=12),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda picture: imagecodecs.jpeg2k_encode(
        picture, reversible=True, level=0, bitspersample=12, codecformat="j2k"
    ),
    HTJ2KLossless: lambda picture: imagecodecs.htj2k_encode(picture, reversible=True),
}


def shortened(codestream, share):
    """Keep the first `share` of a codestream and close it with an end marker, as a repaired file would."""
    return codestream[: int(len(codestream) * share)] + b"\xff\xd9"


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (12, False), (12, True), (16, True)])
def test_native_values_come_back(mammogram, save, bits, signed, syntax):
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.random.default_rng(1).integers(low, low + 2**bits, (31, 17))
    header = mammogram(values, bits, signed, **({"syntax": syntax} if syntax else {}))
    stored = read_stored(save(header))
    assert np.array_equal(stored.values()[stored.patterns], values)
    assert stored.range() == (values.min(), values.max())


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
def test_lossless_codestreams_come_back(mammogram, save, breast_picture, syntax):
    codestream = bytes(ENCODERS[syntax](breast_picture))
    stored = read_stored(save(mammogram(breast_picture, syntax=syntax, codestream=codestream)))
    assert np.array_equal(stored.patterns, breast_picture)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
def test_truncated_codestream_is_no_picture(mammogram, save, breast_picture, syntax, share):
    codestream = bytes(ENCODERS[syntax](breast_picture))[:-2]
    for cut in (shortened(codestream, share), codestream[: int(len(codestream) * share)]):
        path = save(mammogram(breast_picture, syntax=syntax, codestream=cut))
        with pytest.raises(RenderError) as caught:
            read_stored(path)
        assert caught.value.reason in ("truncated_pixel_data", "undecodable_pixel_data")


def test_jpeg_baseline(mammogram, save, breast_picture):
    grey = (breast_picture >> 4).astype(np.uint8)
    codestream = bytes(imagecodecs.jpeg8_encode(grey, level=95))
    stored = read_stored(save(mammogram(grey, 8, syntax=JPEGBaseline8Bit, codestream=codestream)))
    assert np.abs(stored.patterns.astype(int) - grey).mean() < 2
    cut = mammogram(grey, 8, syntax=JPEGBaseline8Bit, codestream=shortened(codestream, 0.9))
    with pytest.raises(RenderError, match="ends early"):
        read_stored(save(cut))


def test_jpeg_extended_12_bit(mammogram, save, breast_picture):
    codestream = bytes(imagecodecs.jpeg_encode(breast_picture, bitspersample=12, level=95))
    stored = read_stored(save(mammogram(breast_picture, syntax=JPEGExtended12Bit, codestream=codestream)))
    assert np.abs(stored.patterns.astype(int) - breast_picture).mean() < 10
    assert stored.range()[1] > 3900
    cut = mammogram(breast_picture, syntax=JPEGExtended12Bit, codestream=shortened(codestream, 0.9))
    with pytest.raises(RenderError):
        read_stored(save(cut))


@pytest.mark.parametrize(
    "name",
    ["693_J2KI", "J2K_pixelrep_mismatch", "JPEG2000", "JPEGLSNearLossless_08", "JPEGLSNearLossless_16", "JPGExtended",
     "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless",
     "MR_small_jpeg_ls_lossless"],
)  # fmt: skip
def test_other_decoders_and_encoders_agree(name):
    path = get_testdata_file(f"{name}.dcm", download=False)
    stored = read_stored(path)
    # pydicom's default plugins: pylibjpeg's OpenJPEG and libjpeg, pyjpegls
    assert np.array_equal(stored.values()[stored.patterns], pydicom.dcmread(path).pixel_array)


def test_rle_and_its_truncation(mammogram, save, breast_picture):
    header = mammogram(breast_picture)
    header.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(read_stored(save(header)).patterns, breast_picture)
    frame = next(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=1))
    for share in (0.2, 0.6, 0.97):
        header.PixelData = encapsulate([frame[: int(len(frame) * share)]])
        with pytest.raises(RenderError):
            read_stored(save(header))


@pytest.mark.parametrize("lost", [1, 2, 1000, 100_000])
def test_truncated_native_file_is_no_picture(mammogram, save, breast_picture, lost):
    path = save(mammogram(breast_picture))
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(RenderError) as caught:
        read_stored(path)
    assert caught.value.reason == "truncated_pixel_data"


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: syntax.name)
def test_truncated_compressed_file_is_no_picture(mammogram, save, breast_picture, syntax):
    path = save(mammogram(breast_picture, syntax=syntax, codestream=bytes(ENCODERS[syntax](breast_picture))))
    content = path.read_bytes()
    for size in (len(content) - 9, len(content) // 2, 400, 140):
        path.write_bytes(content[:size])
        with pytest.raises(RenderError):
            read_stored(path)


def test_high_bits_are_cleared(mammogram, save, breast_picture):
    dirty = breast_picture | 0xA000
    assert np.array_equal(read_stored(save(mammogram(dirty))).patterns, breast_picture)
    signed = breast_picture.astype(np.int16) - 2048
    dirty_signed = np.where(signed < 0, signed & 0x0FFF, signed | -0x8000)  # wrong sign bits everywhere
    stored = read_stored(save(mammogram(dirty_signed, signed=True)))
    assert np.array_equal(stored.values()[stored.patterns], signed)


def test_values_stored_in_the_upper_bits(mammogram, save, breast_picture):
    header = mammogram(breast_picture << 4, HighBit=15)
    assert np.array_equal(read_stored(save(header)).patterns, breast_picture)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not_monochrome"),
        ({"BitsAllocated": 16, "BitsStored": 17}, "unsupported_pixel_format"),
    ],
)
def test_other_formats_are_refused(mammogram, save, breast_picture, attributes, reason):
    with pytest.raises(RenderError) as caught:
        read_stored(save(mammogram(breast_picture, **attributes)))
    assert caught.value.reason == reason


def test_size_other_than_rows_and_columns_is_refused(mammogram, save, breast_picture):
    codestream = bytes(imagecodecs.jpegls_encode(breast_picture.T.copy()))
    with pytest.raises(RenderError, match="Rows and Columns"):
        read_stored(save(mammogram(breast_picture, syntax=JPEGLSLossless, codestream=codestream)))


def test_digest_follows_values_not_encoding(mammogram, save, breast_picture):
    native = read_stored(save(mammogram(breast_picture), "a.dcm")).digest()
    codestream = bytes(imagecodecs.jpegls_encode(breast_picture))
    packed = read_stored(save(mammogram(breast_picture, syntax=JPEGLSLossless, codestream=codestream), "b.dcm"))
    assert packed.digest() == native
    changed = breast_picture.copy()
    changed[0, 0] += 1
    assert read_stored(save(mammogram(changed), "c.dcm")).digest() != native


def test_digest_tells_shapes_and_signs_apart(mammogram, save):
    values = np.arange(-12, 12).reshape(4, 6)
    pictures = [mammogram(values, 12, True), mammogram(values.reshape(6, 4), 12, True), mammogram(values & 0xFFF, 12)]
    digests = [read_stored(save(picture, f"{number}.dcm")).digest() for number, picture in enumerate(pictures)]
    assert len(set(digests)) == 3
    assert digests[0] == read_stored(save(mammogram(values, 16, True), "wide.dcm")).digest()


@pytest.mark.parametrize(("suffix", "dtype"), [(".png", "u1"), (".png", "u2"), (".tif", "u1"), (".tif", "u2")])
def test_picture_files(tmp_path, breast_picture, suffix, dtype):
    grey = (breast_picture >> 4 if dtype == "u1" else breast_picture).astype(dtype)
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(grey).save(path)
    stored = read_stored(path)
    assert np.array_equal(stored.patterns, grey)
    assert stored.bits == 8 * grey.itemsize
    content = path.read_bytes()
    for size in (len(content) - 10, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(RenderError):
            read_stored(path)


@pytest.mark.parametrize("highest", [255, 4095, 65535])
def test_pgm_keeps_its_values(tmp_path, highest):
    values = np.random.default_rng(2).integers(0, highest + 1, (9, 7))
    binary, plain = tmp_path / "b.pgm", tmp_path / "p.pgm"
    head = f"# film 7\n7 9\n{highest}\n".encode()
    binary.write_bytes(b"P5\n" + head + values.astype(">u2" if highest > 255 else "u1").tobytes())
    plain.write_bytes(b"P2\n" + head + " ".join(map(str, values.ravel())).encode())
    for path in (binary, plain):
        stored = read_stored(path)
        assert np.array_equal(stored.patterns, values)
        assert stored.bits == int(highest).bit_length()
        path.write_bytes(path.read_bytes()[:-5])
    for path in (binary, plain):
        with pytest.raises(RenderError):
            read_stored(path)


def test_colour_picture_with_grey_content_only(tmp_path):
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "grey.png")
    assert np.array_equal(read_stored(tmp_path / "grey.png").patterns, grey)
    Image.fromarray(np.stack([grey, grey, grey + 1], axis=2)).save(tmp_path / "colour.png")
    with pytest.raises(RenderError) as caught:
        read_stored(tmp_path / "colour.png")
    assert caught.value.reason == "not_monochrome"


def test_white_is_zero_tiff(tmp_path):
    for dtype in ("u1", "u2"):
        grey = np.arange(200).reshape(10, 20).astype(dtype)
        path = tmp_path / f"{dtype}.tif"
        Image.fromarray(grey).save(path, tiffinfo={262: 0})
        stored = read_stored(path)
        bright = -stored.patterns.astype(int) if stored.photometric_interpretation == "MONOCHROME1" else stored.patterns
        on_disk = values_on_disk(path, grey.dtype, grey.size)
        assert np.array_equal(np.argsort(bright.ravel()), np.argsort(-on_disk.astype(int)))


def values_on_disk(path, dtype, count):
    """Values of an uncompressed one-strip TIFF, straight from the file."""
    with Image.open(path) as picture:
        offset = picture.tag_v2[273][0]
    return np.frombuffer(path.read_bytes(), dtype, count, offset)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG", b"P5\n3", b"P5 0 0 255\n", b"\0" * 200])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "odd"
    path.write_bytes(content)
    if content.startswith(b"P5 0"):
        assert read_stored(path).patterns.size == 0
        return
    with pytest.raises(RenderError):
        read_stored(path)
