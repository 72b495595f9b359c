"""DICOM run-length coding (PS3.5 Annex G), compiled: notices segments that end early, run on or overlap."""

import struct
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from mammoflow.images.huffman import BadStream, TruncatedStream

HEADER = 64  # bytes: the number of segments and the offsets of up to 15
WHOLE, TRUNCATED, LONG = range(3)


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
    planes = np.empty((pixels, bytes_each), np.uint8)  # little endian
    stream = np.frombuffer(data, np.uint8)
    for number, (start, end) in enumerate(pairwise(edges)):
        status = _unpack(stream[start:end], planes[:, bytes_each - 1 - number])
        if status != WHOLE:
            kind, what = (TruncatedStream, "ends early") if status == TRUNCATED else (BadStream, "runs on")
            raise kind(f"RLE segment {number} {what}")
    return planes.view("<u2" if bytes_each == 2 else "u1").reshape(pixels).astype(f"u{bytes_each}", copy=False)


@numba.njit(nogil=True, cache=True)
def _unpack(segment, out):  # type: ignore[no-untyped-def]
    """Decode one segment (G.3.2) into `out`."""
    position = filled = np.int64(0)
    while filled < out.size:
        if position >= segment.size:
            return TRUNCATED
        head = np.int64(segment[position])
        position += 1
        if head == 128:
            continue
        length = head + 1 if head < 128 else 257 - head
        if filled + length > out.size:
            return LONG
        if head > 128:
            if position >= segment.size:
                return TRUNCATED
            for place in range(filled, filled + length):
                out[place] = segment[position]
            position += 1
        else:
            if position + length > segment.size:
                return TRUNCATED
            for place in range(length):
                out[filled + place] = segment[position + place]
            position += length
        filled += length
    return WHOLE if segment.size - position <= 1 else LONG
