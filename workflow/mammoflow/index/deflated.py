"""A guard against files that inflate without bound (transfer syntax Deflated Explicit VR Little Endian, PS3.5 A.5)."""

import struct
import zlib
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

MOST_BYTES = 2**27  # of an inflated data set: a picture of 67 million pixels of 16 bits
META_START = 132  # after preamble and DICM (PS3.10 7.1)
META_BYTES = 4096  # file meta information is a few hundred bytes
LONG_VRS = (b"OB", b"OW", b"SQ", b"UN", b"UT")


class InflatesTooFarError(ValueError):
    """A deflated data set is larger than `MOST_BYTES`."""


def check_inflated(stream: BinaryIO) -> None:
    """Refuse a deflated file that is far larger inflated; leave others, and the position of `stream`, alone.

    Parameters
    ----------
    stream : the file, open at its start.

    Raises
    ------
    InflatesTooFarError
        The data set is larger than `MOST_BYTES`.
    """
    start = stream.read(META_START + META_BYTES)
    if DeflatedExplicitVRLittleEndian.encode() in start:
        stream.seek(data_set_start(start))
        _inflate(stream)
    stream.seek(0)


def data_set_start(start: bytes) -> int:
    """Return where the data set begins: behind the elements of group 0002, which are explicit little endian."""
    position = META_START
    while start[position : position + 2] == b"\x02\x00" and len(start) >= position + 12:
        is_long = start[position + 4 : position + 6] in LONG_VRS
        header, form, at = (12, "<I", position + 8) if is_long else (8, "<H", position + 6)
        position += header + struct.unpack_from(form, start, at)[0]
    return position


def _inflate(stream: BinaryIO) -> None:
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (part := inflater.unconsumed_tail or stream.read(2**16)):
        try:
            total += len(inflater.decompress(part, 2**20))
        except zlib.error:
            return  # damaged; the reader says so
        if total > MOST_BYTES:
            raise InflatesTooFarError(f"inflates to more than {MOST_BYTES} bytes")
