"""Stored values: from a file to the pixels it holds, exactly, or an error; never a picture of half a file."""

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import libjpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from mammoflow.errors import RenderError
from mammoflow.provenance import DIGEST_LENGTH

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_GAP = rb"(?:\s|#[^\n]*\n)+"
PGM_HEADER = re.compile(rb"P([25])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
END_OF_IMAGE = b"\xff\xd9"
# What damaged data makes pydicom, imagecodecs (whose errors are RuntimeErrors), libjpeg and Pillow raise
DAMAGE = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError, SyntaxError)


@dataclass(frozen=True)
class Stored:
    """A file's pixels as stored.

    Attributes
    ----------
    patterns : uint8 or uint16 array, (H, W), the bits stored of each pixel (0..2^bits - 1), higher bits cleared.
    bits : bits stored.
    signed : whether patterns are two's complement.
    photometric_interpretation : MONOCHROME1 or MONOCHROME2.
    header : DICOM attributes without pixels; empty for a picture file.
    """

    patterns: NDArray[Any]
    bits: int
    signed: bool
    photometric_interpretation: str
    header: Dataset

    def values(self) -> NDArray[np.int64]:
        """Return the stored value of each pattern, shape (2^bits,): the domain of every look-up table."""
        patterns = np.arange(2**self.bits, dtype=np.int64)
        return (
            np.where(patterns >= 2 ** (self.bits - 1), patterns - 2**self.bits, patterns) if self.signed else patterns
        )

    def range(self) -> tuple[int, int]:
        """Return the lowest and highest stored value that occurs."""
        occurring = self.values()[np.bincount(self.patterns.ravel(), minlength=2**self.bits) > 0]
        return int(occurring.min()), int(occurring.max())

    def digest(self) -> str:
        """SHA-256 of shape and stored values (16-bit little endian), 16 hexadecimal digits; equal for equal pixels."""
        values = self.values().astype("<i2" if self.signed else "<u2")[self.patterns]
        return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()[:DIGEST_LENGTH]


def read_stored(path: str | Path) -> Stored:
    """Read the stored values of a DICOM, PNG, PGM or TIFF file.

    Raises
    ------
    RenderError
        The file can't be read, is damaged or truncated, or holds no single monochrome picture.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise RenderError("unreadable_file", f"{path.name}: {error.strerror}") from error
    if start[:2] in (b"P2", b"P5"):
        return _read_pgm(path)
    if start[128:] != b"DICM" and start.startswith((b"\x89PNG", b"II*\0", b"MM\0*")):
        return _read_picture(path)
    return _read_dicom(path)


def _read_dicom(path: Path) -> Stored:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values; what matters here is checked below
        try:
            header = _dataset(path)
            patterns = _decode(header, path.name)
        except RenderError:
            raise
        except DAMAGE as error:
            raise RenderError("undecodable_pixel_data", f"{path.name}: pixels can't be decoded: {error}") from error
    bits, signed = int(header.BitsStored), bool(header.PixelRepresentation)
    if "PixelData" in header:
        del header.PixelData
    return Stored(patterns, bits, signed, str(header.PhotometricInterpretation), header)


def _dataset(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except InvalidDicomError:
        header = dcmread(path, force=True)  # some were written without PS3.10's preamble
        if "SOPClassUID" not in header:
            raise RenderError("not_dicom", f"{path.name}: neither DICOM nor PNG, PGM or TIFF") from None
        return header


def _decode(header: Dataset, name: str) -> NDArray[Any]:
    _check_format(header, name)
    shape, bits = (int(header.Rows), int(header.Columns)), int(header.BitsStored)
    shift = int(header.get("HighBit", bits - 1)) + 1 - bits
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax is None:
        syntax = ImplicitVRLittleEndian if header.original_encoding[0] else ExplicitVRLittleEndian
    if syntax in NATIVE or syntax == RLELossless:
        frame = _native(header, syntax, name)
    else:
        if shift:
            raise RenderError(
                "high_bit", f"{name}: HighBit {header.HighBit} with BitsStored {bits} in a compressed file"
            )
        frame = _compressed(header, syntax, name)
    if frame.size != shape[0] * shape[1] or frame.shape[:2] != shape:
        raise RenderError(
            "undecodable_pixel_data", f"{name}: the picture is {frame.shape}, Rows and Columns say {shape}"
        )
    # two's complement of signed values, without what lies above the bits stored (overlays, sign)
    patterns = (frame.reshape(shape).astype(np.uint16) >> shift) & np.uint16(2**bits - 1)
    return patterns.astype(np.uint8) if bits <= 8 else patterns


def _check_format(header: Dataset, name: str) -> None:
    if "PixelData" not in header or not header.PixelData:
        reason = "unsupported_pixel_format" if "FloatPixelData" in header else "no_pixel_data"
        raise RenderError(reason, f"{name}: no pixel data, or the file ends before them")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise RenderError("multi_frame", f"{name}: {header.NumberOfFrames} frames, expected one")
    if int(header.get("SamplesPerPixel") or 1) != 1 or "MONOCHROME" not in str(header.PhotometricInterpretation):
        raise RenderError("not_monochrome", f"{name}: {header.PhotometricInterpretation}, expected MONOCHROME1 or 2")
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    if allocated not in (8, 16) or not 1 <= bits <= allocated or int(header.get("HighBit", bits - 1)) >= allocated:
        raise RenderError(
            "unsupported_pixel_format",
            f"{name}: BitsAllocated {allocated}, BitsStored {bits}, HighBit {header.get('HighBit')}: "
            f"8 or 16 allocated bits are read",
        )


def _native(header: Dataset, syntax: UID, name: str) -> NDArray[Any]:
    """Decode uncompressed or RLE pixels, all allocated bits of them."""
    allocated = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    if syntax != RLELossless and len(header.PixelData) < allocated:
        raise RenderError(
            "truncated_pixel_data", f"{name}: {len(header.PixelData)} bytes of pixels, expected {allocated}"
        )
    plugin = "pydicom" if syntax == RLELossless else ""
    frame, _ = get_decoder(syntax).as_array(
        header,
        index=0,
        raw=True,
        decoding_plugin=plugin,
        correct_unused_bits=False,  # type: ignore[arg-type]
    )
    return frame


def _compressed(header: Dataset, syntax: UID, name: str) -> NDArray[Any]:
    if syntax not in DECODERS:
        raise RenderError("unsupported_transfer_syntax", f"{name}: transfer syntax {syntax} is not read")
    codestream = next(generate_frames(header.PixelData, number_of_frames=1))
    end = codestream.rfind(END_OF_IMAGE)
    if end < 0:  # the two bytes can't occur inside a codestream
        raise RenderError("truncated_pixel_data", f"{name}: the compressed picture has no end marker")
    decode, tells = DECODERS[syntax]
    frame = np.asarray(decode(codestream))
    if not tells and not _complete(codestream[:end], decode):
        raise RenderError("truncated_pixel_data", f"{name}: the compressed picture ends before its last pixel")
    return frame


def _complete(body: bytes, decode: Callable[[bytes], Any]) -> bool:
    """Whether a JPEG's entropy-coded data reach its last pixel: then what follows them can't change the picture.

    Its decoders fill missing pixels in without a word. A complete stream ignores a tail, a truncated one decodes it.
    """
    first, second = (np.asarray(decode(body + tail * 64 + END_OF_IMAGE)) for tail in (b"\x00", b"\x55"))
    return np.array_equal(first, second)


# Decoder by transfer syntax, and whether it raises for a truncated stream
DECODERS: dict[UID, tuple[Callable[[bytes], Any], bool]] = {
    JPEGBaseline8Bit: (imagecodecs.jpeg8_decode, False),
    JPEGExtended12Bit: (libjpeg.decode, False),
    JPEGLossless: (imagecodecs.jpegsof3_decode, False),
    JPEGLosslessSV1: (imagecodecs.jpegsof3_decode, False),
    JPEGLSLossless: (imagecodecs.jpegls_decode, True),
    JPEGLSNearLossless: (imagecodecs.jpegls_decode, True),
    JPEG2000Lossless: (imagecodecs.jpeg2k_decode, True),
    JPEG2000: (imagecodecs.jpeg2k_decode, True),
    HTJ2KLossless: (imagecodecs.jpeg2k_decode, True),
    HTJ2KLosslessRPCL: (imagecodecs.jpeg2k_decode, True),
    HTJ2K: (imagecodecs.jpeg2k_decode, True),
}


def _read_pgm(path: Path) -> Stored:
    """Read a portable grey map; Pillow would stretch 12-bit values to 16 bits."""
    data = path.read_bytes()
    header = re.match(PGM_HEADER, data)
    if not header or not 0 < int(header[4]) < 2**16:
        raise RenderError("undecodable_pixel_data", f"{path.name}: not a PGM header")
    columns, rows, highest = (int(header[group]) for group in (2, 3, 4))
    try:
        if header[1] == b"2":
            values = np.array(data[header.end() :].split()[: rows * columns], dtype=np.uint16)
        else:
            values = np.frombuffer(data, ">u2" if highest > 255 else "u1", rows * columns, header.end())
        patterns = values.reshape(rows, columns)
    except (ValueError, OverflowError) as error:
        raise RenderError("truncated_pixel_data", f"{path.name}: fewer than {rows} x {columns} pixels") from error
    if patterns.size and patterns.max() > highest:
        raise RenderError("undecodable_pixel_data", f"{path.name}: values above its maximum {highest}")
    dtype = np.uint16 if highest > 255 else np.uint8
    return Stored(patterns.astype(dtype), highest.bit_length(), False, "MONOCHROME2", Dataset())


def _read_picture(path: Path) -> Stored:
    try:
        with Image.open(path, formats=["PNG", "TIFF"]) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise RenderError("multi_frame", f"{path.name}: several pictures, expected one")
            white_is_zero = isinstance(picture, TiffImageFile) and picture.tag_v2.get(262) == 0
            patterns = _grey(picture, path.name)
        if picture.format == "PNG" and b"IEND" not in path.read_bytes()[-16:]:
            raise RenderError("truncated_pixel_data", f"{path.name}: the file ends before its end marker")
    except OSError as error:
        reason = "truncated_pixel_data" if "truncated" in str(error) else "undecodable_pixel_data"
        raise RenderError(reason, f"{path.name}: {error}") from error
    except (ValueError, SyntaxError) as error:
        raise RenderError("undecodable_pixel_data", f"{path.name}: {error}") from error
    # Pillow has turned 8-bit pictures of this kind over already, 16-bit ones not
    turned = white_is_zero and patterns.dtype == np.uint16
    bits = patterns.dtype.itemsize * 8
    return Stored(patterns, bits, False, "MONOCHROME1" if turned else "MONOCHROME2", Dataset())


def _grey(picture: Image.Image, name: str) -> NDArray[Any]:
    if picture.mode == "L":
        return np.asarray(picture)
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode in ("RGB", "RGBA", "LA"):
        planes = np.asarray(picture)[..., : 1 if picture.mode == "LA" else 3]
        if (planes == planes[..., :1]).all():
            return np.ascontiguousarray(planes[..., 0])
    raise RenderError("not_monochrome", f"{name}: a {picture.mode} picture, expected 8 or 16 bits of grey")
