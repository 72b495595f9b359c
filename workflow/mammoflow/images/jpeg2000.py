"""JPEG 2000 and HTJ2K codestreams (ITU-T T.800): whether one is whole, which not every decoder tells."""

from collections import Counter

from mammoflow.images.huffman import BadStream, TruncatedStream

SOC, SIZ, SOT, EOC = 0xFF4F, 0xFF51, 0xFF90, 0xFFD9
COD, REVERSIBLE = 0xFF52, 1
SHORTEST_PART = 14  # bytes: SOT and SOD markers


def check_jpeg2000(data: bytes) -> None:
    """Follow the lengths of the tile-parts (A.4.2) to the end marker, and count them.

    Raises
    ------
    TruncatedStream
        A tile-part is longer than what is left or missing, or no end marker is where the last one ends.
    BadStream
        The headers are damaged.
    """
    tiles, position = _main_header(data)
    seen: Counter[int] = Counter()
    promised: dict[int, int] = {}
    while _number(data, position, 2) == SOT:
        tile, length, parts = (
            _number(data, position + 4, 2),
            _number(data, position + 6, 4),
            _number(data, position + 11, 1),
        )
        if 0 < length < SHORTEST_PART:
            raise BadStream(f"a tile-part of {length} bytes")
        seen[tile] += 1
        promised[tile] = max(parts, promised.get(tile, 0))
        position = position + length if length else data.rfind(EOC.to_bytes(2, "big"), position)
        if position < 0:
            raise TruncatedStream("no end marker")
    if _number(data, position, 2) != EOC:
        raise TruncatedStream("the last tile-part doesn't end at an end marker")
    if len(seen) != tiles or any(parts and seen[tile] != parts for tile, parts in promised.items()):
        raise TruncatedStream(f"{len(seen)} of {tiles} tiles, or not all their parts")


def is_reversible(data: bytes) -> bool:
    """Whether the main header names the reversible wavelet (A.6.1, table A.20), whose result has no rounding."""
    position = 2
    while (marker := _number(data, position, 2)) != SOT:
        if marker == COD:
            return _number(data, position + 13, 1) == REVERSIBLE
        position += 2 + _number(data, position + 2, 2)
    return False


def _main_header(data: bytes) -> tuple[int, int]:
    """Return the number of tiles and where the first tile-part begins."""
    if _number(data, 0, 2) != SOC or _number(data, 2, 2) != SIZ:
        raise BadStream("no SOC and SIZ marker at the start")
    right, bottom, x, y, width, height, left, top = (_number(data, 8 + 4 * field, 4) for field in range(8))
    if not width or not height or right <= max(left, x) or bottom <= max(top, y):
        raise BadStream("no tiles")
    tiles = -(-(right - left) // width) * -(-(bottom - top) // height)
    position = 2
    while (marker := _number(data, position, 2)) != SOT:
        length = _number(data, position + 2, 2)
        if marker >> 8 != 0xFF or length < 2:
            raise BadStream("no marker where one is expected")
        position += 2 + length
    return tiles, position


def _number(data: bytes, position: int, size: int) -> int:
    if position + size > len(data):
        raise TruncatedStream("the codestream ends inside a tile-part or header")
    return int.from_bytes(data[position : position + size], "big")
