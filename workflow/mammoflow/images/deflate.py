"""Deflate (RFC 1951) for filtered pixels, compiled: one Huffman code for all, and runs of zeros as the only matches.

Noise repeats nothing, so a search for matches only costs time; air is runs. On large mammograms it takes a third (8
bits) to half (16 bits) of the time of ISA-L's level 1, and the result, which any inflate reads, is smaller.
"""

from typing import Any

import numba
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mammoflow.images.buffers import empty

ZLIB_HEADER = b"\x78\x01"
LONGEST = 12  # bits of a code: two, with the length of both, fit into a 32-bit entry of a table
END, LAST_LENGTH = 256, 285  # symbols: end of the block, match of 258 bytes
SYMBOLS, LONGEST_MATCH, SHORTEST_MATCH = 286, 258, 3
CHUNK, SAMPLED = 1024, 16  # of each 16 chunks of so many words one is counted
HEADER_BITS = 3 + 5 + 5 + 4 + 19 * 3 + 4 * (SYMBOLS + 1)
Word = np.uint64


def compress(data: NDArray[np.uint8]) -> tuple[bytes, NDArray[np.uint8], bytes]:
    """Compress a flat uint8 array into a zlib stream (RFC 1950): its header, its only block, its checksum."""
    words = data[: data.size // 8 * 8].view("<u8")
    lengths = code_lengths(_sampled(words) + 1)  # +1: what the sample lacks must have a code, too
    entries = canonical_codes(lengths) | lengths << 24
    literals = entries[:END]
    pairs = _joined(literals[None, :], literals[:, None]).astype(np.uint32).ravel()
    out = empty(((data.size * LONGEST + HEADER_BITS) // 32 + LONGEST,), np.uint32)
    tail = data[words.size * 8 :]
    used = _emit(words, tail, _header(lengths), pairs, literals, _runs(entries), entries[END], out)
    return ZLIB_HEADER, out.view(np.uint8)[:used], isal_zlib.adler32(data).to_bytes(4, "big")


def code_lengths(frequencies: NDArray[np.int64], longest: int = LONGEST) -> NDArray[np.int64]:
    """Return the lengths of the best prefix code of at most `longest` bits: package-merge (Larmore, Hirschberg 1990).

    Parameters
    ----------
    frequencies : int64 array, (n,), 2 <= n <= 2^longest, of each symbol.
    """
    order = np.argsort(frequencies, kind="stable")
    leaves, levels = frequencies[order], []
    packages = leaves[:0]
    for _ in range(longest):
        merged = np.concatenate([leaves, packages])
        places = np.argsort(merged, kind="stable")
        levels.append(places < leaves.size)
        packages = merged[places][: merged.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    lengths, taken = np.zeros(leaves.size, np.int64), 2 * leaves.size - 2
    for is_leaf in reversed(levels):
        count = int(is_leaf[:taken].sum())
        lengths[order[:count]] += 1
        taken = 2 * (taken - count)
    return lengths


def canonical_codes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes of these lengths (RFC 1951 3.2.2), their first bit lowest, as they are packed (3.1.1)."""
    codes, code, before = np.zeros(lengths.size, np.int64), 0, 0
    for symbol in np.argsort(lengths, kind="stable"):
        length = int(lengths[symbol])
        code <<= length - before
        codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
        code, before = code + 1, length
    return codes


def _joined(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join entries (code, and its length from bit 24 on) to those of both codes, one after the other."""
    return (first & 0xFFFFFF | (second & 0xFFFFFF) << (first >> 24)) + (first >> 24 << 24) + (second >> 24 << 24)


def _match_symbols() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Symbol, extra bits and their value of each match length up to 258 (RFC 1951 3.2.5)."""
    lengths = np.arange(LONGEST_MATCH + 1)
    over = np.maximum(lengths - SHORTEST_MATCH, 0)
    extra = np.array([max(length.bit_length() - 3, 0) for length in over.tolist()])
    symbols = 257 + 4 * extra + (over >> extra)
    symbols[LONGEST_MATCH], extra[LONGEST_MATCH] = LAST_LENGTH, 0
    return symbols, extra, over & ((1 << extra) - 1)


MATCHES = _match_symbols()


def _runs(entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Entries that go on with 0 to 258 more zeros: a match at distance 1, whose code is the bit 0; below 3 literals."""
    symbols, extra, value = MATCHES
    runs = _joined(_joined(entries[symbols], value | extra << 24), np.array(1 << 24))
    runs[:SHORTEST_MATCH] = 0, entries[0], _joined(entries[0], entries[0])
    return runs


def _header(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Entries of the head of the last block, dynamic codes (3.2.7): each code length takes 4 bits, as it is."""
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    fields = [(0b101, 3), (SYMBOLS - 257, 5), (0, 5), (15, 4), *((4 if symbol < 16 else 0, 3) for symbol in order)]
    four = canonical_codes(np.full(16, 4))
    fields += [(int(four[length]), 4) for length in (*lengths, 1)]  # the last: the only distance
    return np.array([value | bits << 24 for value, bits in fields])


def _sampled(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Count the symbols of some chunks, or of all where there are few."""
    chunks = words.size // CHUNK
    if chunks < SAMPLED:
        return _count(words.reshape(1, -1), MATCHES[0])
    return _count(words[: chunks * CHUNK].reshape(chunks, CHUNK)[::SAMPLED], MATCHES[0])


@numba.njit(nogil=True, cache=True)
def _count(chunks, symbols):  # type: ignore[no-untyped-def]
    """Count literals and matches as `_emit` makes them, each chunk by itself."""
    out = np.zeros(SYMBOLS, np.int64)
    for chunk in chunks:
        run = 0
        for word in chunk:
            if word == 0:
                run += 8
                continue
            if run:
                out[0] += 1
                out[LAST_LENGTH] += (run - 1) // LONGEST_MATCH
                out[symbols[(run - 1) % LONGEST_MATCH]] += 1
                run = 0
            for byte in range(8):
                out[(word >> Word(8 * byte)) & Word(0xFF)] += 1
    return out


@numba.njit(nogil=True, cache=True)
def _append(out, place, held, count, entry):  # type: ignore[no-untyped-def]
    """Append an entry's bits to the fewer than 32 `held`; without a branch, which nothing could foresee."""
    held |= (entry & Word(0xFFFFFF)) << count
    count += entry >> Word(24)
    out[place] = held & Word(0xFFFFFFFF)
    full = count >> Word(5)
    return place + full, held >> (full << Word(5)), count & Word(31)


@numba.njit(nogil=True, cache=True)
def _emit(words, tail, header, pairs, literals, runs, end, out):  # type: ignore[no-untyped-def]
    """Write the only block to `out`, 32-bit words, and return how many bytes it takes."""
    place = held = count = Word(0)
    run = 0
    for entry in header:
        place, held, count = _append(out, place, held, count, Word(entry))
    for number in range(words.size + 1):
        last = number == words.size
        word = Word(0) if last else words[number]
        if word == 0 and not last:
            run += 8
            continue
        if run:
            place, held, count = _append(out, place, held, count, Word(runs[1]))
            for _ in range((run - 1) // LONGEST_MATCH):
                place, held, count = _append(out, place, held, count, Word(runs[LONGEST_MATCH]))
            place, held, count = _append(out, place, held, count, Word(runs[(run - 1) % LONGEST_MATCH]))
            run = 0
        if not last:
            for pair in range(4):
                entry = pairs[(word >> Word(16 * pair)) & Word(0xFFFF)]
                place, held, count = _append(out, place, held, count, Word(entry))
    for byte in tail:
        place, held, count = _append(out, place, held, count, Word(literals[byte]))
    place, held, count = _append(out, place, held, count, Word(end))
    out[place] = held
    return place * Word(4) + (count + Word(7) >> Word(3))
