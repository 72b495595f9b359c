"""A DICOM file's header and pixels, read once: the header by pydicom, the pixels straight from where it ends."""

import os
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from mammoflow.errors import RenderError
from mammoflow.images.buffers import empty
from mammoflow.images.codestreams import picture_size
from mammoflow.images.decoders import Decoders, decode
from mammoflow.images.huffman import TruncatedStream
from mammoflow.images.rle import decode_rle
from mammoflow.index.bounded import InflatesTooFarError, read_bounded

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
AS_BYTES = (*NATIVE, RLELossless)  # may hold overlays beside the bits stored; the others hold values
PIXEL_DATA = (0x7FE0, 0x0010)
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
UNDEFINED = 0xFFFFFFFF
LONG_VRS = (b"OB", b"OW", b"UN")
MOST_PIXELS = 2**27  # rows times columns; more isn't decoded, whatever index.max_pixels lets through


class Element(NamedTuple):
    """Pixel Data as in the file: its VR (empty when implicit), whether its length is undefined, and its bytes."""

    vr: bytes
    undefined: bool
    data: NDArray[np.uint8]


def read_dicom(path: Path, decoders: Decoders) -> tuple[NDArray[Any], Dataset, str]:
    """Read the stored values of a DICOM file.

    Returns
    -------
    uint8 or uint16 array, (H, W): the bits stored of each pixel, higher and lower bits cleared; the header; the name of
    what decoded the pixels.

    Raises
    ------
    RenderError
        The file isn't DICOM, is damaged or truncated, or holds no single monochrome picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values; what matters here is checked below
        try:
            with path.open("rb") as stream:
                header = _header(stream)
                patterns, decoder = _pixels(stream, header, decoders)
                _take_from_groups(header)
        except RenderError:
            raise
        except InflatesTooFarError as error:
            raise RenderError("inflates_too_far", str(error)) from error
        except Exception as error:  # neither pydicom nor any decoder promises an exception of its own for damage
            raise RenderError("undecodable_pixel_data", f"pixels can't be decoded: {error}") from error
    return patterns, header, decoder


def _header(stream: BinaryIO) -> Dataset:
    """Read a header; `stream` is left where Pixel Data begin (at the end, when they are deflated)."""
    try:
        return read_bounded(stream, stop_before_pixels=True)
    except InvalidDicomError:
        stream.seek(0)
        header = read_bounded(
            stream, stop_before_pixels=True, force=True
        )  # some were written without PS3.10's preamble
        if "SOPClassUID" not in header:
            raise RenderError("not_dicom", "neither DICOM nor PNG, PGM or TIFF") from None
        return header


def _take_from_groups(header: Dataset) -> None:
    """Copy rescale and window of an enhanced object's only frame from its functional groups (PS3.3 C.7.6.16)."""
    for place in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in header.get(place) or []:
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for element in (element for item in group.get(macro) or [] for element in item):
                    if element.tag not in header:
                        header.add(element)


def _pixels(stream: BinaryIO, header: Dataset, decoders: Decoders) -> tuple[NDArray[Any], str]:
    syntax = _syntax(header)
    element = _inflated(stream) if syntax == DeflatedExplicitVRLittleEndian else _element(stream, syntax)
    _check_format(header)
    rows, columns, bits = int(header.Rows), int(header.Columns), int(header.BitsStored)
    shift = int(header.get("HighBit", bits - 1)) + 1 - bits
    if syntax in NATIVE:
        frame, decoder = _native(element, header, syntax), "native"
    else:
        codestream = _frame(element)
        del element  # a decoder needs much memory: leave it this one's
        frame, decoder = _compressed(codestream, header, syntax, shift, decoders)
    if frame.size != rows * columns or frame.shape[:2] != (rows, columns):
        raise RenderError(
            "undecodable_pixel_data", f"the picture is {frame.shape}, Rows and Columns say {(rows, columns)}"
        )
    may_exceed = syntax in AS_BYTES or bool(int(header.PixelRepresentation))
    return _bits(frame.reshape(rows, columns), bits, shift, may_exceed), decoder


def _syntax(header: Dataset) -> UID:
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax is not None:
        return UID(syntax)
    implicit, little = header.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _element(stream: BinaryIO, syntax: UID) -> Element:
    """Read Pixel Data from where the header ends (PS3.5 chapter 7.1)."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    start = stream.read(12)
    if len(start) < 12:
        raise RenderError("no_pixel_data", "no pixel data, or the file ends before them")
    if struct.unpack(f"{order}2H", start[:4]) != PIXEL_DATA:
        raise RenderError("unsupported_pixel_format", "floating point pixels, expected whole numbers")
    vr = start[4:6] if start[4:6] in LONG_VRS else b""  # no even length of implicit VR looks like one of them
    (length,) = struct.unpack(f"{order}L", start[8:] if vr else start[4:8])
    stream.seek(0 if vr else -4, os.SEEK_CUR)
    left = os.fstat(stream.fileno()).st_size - stream.tell()
    if length == 0:
        raise RenderError("no_pixel_data", "empty pixel data")
    if length != UNDEFINED and length > left:
        raise RenderError("truncated_pixel_data", f"{left} bytes of pixels, {length} are announced")
    data = empty((left if length == UNDEFINED else length,), np.uint8)
    if stream.readinto(data.data) != data.size:  # type: ignore[attr-defined]
        raise RenderError("truncated_pixel_data", "the file became shorter while it was read")
    return Element(vr, length == UNDEFINED, data)


def _inflated(stream: BinaryIO) -> Element:
    stream.seek(0)
    whole = read_bounded(stream, force=True)
    if "PixelData" not in whole or not whole.PixelData:
        reason = "unsupported_pixel_format" if "FloatPixelData" in whole else "no_pixel_data"
        raise RenderError(reason, "no whole-number pixel data, or the file ends before them")
    return Element(whole["PixelData"].VR.encode(), False, np.frombuffer(bytearray(whole.PixelData), np.uint8))


def _check_format(header: Dataset) -> None:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise RenderError("multi_frame", f"{header.NumberOfFrames} frames, expected one")
    if int(header.get("SamplesPerPixel") or 1) != 1 or "MONOCHROME" not in str(header.PhotometricInterpretation):
        raise RenderError("not_monochrome", f"{header.PhotometricInterpretation}, expected MONOCHROME1 or 2")
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    high, _ = int(header.get("HighBit", bits - 1)), int(header.PixelRepresentation)  # readable, too
    if allocated not in (8, 16) or not 1 <= bits <= allocated or not bits - 1 <= high < allocated:
        raise RenderError(
            "unsupported_pixel_format",
            f"BitsAllocated {allocated}, BitsStored {bits}, HighBit {header.get('HighBit')}: "
            f"8 or 16 allocated bits are read",
        )
    rows, columns = int(header.Rows), int(header.Columns)
    if not 0 < rows * columns <= MOST_PIXELS:
        raise RenderError("too_many_pixels", f"{rows} x {columns} pixels, expected 1 to {MOST_PIXELS}")


def _native(element: Element, header: Dataset, syntax: UID) -> NDArray[Any]:
    """Uncompressed pixels, all allocated bits of them."""
    rows, columns, size = int(header.Rows), int(header.Columns), int(header.BitsAllocated) // 8
    expected = rows * columns * size
    if element.undefined or element.data.size < expected:
        raise RenderError("truncated_pixel_data", f"{element.data.size} bytes of pixels, expected {expected}")
    data = element.data
    if syntax == ExplicitVRBigEndian and (size == 2 or element.vr == b"OW"):
        data = data[: data.size // 2 * 2].view(">u2").astype("<u2").view(np.uint8)  # bytes travel in words (PS3.5 7.3)
    return data[:expected].view(f"<u{size}").reshape(rows, columns)


def _compressed(frame: bytes, header: Dataset, syntax: UID, shift: int, decoders: Decoders) -> tuple[NDArray[Any], str]:
    rows, columns, size = int(header.Rows), int(header.Columns), int(header.BitsAllocated) // 8
    if syntax == RLELossless:
        try:
            return decode_rle(frame, rows * columns, size).reshape(rows, columns), "mammoflow.rle"
        except TruncatedStream as error:
            raise RenderError("truncated_pixel_data", f"the run-length coded picture ends early: {error}") from error
    if shift:
        raise RenderError(
            "high_bit", f"HighBit {header.HighBit} with BitsStored {header.BitsStored} in a compressed file"
        )
    if syntax in decoders and picture_size(frame) != (rows, columns, 1):
        raise RenderError(
            "undecodable_pixel_data",
            f"the picture is {' x '.join(map(str, picture_size(frame)))}, Rows and Columns say {rows} x {columns}",
        )
    return decode(frame, syntax, decoders)


def _frame(element: Element) -> bytes:
    """Join the fragments of the only frame (PS3.5 A.4)."""
    data, position, fragments = element.data.data, 0, []
    while (tag := bytes(data[position : position + 4])) == ITEM:
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length
        if position > len(data):
            raise RenderError("truncated_pixel_data", "a fragment of the pixel data ends early")
        fragments.append(data[position - length : position])
    if tag != SEQUENCE_END and (element.undefined or tag):
        raise RenderError("truncated_pixel_data", "the fragments of the pixel data don't come to an end")
    return b"".join(fragments[1:])  # the first is the offset table


def _bits(frame: NDArray[Any], bits: int, shift: int, may_exceed: bool) -> NDArray[Any]:
    """Bits stored of each pixel: two's complement of signed values, without overlays or sign above or below them.

    Raises
    ------
    RenderError
        There are bits above those stored where none may be (``high_bit``).
    """
    mask = 2**bits - 1
    patterns = frame.view(f"u{frame.dtype.itemsize}")
    if shift:
        patterns = patterns >> shift
    if patterns.size and patterns.max() > mask:
        if not may_exceed:
            raise RenderError("high_bit", f"the compressed picture has values beyond its {bits} bits stored")
        patterns = patterns & patterns.dtype.type(mask)
    if bits <= 8:
        return patterns.astype(np.uint8, copy=False)
    return patterns.astype(np.uint16, copy=False)
