"""JPEG lossless, first-order prediction: the one encoder of the project (ITU-T T.81, annex H).

DICOM's transfer syntax .70 asks for selection value 1 (predict from the left, PS3.5 A.4.1). The project's libraries
encode with other predictors only.
"""

import struct

import numpy as np
from numpy.typing import NDArray

CATEGORIES = 17  # SSSS 0..16, number of bits of a difference
CHUNK = 2**17  # pixels packed at a time, to bound memory


def encode(pixels: NDArray[np.uint16], bits: int) -> bytes:
    """Return a JPEG lossless stream (process 14, selection value 1) of one greyscale image.

    Parameters
    ----------
    pixels : uint16 (H, W), below ``2**bits``.
    bits : precision, 2 to 16.
    """
    differences = _differences(pixels, bits)
    categories = _categories(differences)
    codes, lengths = _huffman(np.bincount(categories, minlength=CATEGORIES))
    header = _segments(pixels.shape, bits, lengths)
    return header + _stuffed(_pack(differences, categories, codes, lengths)) + b"\xff\xd9"


def _differences(pixels: NDArray[np.uint16], bits: int) -> NDArray[np.int64]:
    """Differences from the prediction, modulo 2**16 in -32767..32768 (T.81 H.1.2.1), flat."""
    values = pixels.astype(np.int64)
    prediction = np.empty_like(values)
    prediction[:, 1:] = values[:, :-1]
    prediction[1:, 0] = values[:-1, 0]
    prediction[0, 0] = 1 << (bits - 1)
    modulo = (values - prediction) & 0xFFFF
    return np.where(modulo > 32768, modulo - 65536, modulo).ravel()


def _categories(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    """SSSS of each difference: bits of its magnitude (T.81 table H.2)."""
    return np.frexp(np.abs(differences).astype(np.float64))[1].astype(np.int64)


def _huffman(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Code and code length of each category (length 0 where unused): T.81 K.2, lengths by repeated merging."""
    lengths = np.zeros(CATEGORIES, np.int64)
    # The extra symbol keeps the code of all ones unused, as T.81 C asks; it gets the longest code and is left out.
    # Counts below a five-hundredth of the whole are raised to it, which bounds the longest code to 16 bits.
    least = int(counts.sum()) >> 9
    groups = [(0, [CATEGORIES])] + [(max(int(count), least), [symbol]) for symbol, count in enumerate(counts) if count]
    depth = dict.fromkeys(range(CATEGORIES + 1), 0)
    while len(groups) > 1:
        groups.sort(key=lambda group: (group[0], -len(group[1])))
        (first, left), (second, right) = groups[:2]
        for symbol in left + right:
            depth[symbol] += 1
        groups[:2] = [(first + second, left + right)]
    used = sorted((depth[symbol], symbol) for symbol in range(CATEGORIES) if depth[symbol])
    codes = np.zeros(CATEGORIES, np.int64)
    code = previous = 0
    for length, symbol in used:
        code <<= length - previous
        codes[symbol], lengths[symbol] = code, length
        code, previous = code + 1, length
    return codes, lengths


def _segments(shape: tuple[int, ...], bits: int, lengths: NDArray[np.int64]) -> bytes:
    """Markers SOI, DHT, SOF3 and SOS (T.81 B.2)."""
    symbols = [int(s) for s in np.lexsort((np.arange(CATEGORIES), lengths)) if lengths[s]]
    per_length = bytes(int((lengths == length).sum()) for length in range(1, 17))
    table = b"\x00" + per_length + bytes(symbols)
    frame = struct.pack(">BHHB3B", bits, *shape, 1, 1, 0x11, 0)
    scan = struct.pack(">B2B3B", 1, 1, 0x00, 1, 0, 0)
    markers = ((0xC4, table), (0xC3, frame), (0xDA, scan))
    return b"\xff\xd8" + b"".join(struct.pack(">BBH", 0xFF, m, len(body) + 2) + body for m, body in markers)


def _pack(
    differences: NDArray[np.int64],
    categories: NDArray[np.int64],
    codes: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Huffman code of each category followed by the difference's bits, packed into bytes, filled with ones."""
    extra = np.where(categories == 16, 0, categories)
    low = np.where(differences < 0, differences + (1 << categories) - 1, differences) & ((1 << extra) - 1)
    words, sizes = (codes[categories] << extra) | low, lengths[categories] + extra
    bits = [_bits(words[start : start + CHUNK], sizes[start : start + CHUNK]) for start in range(0, len(words), CHUNK)]
    fill = np.ones(-sum(map(len, bits)) % 8, np.uint8)
    return np.packbits(np.concatenate([*bits, fill]))


def _bits(words: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Bits of `words`, the highest of their `sizes` first, one a byte."""
    ends = np.cumsum(sizes)
    shift = np.repeat(ends, sizes) - 1 - np.arange(ends[-1])
    return ((np.repeat(words, sizes) >> shift) & 1).astype(np.uint8)


def _stuffed(data: NDArray[np.uint8]) -> bytes:
    """Bytes with a zero after each 0xFF, so that none reads as a marker (T.81 F.1.2.3)."""
    return data.tobytes().replace(b"\xff", b"\xff\x00")
