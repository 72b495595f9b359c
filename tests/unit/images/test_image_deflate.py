import heapq
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from mammoflow.images.deflate import MATCHES, canonical_codes, code_lengths, compress


def inflated(parts):
    """What two libraries make of a stream; both check its sum."""
    stream = b"".join(map(bytes, parts))
    by_zlib = zlib.decompress(stream)
    assert isal_zlib.decompress(stream) == by_zlib
    return by_zlib


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 5000, 200_003])
@pytest.mark.parametrize("kind", ["zeros", "noise", "bytes", "sparse"])
def test_two_libraries_give_the_bytes_back(size, kind):
    rng = np.random.default_rng(size)
    data = {
        "zeros": np.zeros(size), "noise": np.rint(rng.normal(0, 3, size)) % 256, "bytes": rng.integers(0, 256, size),
        "sparse": rng.integers(0, 256, size) * (rng.random(size) < 0.01),
    }[kind].astype(np.uint8)  # fmt: skip
    assert inflated(compress(data)) == data.tobytes()


@given(st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=20)), max_size=30))
def test_runs_of_any_length_come_back(parts):
    data = b"".join(bytes(zeros) + rest for zeros, rest in parts)
    assert inflated(compress(np.array(bytearray(data), np.uint8))) == data


def test_what_the_sample_lacks_comes_back():
    data = np.zeros(2_000_000, np.uint8)
    data[8 * 1024 : 8 * 1024 + 256] = np.arange(256)  # in the second of 16 chunks, which isn't counted
    parts = compress(data)
    assert inflated(parts) == data.tobytes()
    assert len(parts[1]) < 10_000


def test_lengths_by_hand():
    # a Huffman tree of 1, 1, 2, 4, and the best one without codes of 3 bits
    assert code_lengths(np.array([1, 4, 2, 1])).tolist() == [3, 1, 2, 3]
    assert code_lengths(np.array([1, 4, 2, 1]), 2).tolist() == [2, 2, 2, 2]


def huffman_cost(frequencies):
    """Bits of the best code without a limit (Huffman 1952)."""
    heap, cost = list(frequencies), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, both)
        cost += both
    return cost


@given(st.lists(st.integers(1, 100), min_size=2, max_size=286))
def test_lengths_are_the_best(frequencies):
    lengths = code_lengths(np.array(frequencies))
    assert (0.5**lengths).sum() == 1  # complete, as inflate demands
    assert lengths.max() <= 12
    best = huffman_cost(frequencies)
    cost = int(lengths @ np.array(frequencies))
    # a tree as deep as 12 needs frequencies as far apart as Fibonacci's numbers of that place
    assert cost == best if sum(frequencies) < 377 else best <= cost <= best * 1.02


def test_codes_of_the_standards_example():
    # RFC 1951 3.2.2: lengths 3, 3, 3, 3, 3, 2, 4, 4; its codes, first bit lowest
    codes = canonical_codes(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    expected = ["010", "011", "100", "101", "110", "00", "1110", "1111"]
    assert codes.tolist() == [int(code[::-1], 2) for code in expected]


def test_match_lengths_of_the_standards_table():
    # RFC 1951 3.2.5: length, its symbol and extra bits
    rows = [(3, 257, 0), (10, 264, 0), (11, 265, 1), (18, 268, 1), (19, 269, 2), (66, 276, 3), (67, 277, 4),
            (130, 280, 4), (131, 281, 5), (257, 284, 5), (258, 285, 0)]  # fmt: skip
    for length, symbol, extra in rows:
        assert (MATCHES[0][length], MATCHES[1][length]) == (symbol, extra)
