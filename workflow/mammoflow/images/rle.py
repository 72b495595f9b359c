"""DICOM run-length coding (PS3.5 Annex G), compiled: notices segments that end early, run on or overlap."""

import struct
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from mammoflow.images.buffers import empty
from mammoflow.images.huffman import BadStream, TruncatedStream

HEADER = 64  # bytes: the number of segments and the offsets of up to 15
BLOCK = 2**15  # pixels
LONGEST_RUN = 128  # bytes
WHOLE, TRUNCATED, LONG = range(3)
Place = np.uint64


def decode_rle(data: bytes, pixels: int, bytes_each: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode one frame of a single component.

    Parameters
    ----------
    data : the frame: header and segments, the most significant byte's first.
    pixels : number of pixels.
    bytes_each : bytes allocated to a pixel, 1 or 2.

    Returns
    -------
    uint8 or uint16 array, (pixels,).

    Raises
    ------
    TruncatedStream, BadStream
        The frame is cut or damaged.
    """
    if len(data) < HEADER:
        raise TruncatedStream("a short RLE header")
    count, *offsets = struct.unpack("<16L", data[:HEADER])
    if count != bytes_each:
        raise BadStream(f"{count} RLE segments, expected {bytes_each}")
    edges = [*offsets[:count], len(data)]
    if edges[0] != HEADER or any(start >= end for start, end in pairwise(edges)):
        raise BadStream(f"RLE segments at {edges}")
    stream = np.frombuffer(data, np.uint8)
    segments = [stream[start:end] for start, end in pairwise(edges)]
    out = empty((pixels,), np.uint8 if bytes_each == 1 else np.uint16)
    status = _decode_bytes(segments[0], out) if bytes_each == 1 else _decode_words(segments[0], segments[1], out)
    if status != WHOLE:
        kind, what = (TruncatedStream, "ends early") if status == TRUNCATED else (BadStream, "runs on")
        raise kind(f"an RLE segment {what}")
    return out


@numba.njit(nogil=True, cache=True)
def _decode_bytes(segment, out):  # type: ignore[no-untyped-def]
    status, position, _ = _unpack(segment, Place(0), out, Place(0), Place(out.size))
    return _ended(segment, position) if status == WHOLE else status


@numba.njit(nogil=True, cache=True)
def _decode_words(high, low, out):  # type: ignore[no-untyped-def]
    """Decode both segments side by side, a block at a time, which stays in the cache until its bytes are joined."""
    planes = np.empty((2, BLOCK + LONGEST_RUN), np.uint8)
    positions, filled = np.zeros(2, Place), np.zeros(2, Place)
    done, total = Place(0), Place(out.size)
    while done < total:
        wanted = min(Place(BLOCK), total - done)
        for plane in range(2):
            status, positions[plane], filled[plane] = _unpack(
                high if plane == 0 else low, positions[plane], planes[plane], filled[plane], wanted
            )
            if status != WHOLE:
                return status
        _join(planes[0], planes[1], out[done : done + wanted])
        for plane in range(2):  # a run may go on into the next block
            filled[plane] -= wanted
            for place in range(filled[plane]):
                planes[plane, place] = planes[plane, wanted + Place(place)]
        done += wanted
    if filled.any():
        return LONG
    return max(_ended(high, positions[0]), _ended(low, positions[1]))


@numba.njit(nogil=True, cache=True)
def _unpack(segment, position, out, filled, wanted):  # type: ignore[no-untyped-def]
    """Unpack runs (G.3.2) from `position` until `wanted` bytes of `out` are filled; return status and both places.

    That no place can be negative spares two thirds of the time.
    """
    size, total = Place(segment.size), Place(out.size)
    while filled < wanted:
        if position >= size:
            return TRUNCATED, position, filled
        head = Place(segment[position])
        position += Place(1)
        if head == Place(128):
            continue
        length = head + Place(1) if head < Place(128) else Place(257) - head
        if filled + length > total:
            return LONG, position, filled
        needed = length if head < Place(128) else Place(1)
        if position + needed > size:
            return TRUNCATED, position, filled
        if head > Place(128):
            for place in range(length):
                out[filled + Place(place)] = segment[position]
        else:
            for place in range(length):
                out[filled + Place(place)] = segment[position + Place(place)]
        position += needed
        filled += length
    return WHOLE, position, filled


@numba.njit(nogil=True, cache=True)
def _ended(segment, position):  # type: ignore[no-untyped-def]
    """Whether a segment ends where its last pixel does, but for a byte that makes its length even."""
    return WHOLE if Place(segment.size) - position <= Place(1) else LONG


@numba.njit(nogil=True, cache=True)
def _join(high, low, out):  # type: ignore[no-untyped-def]
    for place in range(out.size):
        out[place] = high[place] << 8 | low[place]
