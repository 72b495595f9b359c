"""Files of grey pictures that are no DICOM: PNG, TIFF, PGM."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from mammoflow.errors import RenderError

_GAP = rb"(?:\s|#[^\n]*\n)+"
PGM_HEADER = re.compile(rb"P([25])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")


def read_pgm(path: Path) -> tuple[NDArray[Any], int, str]:
    """Read a portable grey map as `read_picture` does; Pillow would stretch 12-bit values to 16 bits."""
    data = path.read_bytes()
    header = re.match(PGM_HEADER, data)
    if not header or not 0 < int(header[4]) < 2**16:
        raise RenderError("undecodable_pixel_data", "not a PGM header")
    columns, rows, highest = (int(header[group]) for group in (2, 3, 4))
    try:
        if header[1] == b"2":
            values = np.array(data[header.end() :].split()[: rows * columns], dtype=np.uint16)
        else:
            values = np.frombuffer(data, ">u2" if highest > 255 else "u1", rows * columns, header.end())
        patterns = values.reshape(rows, columns)
    except (ValueError, OverflowError) as error:
        raise RenderError("truncated_pixel_data", f"fewer than {rows} x {columns} pixels") from error
    if patterns.size and patterns.max() > highest:
        raise RenderError("undecodable_pixel_data", f"values above its maximum {highest}")
    dtype = np.uint16 if highest > 255 else np.uint8
    return patterns.astype(dtype), highest.bit_length(), "MONOCHROME2"


def read_picture(path: Path) -> tuple[NDArray[Any], int, str]:
    """Read a PNG or TIFF file.

    Returns
    -------
    uint8 or uint16 array, (H, W); its bits; its photometric interpretation as in DICOM.

    Raises
    ------
    RenderError
        The file is damaged, truncated, or no single grey picture.
    """
    try:
        with Image.open(path, formats=["PNG", "TIFF"]) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise RenderError("multi_frame", "several pictures, expected one")
            white_is_zero = isinstance(picture, TiffImageFile) and picture.tag_v2.get(262) == 0
            patterns = _grey(picture)
        if picture.format == "PNG" and b"IEND" not in path.read_bytes()[-16:]:
            raise RenderError("truncated_pixel_data", "the file ends before its end marker")
    except OSError as error:
        reason = "truncated_pixel_data" if "truncated" in str(error) else "undecodable_pixel_data"
        raise RenderError(reason, f"{error}") from error
    except (ValueError, SyntaxError) as error:
        raise RenderError("undecodable_pixel_data", f"{error}") from error
    # Pillow has turned 8-bit pictures of this kind over already, 16-bit ones not
    turned = white_is_zero and patterns.dtype == np.uint16
    bits = patterns.dtype.itemsize * 8
    return patterns, bits, "MONOCHROME1" if turned else "MONOCHROME2"


def _grey(picture: Image.Image) -> NDArray[Any]:
    if picture.mode == "L":
        return np.asarray(picture)
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode in ("RGB", "RGBA", "LA"):
        planes = np.asarray(picture)[..., : 1 if picture.mode == "LA" else 3]
        if (planes == planes[..., :1]).all():
            return np.ascontiguousarray(planes[..., 0])
    raise RenderError("not_monochrome", f"a {picture.mode} picture, expected 8 or 16 bits of grey")
