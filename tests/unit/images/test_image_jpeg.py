import contextlib
import struct

import imagecodecs
import libjpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mammoflow.images.huffman import BadStream, NotCovered, TruncatedStream, code_table
from mammoflow.images.jpeg import check_sequential, decode_lossless

DAMAGE = (BadStream, NotCovered)


def noisy(bits, shape=(37, 53), seed=0):
    """Smooth ramps with noise and a flat part: every difference size of `bits` occurs, and runs of 0."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    picture = (y * x) % 2**bits + rng.integers(-3, 4, shape) * (1 << max(0, bits - 6))
    picture[:, shape[1] // 2 :] = 2**bits // 3
    picture[5, 3:9] = rng.integers(0, 2**bits, 6)
    return picture.clip(0, 2**bits - 1).astype(np.uint8 if bits <= 8 else np.uint16)


def differences(picture, predictor, bits, transform, restart):
    """Differences of H.1.2, sample by sample; restart: rows between markers, 0 for none."""
    values = picture.astype(int) >> transform
    out = []
    for y, row in enumerate(values):
        first = y == 0 or (restart and y % restart == 0)
        for x, value in enumerate(row):
            a, b, c = (values[y, x - 1], values[y - 1, x], values[y - 1, x - 1])
            if first:
                guess = a if x else 1 << (bits - transform - 1)
            elif x == 0:
                guess = b
            else:
                guess = [a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1][predictor - 1]
            difference = (int(value) - int(guess)) & 0xFFFF
            out.append(difference - 65536 if difference > 32768 else difference)
    return np.array(out).reshape(values.shape)


def write_lossless(picture, predictor, bits, transform=0, restart=0):
    """A plain encoder: every difference size has a code of 5 bits (17 of them), restart markers between rows."""

    def entropy(rows):
        text = ""
        for difference in rows.ravel().tolist():
            size = abs(difference).bit_length()
            text += f"{size:05b}"
            if 0 < size < 17 and difference != 32768:
                text += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
        text += "1" * (-len(text) % 8)
        return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")

    height, width = picture.shape
    rows = differences(picture, predictor, bits, transform, restart)
    parts = [rows[i : i + (restart or height)] for i in range(0, height, restart or height)]
    data = entropy(parts[0])
    for number, part in enumerate(parts[1:]):
        data += bytes([0xFF, 0xD0 + number % 8]) + entropy(part)
    sizes = bytes(range(17))
    table = b"\0" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + sizes
    segments = b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table
    segments += b"\xff\xc3" + struct.pack(">HBHHB3B", 11, bits, height, width, 1, 1, 0x11, 0)
    if restart:
        segments += b"\xff\xdd" + struct.pack(">HH", 4, restart * width)
    segments += b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, predictor, 0, transform)
    return b"\xff\xd8" + segments + data + b"\xff\xd9"


def turbo(picture, predictor, bits):
    return bytes(imagecodecs.jpeg8_encode(picture, lossless=True, predictor=predictor, bitspersample=bits))


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 5, 8, 10, 12, 15, 16])
def test_equal_to_the_source_and_two_libraries(predictor, bits):
    picture = noisy(bits)
    codestream = turbo(picture, predictor, bits) if bits >= 8 else write_lossless(picture, predictor, bits)
    assert np.array_equal(decode_lossless(codestream), picture)
    assert np.array_equal(libjpeg.decode(codestream), picture)
    if bits >= 8:
        assert np.array_equal(imagecodecs.jpegsof3_decode(codestream), picture)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("transform", "restart"), [(0, 1), (0, 5), (2, 0), (3, 4)])
def test_restarts_and_point_transform(predictor, transform, restart):
    picture = noisy(12)
    codestream = write_lossless(picture, predictor, 12, transform, restart)
    expected = picture >> transform << transform
    assert np.array_equal(decode_lossless(codestream), expected)
    assert np.array_equal(imagecodecs.jpeg8_decode(codestream), expected)  # libjpeg-turbo
    if transform == 0:  # libjpeg doesn't know point transforms
        assert np.array_equal(libjpeg.decode(codestream), expected)


def test_difference_of_32768():
    picture = np.array([[32768, 0, 32768, 65535]], np.uint16)
    assert np.array_equal(decode_lossless(write_lossless(picture, 1, 16)), picture)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.integers(2, 16), st.integers(0, 2**32 - 1))
def test_any_picture_comes_back(height, width, predictor, bits, seed):
    picture = np.random.default_rng(seed).integers(0, 2**bits, (height, width))
    assert np.array_equal(decode_lossless(write_lossless(picture, predictor, bits)), picture)


@pytest.mark.parametrize("restart", [0, 6])
def test_truncation_is_noticed_everywhere(restart):
    codestream = write_lossless(noisy(12), 1, 12, restart=restart)
    for size in [*range(0, len(codestream) - 2, 97), len(codestream) - 2, len(codestream) - 3]:
        for cut in (codestream[:size], codestream[:size] + b"\xff\xd9"):
            if cut != codestream:
                with pytest.raises(BadStream):
                    decode_lossless(cut)


def test_a_lost_or_swapped_restart_interval_is_noticed():
    codestream = write_lossless(noisy(12), 1, 12, restart=6)
    starts = [codestream.index(bytes([0xFF, marker])) for marker in range(0xD0, 0xD4)]
    with pytest.raises(BadStream, match="restart"):
        decode_lossless(codestream[: starts[1]] + codestream[starts[2] :])
    with pytest.raises(BadStream, match="restart"):
        decode_lossless(codestream[: starts[1]] + b"\0\0\0\0" + codestream[starts[1] :])


@given(st.data())
def test_flipped_bits_never_crash(data):
    picture = noisy(12, (24, 31))
    codestream = bytearray(turbo(picture, data.draw(st.integers(1, 7)), 12))
    for _ in range(data.draw(st.integers(1, 4))):
        codestream[data.draw(st.integers(0, len(codestream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DAMAGE):
        decode_lossless(bytes(codestream))


def test_values_beyond_the_precision_are_damage():
    picture = noisy(12)
    codestream = bytearray(write_lossless(picture, 1, 12))
    frame = codestream.index(b"\xff\xc3")
    codestream[frame + 4] = 10
    with pytest.raises(BadStream, match="precision"):
        decode_lossless(bytes(codestream))


def test_other_kinds_are_left_to_libraries():
    grey = noisy(8)
    with pytest.raises(NotCovered):
        decode_lossless(bytes(imagecodecs.jpeg8_encode(grey, level=90)))
    with pytest.raises(NotCovered):
        decode_lossless(bytes(imagecodecs.jpeg8_encode(np.stack([grey] * 3, axis=2), lossless=True, predictor=1)))
    codestream = bytearray(write_lossless(noisy(12), 1, 12, restart=1))
    interval = codestream.index(b"\xff\xdd")
    codestream[interval + 4 : interval + 6] = (50).to_bytes(2, "big")  # 50 of 53 columns
    with pytest.raises(NotCovered, match="inside a row"):
        decode_lossless(bytes(codestream))


def test_code_table_by_hand():
    # one code of 1 bit (0 -> 7), two of 3 bits (100 -> 8, 101 -> 9): nothing begins with 11
    table = code_table(bytes([1, 0, 2, *[0] * 13]), bytes([7, 8, 9]))
    assert table[0] == table[0x7FFF] == 0x0107
    assert table[0x8000] == table[0x9FFF] == 0x0308
    assert table[0xA000] == table[0xBFFF] == 0x0309
    assert not table[0xC000:].any()
    with pytest.raises(BadStream):
        code_table(bytes([3, *[0] * 15]), bytes(3))


def sequential(bits, tmp_path, restart=0):
    if bits == 8 and restart:
        Image.fromarray(noisy(8, (61, 75))).save(tmp_path / "a.jpg", quality=90, restart_marker_blocks=restart)
        return (tmp_path / "a.jpg").read_bytes()
    return bytes(imagecodecs.jpeg8_encode(noisy(bits, (61, 75)), level=90, bitspersample=bits))


@pytest.mark.parametrize(("bits", "restart"), [(8, 0), (8, 3), (12, 0)])
def test_sequential_pictures_are_whole_or_not(tmp_path, bits, restart):
    codestream = sequential(bits, tmp_path, restart)
    assert check_sequential(codestream) == bits
    for share in np.arange(0, 1, 0.04):
        cut = codestream[: int(len(codestream) * share)]
        for damaged in (cut, cut + b"\xff\xd9"):
            with pytest.raises(BadStream):
                check_sequential(damaged)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_flipped_bits_never_crash_the_check(place, bit):
    codestream = bytearray(imagecodecs.jpeg8_encode(noisy(8, (61, 75)), level=90))
    codestream[place % len(codestream)] ^= 1 << bit
    with contextlib.suppress(DAMAGE):
        check_sequential(bytes(codestream))


def test_progressive_is_not_covered(tmp_path):
    Image.fromarray(noisy(8)).save(tmp_path / "a.jpg", progressive=True)
    with pytest.raises(NotCovered):
        check_sequential((tmp_path / "a.jpg").read_bytes())
    with pytest.raises(TruncatedStream):
        check_sequential(b"\xff\xd8\xff\xc4\x00")
