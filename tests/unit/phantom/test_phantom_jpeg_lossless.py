import imagecodecs
import libjpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mammoflow.phantom.jpeg_lossless import encode


def decoders_agree(pixels, bits):
    stream = encode(pixels, bits)
    for decode in (imagecodecs.jpegsof3_decode, imagecodecs.ljpeg_decode, libjpeg.decode):
        np.testing.assert_array_equal(np.squeeze(decode(stream)).reshape(pixels.shape), pixels, decode.__name__)
    return stream


def segments(stream):
    """Marker -> body of a JPEG stream up to its scan."""
    found, position = {}, 2
    while 0xDA not in found:
        marker, length = stream[position + 1], int.from_bytes(stream[position + 2 : position + 4], "big")
        found[marker] = stream[position + 4 : position + 2 + length]
        position += 2 + length
    return found


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
def test_smooth_pictures_decode_exactly_and_shrink(bits):
    rng = np.random.default_rng(bits)
    walk = np.cumsum(rng.normal(0, 2 ** (bits - 8), (120, 90)), axis=1) + 2 ** (bits - 1)
    pixels = np.clip(walk, 0, 2**bits - 1).astype(np.uint16)
    assert len(decoders_agree(pixels, bits)) < 0.75 * pixels.size * bits / 8


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_any_picture_decodes_exactly(data):
    bits = data.draw(st.integers(9, 16))
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9))
    decoders_agree(data.draw(arrays(np.uint16, shape, elements=st.integers(0, 2**bits - 1))), bits)


def test_difference_of_half_the_range_has_no_extra_bits():
    decoders_agree(np.array([[0, 32768, 0, 32768], [1, 32769, 65535, 0]], np.uint16), 16)


def test_constant_picture():
    decoders_agree(np.full((7, 5), 4095, np.uint16), 12)


def test_code_lengths_stay_within_16_bits_for_the_steepest_histogram():
    magnitudes = np.concatenate([np.full(2 ** (16 - category), (1 << category) >> 1) for category in range(17)])
    steps = np.random.default_rng(0).permutation(magnitudes)[: 131072 // 2 * 2 - 2].reshape(-1, 2)
    pixels = np.zeros((len(steps), 4), np.uint16)
    pixels[:, 1], pixels[:, 3] = steps[:, 0], steps[:, 1]
    stream = decoders_agree(pixels, 16)
    counts = np.frombuffer(segments(stream)[0xC4][1:17], np.uint8)
    assert counts.sum() == 17
    assert sum(int(count) << (16 - length) for length, count in enumerate(counts, start=1)) < 1 << 16


def test_header_says_process_14_selection_value_1():
    found = segments(encode(np.zeros((3, 5), np.uint16), 12))
    assert set(found) == {0xC4, 0xC3, 0xDA}
    assert found[0xC3] == bytes([12, 0, 3, 0, 5, 1, 1, 0x11, 0])
    predictor = found[0xDA][3]
    assert predictor == 1
