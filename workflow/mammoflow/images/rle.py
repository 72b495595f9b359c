"""DICOM run-length coding (PS3.5 Annex G), compiled: notices segments that end early, run on or overlap."""

import struct
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from mammoflow.images.buffers import empty
from mammoflow.images.huffman import BadStream, TruncatedStream

HEADER = 64  # bytes: the number of segments and the offsets of up to 15
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
    planes = empty((bytes_each, pixels), np.uint8)
    stream = np.frombuffer(data, np.uint8)
    for number, (start, end) in enumerate(pairwise(edges)):
        status = _unpack(stream[start:end], planes[number])
        if status != WHOLE:
            kind, what = (TruncatedStream, "ends early") if status == TRUNCATED else (BadStream, "runs on")
            raise kind(f"RLE segment {number} {what}")
    if bytes_each == 1:
        return planes[0]
    out = empty((pixels,), np.uint16)
    _interleave(planes[0], planes[1], out)
    return out


@numba.njit(nogil=True, cache=True)
def _unpack(segment, out):  # type: ignore[no-untyped-def]
    """Decode one segment (G.3.2) into `out`; that no place can be negative spares two thirds of the time."""
    size, total = Place(segment.size), Place(out.size)
    position = filled = Place(0)
    while filled < total:
        if position >= size:
            return TRUNCATED
        head = Place(segment[position])
        position += Place(1)
        if head == Place(128):
            continue
        length = head + Place(1) if head < Place(128) else Place(257) - head
        if filled + length > total:
            return LONG
        needed = length if head < Place(128) else Place(1)
        if position + needed > size:
            return TRUNCATED
        if head > Place(128):
            for place in range(length):
                out[filled + Place(place)] = segment[position]
        else:
            for place in range(length):
                out[filled + Place(place)] = segment[position + Place(place)]
        position += needed
        filled += length
    return WHOLE if size - position <= Place(1) else LONG


@numba.njit(nogil=True, cache=True)
def _interleave(high, low, out):  # type: ignore[no-untyped-def]
    for place in range(out.size):
        out[place] = high[place] << 8 | low[place]
