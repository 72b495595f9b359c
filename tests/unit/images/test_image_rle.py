import contextlib
import struct

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless
from rle.rle import decode_frame, encode_frame

from mammoflow.images.huffman import BadStream, TruncatedStream
from mammoflow.images.rle import BLOCK, decode_rle


def frame_of(header):
    return next(generate_frames(header.PixelData, number_of_frames=1))


def packed(*segments):
    offsets = np.cumsum([64, *[len(segment) for segment in segments]])[: len(segments)]
    return struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_equal_to_the_source_and_two_libraries(mammogram, breast_picture, bits):
    picture = (breast_picture >> 4 if bits == 8 else breast_picture).astype(np.uint8 if bits == 8 else np.uint16)
    header = mammogram(picture, bits)
    header.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    frame, each = frame_of(header), picture.dtype.itemsize
    decoded = decode_rle(frame, picture.size, each)
    assert np.array_equal(decoded.reshape(picture.shape), picture)
    assert imagecodecs.dicomrle_decode(frame, picture.dtype.newbyteorder("<")) == picture.tobytes()
    assert np.array_equal(
        np.frombuffer(decode_frame(frame, picture.size, 8 * each, "<"), picture.dtype), picture.ravel()
    )


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2]), st.integers(0, 2**32 - 1))
def test_any_picture_comes_back(height, width, each, seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256**each, (height, width)).astype(f"<u{each}")
    picture[rng.random((height, width)) < 0.7] = 0  # runs
    frame = encode_frame(picture.tobytes(), height, width, 1, 8 * each, "<")
    assert np.array_equal(decode_rle(frame, picture.size, each), picture.ravel())


def test_segment_by_hand():
    # PS3.5 G.3.1: 2 literal bytes, 3 times 9, nothing (128), 1 literal byte
    assert decode_rle(packed(bytes([1, 5, 6, 254, 9, 128, 0, 7])), 6, 1).tolist() == [5, 6, 9, 9, 9, 7]
    # most significant byte first
    assert decode_rle(packed(bytes([1, 1, 2]) + b"\0", bytes([255, 3])), 2, 2).tolist() == [0x103, 0x203]


def run_of(value, length):
    """Repeat runs of 128, the longest, and one of what is left."""
    whole, left = divmod(length, 128)
    return bytes([129, value]) * whole + (bytes([(1 - left) % 256, value]) if left else b"")


@pytest.mark.parametrize("shift", [0, 1, 50, 127])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_runs_go_on_over_the_borders_of_blocks(shift, blocks):
    # one plane's runs begin `shift` bytes later than the other's, so a border cuts runs of either at other places
    pixels = blocks * BLOCK + shift
    high = bytes([shift - 1, *range(shift)]) if shift else b""
    frame = packed(high + run_of(7, pixels - shift), run_of(9, pixels))
    expected = np.full(pixels, 0x709)
    expected[:shift] = np.arange(shift) << 8 | 9
    assert np.array_equal(decode_rle(frame, pixels, 2), expected)
    for fewer, error in ((pixels - 1, BadStream), (pixels + 1, TruncatedStream)):
        with pytest.raises(error):
            decode_rle(frame, fewer, 2)


def test_damage_is_noticed(mammogram, breast_picture):
    header = mammogram(breast_picture)
    header.compress(RLELossless, generate_instance_uid=False)
    frame = frame_of(header)
    for size in range(0, len(frame) - 2, len(frame) // 40):
        with pytest.raises(BadStream):
            decode_rle(frame[:size], breast_picture.size, 2)
    for damaged in (
        packed(b"\x00\x01"),
        packed(b"\x00\x01", b"\xfe\x02"),
        packed(b"\x00\x01", b"\x00\x02\x00\x03\x00\x04"),
    ):
        with pytest.raises(BadStream):
            decode_rle(damaged, 1, 2)
    with pytest.raises(TruncatedStream):
        decode_rle(packed(b"\x00\x01", b"\x01\x02"), 2, 2)


@given(st.binary(min_size=0, max_size=90))
def test_noise_never_crashes(noise):
    with contextlib.suppress(BadStream):
        decode_rle(packed(noise, noise), 50, 2)
