"""JPEG's entropy-coded data (ITU-T T.81), compiled: lossless pictures decoded, lossy ones checked to be whole.

`decode_lossless` (process 14, Annex H) takes a third of the libraries' time and notices what most of them don't: a
stream that ends early, runs on, or leaves the range of its precision. What it doesn't cover (several components,
arithmetic coding, restarts inside a row) is `NotCovered` and left to a library. The compiled functions stay in one
module, since their cache on disk follows this file alone.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from mammoflow.images.buffers import empty
from mammoflow.images.huffman import CODE_BITS, EOI, SOF3, BadStream, NotCovered, TruncatedStream, read_scan

SHORT_BITS = 12  # codes with their difference that fit are one look-up; 16 KiB stay in the first cache
MAX_SPARE = 2  # bytes between the last pixel and the end marker: some encoders pad
BLOCK = 64  # coefficients of the DCT
SEQUENTIAL = (0xC0, 0xC1)  # SOF0 and SOF1: Huffman-coded DCT, each block whole
FIRST_RESTART = 0xD0
Place = np.uint64  # places that can't be negative spare the compiled code a check
WHOLE, TRUNCATED, BAD_CODE, BAD_RESTART, BAD_VALUE, SPARE = range(6)
MESSAGES = {
    TRUNCATED: "the data end before the last pixel",
    BAD_CODE: "bits that are no Huffman code",
    BAD_RESTART: "a restart marker is missing or out of turn",
    BAD_VALUE: "values beyond the precision of the stream",
    SPARE: "data go on after the last pixel",
}


def decode_lossless(data: bytes) -> NDArray[np.uint16]:
    """Decode a JPEG lossless codestream: predictors 1 to 7, point transform, restart intervals of whole rows.

    Parameters
    ----------
    data : codestream from SOI to EOI, 2 to 16 bits, one component.

    Returns
    -------
    uint16 array, (H, W).

    Raises
    ------
    TruncatedStream, BadStream
        The stream is cut or damaged.
    NotCovered
        A kind of stream that isn't decoded here.
    """
    scan = read_scan(data)
    codes = scan.tables.get(scan.destinations >> 4)
    bits = scan.precision - (scan.transform & 15)
    if scan.frame != SOF3 or not 1 <= scan.selection <= 7 or scan.transform >> 4 or bits < 1:
        raise NotCovered(f"frame 0x{scan.frame:02x}, predictor {scan.selection}")
    if scan.restart % scan.columns:
        raise NotCovered("restarts inside a row")
    if codes is None or (codes & 0xFF).max() > 16:
        raise BadStream("no Huffman table, or one with differences of more than 16 bits")
    out = empty((scan.rows, scan.columns), np.uint16)
    stream = np.frombuffer(data, np.uint8)
    every = scan.restart // scan.columns
    run = zero_run(codes)
    status = _decode(stream, scan.start, every, scan.selection, bits, short_table(codes), codes, *run, out)
    _raise_for(status)
    if scan.transform & 15:
        out <<= scan.transform & 15
    return out


def check_sequential(data: bytes) -> int:
    """Walk through the Huffman codes of a sequential one-component JPEG (T.81 Annex F) up to its last block.

    Returns
    -------
    Its precision, bits.

    Raises
    ------
    TruncatedStream, BadStream
        They end early, run on, or are no codes.
    NotCovered
        Progressive or several components.
    """
    scan = read_scan(data)
    if scan.frame not in SEQUENTIAL:
        raise NotCovered(f"frame 0x{scan.frame:02x}")
    dc, ac = scan.tables.get(scan.destinations >> 4), scan.tables.get(0x10 | scan.destinations & 15)
    if dc is None or ac is None:
        raise BadStream("no Huffman table")
    blocks = -(-scan.rows // 8) * -(-scan.columns // 8)
    _raise_for(_walk(np.frombuffer(data, np.uint8), scan.start, blocks, scan.restart, dc, ac))
    return scan.precision


def _raise_for(status: int) -> None:
    if status != WHOLE:
        raise (TruncatedStream if status == TRUNCATED else BadStream)(MESSAGES[status])


def short_table(codes: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Difference (shifted by 8) and length of each next 12 bits that hold a code with its difference, else 0."""
    following = np.arange(1 << SHORT_BITS, dtype=np.int64)
    entry = codes[following << (CODE_BITS - SHORT_BITS)].astype(np.int64)
    length, extra = entry >> 8, entry & 0xFF
    fits = (length > 0) & (length + extra <= SHORT_BITS) & (extra < 16)
    extra = np.where(fits, extra, 0)
    value = following >> np.where(fits, SHORT_BITS - length - extra, 0) & ((1 << extra) - 1)
    difference = np.where(value < 1 << extra >> 1, value - (1 << extra) + 1, value)
    return np.where(fits, difference * 256 + length + extra, 0).astype(np.int32)


def zero_run(codes: NDArray[np.uint16]) -> tuple[int, int, int]:
    """As many codes of difference 0 as fit into 12 bits, which is what air is: the bits, their length, pixels."""
    places = np.flatnonzero((codes & 0xFF == 0) & (codes >> 8 > 0))
    if not places.size:
        return -1, 1, 0
    length = int(codes[places[0]]) >> 8
    code, pixels = int(places[0]) >> (CODE_BITS - length), SHORT_BITS // length
    return sum(code << (length * place) for place in range(pixels)), length * pixels, pixels


@numba.njit(nogil=True, cache=True)
def _refill(stream, position, held, count, missing):  # type: ignore[no-untyped-def]
    """Hold at least 32 of the next bits. At a marker `position` stays, zeros follow, and `missing` counts them."""
    while count < 32:
        if position + 4 <= stream.size:
            word = (
                np.int64(stream[Place(position)]) << 24
                | np.int64(stream[Place(position + 1)]) << 16
                | np.int64(stream[Place(position + 2)]) << 8
                | np.int64(stream[Place(position + 3)])
            )
            if ((word & 0x7F7F7F7F) + 0x01010101) & word & 0x80808080 == 0:  # none of the four is 0xFF
                return position + 4, held << 32 | word, count + 32, missing
        byte = np.int64(stream[Place(position)]) if position < stream.size else np.int64(0xFF)
        if byte != 0xFF:
            position += 1
        elif position + 1 < stream.size and stream[Place(position + 1)] == 0:
            position += 2
        else:
            return position, held << 32, count + 32, missing + 32
        held, count = held << 8 | byte, count + 8
    return position, held, count, missing


@numba.njit(nogil=True, cache=True)
def _difference(held, count, short, codes):  # type: ignore[no-untyped-def]
    """Return the next difference (H.1.2.2) and the bits left; -1 bits where no code begins so."""
    entry = np.int64(short[Place((held >> (count - SHORT_BITS)) & ((1 << SHORT_BITS) - 1))])
    if entry:
        return entry >> 8, count - (entry & 0xFF)
    code = np.int64(codes[Place((held >> (count - CODE_BITS)) & ((1 << CODE_BITS) - 1))])
    if code == 0:
        return np.int64(0), np.int64(-1)
    extra = code & 0xFF
    count -= code >> 8
    if extra == 16:
        return np.int64(32768), count
    count -= extra
    value = (held >> count) & ((1 << extra) - 1)
    if extra and value < 1 << (extra - 1):
        value -= (1 << extra) - 1
    return value, count


@numba.njit(nogil=True, cache=True)
def _marker(stream, position, count, missing):  # type: ignore[no-untyped-def]
    """Return where the next marker's code is, and the whole bytes before it that no pixel used; -1 for no marker."""
    spare = (count - missing) // 8
    while position + 1 < stream.size and not (stream[Place(position)] == 0xFF and stream[Place(position + 1)] != 0):
        position, spare = position + 1, spare + 1
    while position < stream.size and stream[Place(position)] == 0xFF:
        position += 1
    return (position if position < stream.size else -1), spare


@numba.njit(nogil=True, cache=True)
def _predicted(predictor, left, above, corner):  # type: ignore[no-untyped-def]
    """Table H.1."""
    if predictor == 2:
        return above
    if predictor == 3:
        return corner
    if predictor == 4:
        return left + above - corner
    if predictor == 5:
        return left + ((above - corner) >> 1)
    if predictor == 6:
        return above + ((left - corner) >> 1)
    return (left + above) >> 1


@numba.njit(nogil=True, cache=True)
def _decode(stream, start, every, predictor, bits, short, codes, zeros, zero_bits, zero_pixels, out):  # type: ignore[no-untyped-def]
    """Decode the scan at `start` into `out`; `every` is the restart interval in rows, 0 for none."""
    rows, columns = out.shape
    position = np.int64(start)
    held = count = missing = seen = np.int64(0)
    for y in range(rows):
        first = y == 0 or (every > 0 and y % every == 0)
        if y and first:
            position, spare = _marker(stream, position, count, missing)
            if position < 0:
                return TRUNCATED
            if spare > MAX_SPARE or stream[Place(position)] != FIRST_RESTART + (y // every - 1) % 8:
                return BAD_RESTART
            position += 1
            held = count = missing = np.int64(0)
        row, above = out[y], out[max(y - 1, 0)]
        left = np.int64(1) << (bits - 1) if first else np.int64(above[0])
        from_left = predictor == 1 or first
        x = 0
        while x < columns:
            if count < 32:
                position, held, count, missing = _refill(stream, position, held, count, missing)
            ahead = (held >> (count - zero_bits)) & ((1 << zero_bits) - 1)
            if from_left and ahead == zeros and 0 < x <= columns - zero_pixels and count - zero_bits >= missing:
                row[x : x + zero_pixels] = left
                x, count = x + zero_pixels, count - zero_bits
                continue
            difference, count = _difference(held, count, short, codes)
            if count < missing:  # bits were used that aren't there
                return TRUNCATED if missing else BAD_CODE
            if not from_left and x:
                left = _predicted(predictor, left, np.int64(above[Place(x)]), np.int64(above[Place(x - 1)]))
            left = (left + difference) & 0xFFFF
            row[Place(x)] = left
            seen |= left
            x += 1
    position, spare = _marker(stream, position, count, missing)
    if position < 0 or stream[Place(position)] != EOI:
        return TRUNCATED if position < 0 else SPARE
    if seen >> bits:
        return BAD_VALUE
    return SPARE if spare > MAX_SPARE else WHOLE


@numba.njit(nogil=True, cache=True)
def _walk(stream, start, blocks, every, dc, ac):  # type: ignore[no-untyped-def]
    """Pass all blocks (F.2.2); `every` is the restart interval in blocks, 0 for none."""
    position = np.int64(start)
    held = count = missing = np.int64(0)
    for block in range(blocks):
        if block and every and block % every == 0:
            position, spare = _marker(stream, position, count, missing)
            if position < 0:
                return TRUNCATED
            if spare > MAX_SPARE or stream[Place(position)] != FIRST_RESTART + (block // every - 1) % 8:
                return BAD_RESTART
            position += 1
            held = count = missing = np.int64(0)
        index = np.int64(0)
        while index < BLOCK:
            position, held, count, missing = _refill(stream, position, held, count, missing)
            bits = (held >> (count - 16)) & 0xFFFF
            code = np.int64(dc[Place(bits)] if index == 0 else ac[Place(bits)])
            run, extra = (code >> 4) & 15, code & 15
            count -= (code >> 8) + extra
            if code == 0 or count < missing:
                return TRUNCATED if missing else BAD_CODE
            if index and extra == 0 and run < 15:
                break
            index += np.int64(1) if index == 0 else run + 1
        if index > BLOCK:
            return BAD_CODE
    position, spare = _marker(stream, position, count, missing)
    if position < 0:
        return TRUNCATED
    return WHOLE if stream[Place(position)] == EOI and spare <= MAX_SPARE else SPARE
