"""One file, one picture: stored values through the chosen window to 8 bits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.errors import RenderError
from mammoflow.images.breast import breast_mask, chest_wall, mask_box
from mammoflow.images.buffers import empty
from mammoflow.images.sampling import counts, shrink_factor, shrunk_brightness
from mammoflow.images.stored import Stored, read_stored
from mammoflow.images.windows import brightness, grey_table

GREY_PERCENTILES = (5, 50, 95)
BYTE, WORD = 2**8, 2**16  # sizes of the tables that cv2 looks up


@dataclass(frozen=True)
class Record:
    """How a picture was made.

    Attributes
    ----------
    window : JSON of the window as used: `mode`, and numbers such as `function`, `center`, `width`.
    decoder : name of what decoded the pixels.
    photometric_interpretation : as stored.
    bits_stored : bits of a stored value.
    stored_range : lowest and highest stored value that occurs.
    pixel_digest : see `mammoflow.images.stored.Stored.digest`.
    breast_box : half-open box of the breast in pixels of the stored image, or None.
    chest_wall : side of the picture, ``L`` or ``R``, at which the chest wall is seen; empty without breast.
    greys : 5th, 50th and 95th percentile of the picture's grey levels in the breast (in all, when there is none).
    """

    window: str
    decoder: str
    photometric_interpretation: str
    bits_stored: int
    stored_range: tuple[int, int]
    pixel_digest: str
    breast_box: tuple[int, int, int, int] | None
    chest_wall: str
    greys: tuple[float, float, float]


def render(path: str | Path, window: dict[str, Any], machine: str = "unknown") -> tuple[NDArray[np.uint8], Record]:
    """Render a DICOM, PNG, PGM or TIFF file as an 8-bit picture.

    Stored values go through modality LUT or rescale, the window (VOI), inversion (once, for MONOCHROME1 or
    Presentation LUT Shape INVERSE) and padding (black), composed into one table over all stored values (DICOM PS3.3
    C.7.6.3, C.11.1, C.11.2).

    Parameters
    ----------
    path : file to read.
    window : `mode` and its settings:
        ``dicom``: the file's own window number `index` (0) or of an `explanation`, or its VOI LUT when `lut` is true
        or there is no window;
        ``fixed``: `center` and `width` after rescale, before inversion, by `function` (LINEAR), or `presets` of these
        by machine;
        ``none``: the whole possible range, 8-bit values as they are;
        ``percentile``: from percentile `low` to `high` of the breast.
    machine : name of the machine, for presets.

    Returns
    -------
    uint8 array, (H, W), dense tissue bright; and how it was made.

    Raises
    ------
    RenderError
        There is no picture; `reason` says why.
    """
    try:
        return draw(read_stored(path), window, machine)
    except RenderError as error:
        name = Path(path).name
        raise RenderError(error.reason, str(error) if name in str(error) else f"{name}: {error}") from error


def draw(stored: Stored, window: dict[str, Any], machine: str = "unknown") -> tuple[NDArray[np.uint8], Record]:
    """Draw stored values as `render` does.

    Raises
    ------
    RenderError
        There is no picture; `reason` says why.
    """
    if not stored.patterns.size:
        raise RenderError("no_pixel_data", "a picture without pixels")
    try:
        return _drawn(stored, window, machine)
    except RenderError:
        raise
    except Exception as error:  # pydicom reads attributes when asked, and promises no exception of its own for damage
        raise RenderError("unusable_header", f"an attribute of the header can't be used: {error}") from error


def _drawn(stored: Stored, window: dict[str, Any], machine: str) -> tuple[NDArray[np.uint8], Record]:
    height, width = stored.patterns.shape
    factor = shrink_factor(height, width)
    breast = breast_mask(shrunk_brightness(stored.patterns, brightness(stored), factor))
    seen = counts(stored.patterns, stored.bits, breast, factor)
    table, used = grey_table(stored, window, machine, seen)
    record = Record(
        window=json.dumps(used),
        decoder=stored.decoder,
        photometric_interpretation=stored.photometric_interpretation,
        bits_stored=stored.bits,
        stored_range=stored.range(),
        pixel_digest=stored.digest(),
        breast_box=_enlarged(mask_box(breast), factor, width, height),
        chest_wall=chest_wall(breast),
        greys=_percentiles(np.bincount(table, seen, BYTE).astype(np.int64)),
    )
    return look_up(stored.patterns, table), record


def look_up(patterns: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """Look each pattern up: uint8 or uint16 array, (H, W), and table of at most as many entries as it has values."""
    size = BYTE if patterns.dtype == np.uint8 else WORD
    whole = np.zeros(size, table.dtype)
    whole[: len(table)] = table
    return cv2.LUT(patterns, whole, empty(patterns.shape, table.dtype))


def _enlarged(
    box: tuple[int, int, int, int] | None, factor: int, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Box of a picture that was shrunk by `factor` in pixels of the picture itself."""
    if box is None:
        return None
    x1, y1, x2, y2 = box
    return x1 * factor, y1 * factor, min(x2 * factor, width), min(y2 * factor, height)


def _percentiles(histogram: NDArray[np.int64]) -> tuple[float, float, float]:
    """`GREY_PERCENTILES` of greys counted in `histogram`, (256,), linear between neighbours as numpy's."""
    ends = np.cumsum(histogram)
    places = np.array(GREY_PERCENTILES) / 100 * (ends[-1] - 1)
    below, above = (np.searchsorted(ends, whole(places), side="right") for whole in (np.floor, np.ceil))
    low, middle, high = below + (above - below) * (places - np.floor(places))
    return float(low), float(middle), float(high)
