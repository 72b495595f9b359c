"""Stored values: from a file to the pixels it holds, exactly, or an error; never a picture of half a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from mammoflow.errors import RenderError
from mammoflow.images.decoders import DECODERS, Decoders
from mammoflow.images.dicom import read_dicom
from mammoflow.images.pictures import read_pgm, read_picture


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
    decoder : name of what decoded the pixels.
    """

    patterns: NDArray[Any]
    bits: int
    signed: bool
    photometric_interpretation: str
    header: Dataset
    decoder: str = ""

    def values(self) -> NDArray[np.int64]:
        """Return the stored value of each pattern, shape (2^bits,): the domain of every look-up table."""
        patterns = np.arange(2**self.bits, dtype=np.int64)
        return (
            np.where(patterns >= 2 ** (self.bits - 1), patterns - 2**self.bits, patterns) if self.signed else patterns
        )

    def range(self) -> tuple[int, int]:
        """Return the lowest and highest stored value that occurs."""
        sign = 2 ** (self.bits - 1) if self.signed else 0
        ordered = self.patterns ^ self.patterns.dtype.type(sign) if sign else self.patterns
        low, high, *_ = cv2.minMaxLoc(ordered)
        return int(low) - sign, int(high) - sign

    def digest(self) -> str:
        """64-bit XXH3 of shape and stored values (uint16 or int16, little endian), 16 hexadecimal digits."""
        values = self.patterns.astype("<u2", copy=False)
        if self.signed:
            unused = 16 - self.bits
            values = (values << unused).view("<i2") >> unused
        digest = xxhash.xxh3_64(f"{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def read_stored(path: str | Path, decoders: Decoders = DECODERS) -> Stored:
    """Read the stored values of a DICOM, PNG, PGM or TIFF file, compressed ones by `decoders`.

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
    try:
        return _read(path, start, decoders)
    except RenderError as error:
        raise RenderError(error.reason, f"{path.name}: {error}") from error


def _read(path: Path, start: bytes, decoders: Decoders) -> Stored:
    if start[:2] in (b"P2", b"P5"):
        patterns, bits, photometric = read_pgm(path)
        return Stored(patterns, bits, False, photometric, Dataset(), "pgm")
    if start[128:] != b"DICM" and start.startswith((b"\x89PNG", b"II*\0", b"MM\0*")):
        patterns, bits, photometric = read_picture(path)
        return Stored(patterns, bits, False, photometric, Dataset(), "pillow")
    patterns, header, decoder = read_dicom(path, decoders)
    signed = bool(header.PixelRepresentation)
    return Stored(patterns, int(header.BitsStored), signed, str(header.PhotometricInterpretation), header, decoder)
