"""The size that a compressed picture says of itself, read before anything is allocated for it."""

from mammoflow.images.huffman import BadStream

JPEG_START, JPEG2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# Frame headers: SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81 B.1.1.3), and SOF55 of JPEG-LS (T.87 C.1.1)
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
SCAN = 0xDA


def picture_size(data: bytes) -> tuple[int, int, int]:
    """Return rows, columns and components by the frame header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream.

    Raises
    ------
    BadStream
        There is none where it must be.
    """
    if data.startswith(JPEG2000_START) and len(data) >= 42:
        right, bottom, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
        return bottom - top, right - left, int.from_bytes(data[40:42], "big")
    if not data.startswith(JPEG_START):
        raise BadStream("neither a JPEG nor a JPEG 2000 codestream")
    return _frame_header(data)


def _frame_header(data: bytes) -> tuple[int, int, int]:
    position = len(JPEG_START)
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in FRAMES:
            rows, columns = (int.from_bytes(data[at : at + 2], "big") for at in (position + 5, position + 7))
            return rows, columns, data[position + 9]
        if marker == SCAN:
            break
        filled = marker == 0xFF  # fill bytes may precede a marker
        position += 1 if filled else 2
        if not filled and marker not in ALONE:
            position += int.from_bytes(data[position : position + 2], "big")
    raise BadStream("no frame header before the first scan")
