"""Huffman codes of JPEG (ITU-T T.81), as look-up tables of compiled decoders."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CODE_BITS = 16  # longest Huffman code
STANDALONE = {0x01, 0xD8, *range(0xD0, 0xD8)}  # markers without a length (B.1.1.3)
SOF3, DHT, SOI, EOI, SOS, DNL, DRI = 0xC3, 0xC4, 0xD8, 0xD9, 0xDA, 0xDC, 0xDD
START_OF_FRAME = {*range(0xC0, 0xD0)} - {DHT, 0xC8, 0xCC}


class BadStream(ValueError):
    """A codestream that is damaged; the message says how."""


class TruncatedStream(BadStream):
    """A codestream that ends before its last pixel."""


class NotCovered(ValueError):
    """A codestream of a kind that isn't decoded here; a library may."""


class Scan(NamedTuple):
    """What the headers of a one-component JPEG say of its only scan.

    `tables` are its Huffman tables by class and destination (``0x10 | destination`` for AC), each uint16, (65536,): the
    code's length (high byte) and symbol (low byte) for every next 16 bits, 0 where no code begins so.
    """

    frame: int
    precision: int
    rows: int
    columns: int
    restart: int
    tables: dict[int, NDArray[np.uint16]]
    destinations: int
    selection: int
    transform: int
    start: int


def read_scan(data: bytes | memoryview) -> Scan:
    """Read the headers up to the entropy-coded data of a one-component JPEG (T.81 B.2).

    Parameters
    ----------
    data : the codestream, SOI to EOI.

    Raises
    ------
    BadStream
        The headers are damaged or end early.
    NotCovered
        Several components or scans, or a hierarchical or arithmetic-coded stream.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        raise BadStream("no SOI marker at the start")
    frame, restart, position = None, 0, 2
    tables: dict[int, NDArray[np.uint16]] = {}
    while True:
        marker, body, position = _segment(data, position)
        if marker in START_OF_FRAME:
            frame = (marker, *_frame(body))
        elif marker == DHT:
            tables |= _tables(body)
        elif marker == DRI and len(body) >= 2:
            restart = int.from_bytes(body[:2], "big")
        elif marker == SOS:
            break
        elif marker in (EOI, DNL):
            raise BadStream("no scan before the end")
    if frame is None or len(body) < 6:
        raise BadStream("no frame header before the scan, or a short scan header")
    if body[0] != 1:
        raise NotCovered(f"{body[0]} components in a scan")
    return Scan(*frame, restart, tables, body[2], body[3], body[5], position)


def _segment(data: bytes | memoryview, position: int) -> tuple[int, bytes, int]:
    """Return marker, content and end of the marker segment at `position`; fill bytes are skipped (B.1.1.2)."""
    if position >= len(data) or data[position] != 0xFF:
        raise BadStream("no marker where one is expected")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position + 3 > len(data):
        raise TruncatedStream("the headers end early")
    marker = data[position]
    if marker in STANDALONE or marker == EOI:
        return marker, b"", position + 1
    length = int.from_bytes(data[position + 1 : position + 3], "big")
    end = position + 1 + length
    if length < 2 or end > len(data):
        raise TruncatedStream("the headers end early")
    return marker, bytes(data[position + 3 : end]), end


def _frame(body: bytes) -> tuple[int, int, int]:
    if len(body) < 9:
        raise BadStream("a short frame header")
    if body[5] != 1:
        raise NotCovered(f"{body[5]} components")
    precision, rows, columns = body[0], int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if not (2 <= precision <= 16 and rows and columns):
        raise NotCovered(f"{rows} x {columns} pixels of {precision} bits")
    return precision, rows, columns


def _tables(body: bytes) -> dict[int, NDArray[np.uint16]]:
    """Build the tables of one DHT segment (B.2.4.2, C.2)."""
    tables = {}
    while body:
        counts, total = body[1:17], sum(body[1:17])
        symbols = body[17 : 17 + total]
        if len(counts) < 16 or len(symbols) < total:
            raise TruncatedStream("a short Huffman table")
        tables[body[0]] = code_table(counts, symbols)
        body = body[17 + total :]
    return tables


def code_table(counts: bytes, symbols: bytes) -> NDArray[np.uint16]:
    """Table of every next 16 bits from the codes' counts by length and their symbols, see `Scan`."""
    table = np.zeros(1 << CODE_BITS, np.uint16)
    code = used = 0
    for length, count in enumerate(counts, start=1):
        room = 1 << (CODE_BITS - length)
        for symbol in symbols[used : used + count]:
            if (code + 1) * room > len(table):
                raise BadStream("more Huffman codes than there can be")
            table[code * room : (code + 1) * room] = length << 8 | symbol
            code += 1
        used += count
        code <<= 1
    return table
