"""Reading DICOM headers in bounded memory and time: what is damaged or hostile is refused, not waited for."""

import struct
import zlib
from io import BytesIO
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

MOST_BYTES = 2**27  # of an inflated data set: a picture of 67 million pixels of 16 bits
MOST_READS = 2**17  # two or three an element, of which a header has hundreds, one with many frames thousands
PREAMBLE = 132  # bytes up to DICM, inclusive (PS3.10 7.1)
META_BYTES = 4096  # file meta information is a few hundred bytes
LONG_VRS = (b"OB", b"OW", b"SQ", b"UN", b"UT")
DEFLATED = DeflatedExplicitVRLittleEndian.encode()


class InflatesTooFarError(ValueError):
    """A deflated data set is larger than `MOST_BYTES`."""


class TooManyElementsError(ValueError):
    """A header would take more than `MOST_READS` reads: millions of elements, half a minute and more of parsing."""


class _Counted:
    """A stream that can be read `MOST_READS` times, each time for a number of bytes."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.left = stream, MOST_READS
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0 or size < 0:  # all that is left at once is what pydicom inflates
            raise TooManyElementsError(f"more than {MOST_READS} pieces of a header")
        return self.stream.read(size)


def read_bounded(stream: BinaryIO, **options: Any) -> FileDataset:
    """Read what pydicom's `dcmread` would with `options`, unless it takes too much memory or time.

    Parameters
    ----------
    stream : the file, open at its start. Behind the header it is left there, unless its data set is deflated (transfer
        syntax Deflated Explicit VR Little Endian, PS3.5 A.5).

    Raises
    ------
    InflatesTooFarError, TooManyElementsError
        It would.
    """
    start = stream.read(PREAMBLE + META_BYTES)
    meta = start[: data_set_start(start)]
    stream.seek(0)
    if DEFLATED not in meta:
        header = dcmread(_Counted(stream), **options)
    else:
        # as it would have been stored without deflating: pydicom, which inflates without bound, need not
        plain = meta.replace(DEFLATED, ExplicitVRLittleEndian.encode().ljust(len(DEFLATED), b"\0"))
        stream.seek(len(meta))
        header = dcmread(_Counted(BytesIO(plain + _inflated(stream))), **options)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.buffer = None
    return header


def data_set_start(start: bytes) -> int:
    """Return where the data set begins: behind the elements of group 0002, which are explicit little endian."""
    position = PREAMBLE if start[PREAMBLE - 4 : PREAMBLE] == b"DICM" else 0
    while start[position : position + 2] == b"\x02\x00" and len(start) >= position + 12:
        is_long = start[position + 4 : position + 6] in LONG_VRS
        header, form, at = (12, "<I", position + 8) if is_long else (8, "<H", position + 6)
        position += header + struct.unpack_from(form, start, at)[0]
    return position


def _inflated(stream: BinaryIO) -> bytes:
    inflater, data = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while not inflater.eof and (part := inflater.unconsumed_tail or stream.read(2**16)):
        data += inflater.decompress(part, 2**20)
        if len(data) > MOST_BYTES:
            raise InflatesTooFarError(f"inflates to more than {MOST_BYTES} bytes")
    if not inflater.eof:
        raise EOFError("the deflated data set ends too early")
    return bytes(data)
