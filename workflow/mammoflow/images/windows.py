"""From stored values to grey levels: modality LUT, VOI, inversion, padding, composed into one table (PS3.3 C.11)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut

from mammoflow.errors import RenderError
from mammoflow.images.stored import Stored

Table = NDArray[np.float64]
WHITE = 255.0
LUT_DEPTHS = (8, *range(10, 17))  # bits of a VOI LUT's entries (PS3.3 C.8.11.3.1.5)
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def window_linear(x: Table, center: float, width: float) -> Table:
    """VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1) onto 0..1; `width` is at least 1."""
    if width == 1:
        return (x > center - 0.5).astype(np.float64)
    return np.clip((x - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def window_linear_exact(x: Table, center: float, width: float) -> Table:
    """VOI LUT function LINEAR_EXACT (PS3.3 C.11.2.1.3.2) onto 0..1; `width` is above 0."""
    return np.clip((x - center) / width + 0.5, 0.0, 1.0)


def window_sigmoid(x: Table, center: float, width: float) -> Table:
    """VOI LUT function SIGMOID (PS3.3 C.11.2.1.3.1) onto 0..1; `width` is above 0."""
    return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (x - center) / width, -700.0, 700.0)))


def modality_values(stored: Stored) -> Table:
    """Values after modality LUT or rescale of each pattern, shape (2^bits,), float64 (PS3.3 C.11.1).

    Raises
    ------
    RenderError
        The LUT or the rescale can't be used.
    """
    try:
        values = np.asarray(apply_modality_lut(stored.values(), stored.header), dtype=np.float64)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise RenderError("bad_modality_lut", f"modality LUT or rescale can't be applied: {error}") from error
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise RenderError("bad_modality_lut", "modality LUT or rescale gives no range of values (slope 0?)")
    return values


def is_inverted(stored: Stored) -> bool:
    """Whether low values are bright: MONOCHROME1, or Presentation LUT Shape INVERSE; both together invert once."""
    shape = str(stored.header.get("PresentationLUTShape") or "")
    return stored.photometric_interpretation == "MONOCHROME1" or shape == "INVERSE"


def padding(stored: Stored) -> NDArray[np.bool_]:
    """Whether each pattern is padding: the Pixel Padding Value, or its range (PS3.3 C.7.5.1.1.2), shape (2^bits,)."""
    first = stored.header.get("PixelPaddingValue")
    values = stored.values()
    if first is None or first == "":
        return np.zeros(len(values), dtype=bool)
    limit = stored.header.get("PixelPaddingRangeLimit")
    ends = [int(first), int(first if limit is None or limit == "" else limit)]
    return (values >= min(ends)) & (values <= max(ends))


def brightness(stored: Stored) -> NDArray[np.uint16]:
    """Brightness of each pattern before any window, 0..65535 over the possible range, padding 0, shape (2^bits,)."""
    table = _whole_range(modality_values(stored))
    bright = np.rint((1 - table if is_inverted(stored) else table) * 65535).astype(np.uint16)
    bright[padding(stored)] = 0
    return bright


def grey_table(
    stored: Stored, window: dict[str, Any], machine: str, seen: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Compose the whole way from stored pattern to grey level.

    Parameters
    ----------
    stored : the pixels.
    window : setting of the data set: `mode` and what belongs to it, see `mammoflow.images.render`.
    machine : name of the machine in the index, for presets.
    seen : int64 array, (2^bits,): how often each pattern occurs where percentiles are taken.

    Returns
    -------
    uint8 array, (2^bits,): grey level of each pattern; and the window as used.

    Raises
    ------
    RenderError
        The file has no such window, or an invalid one.
    """
    x = modality_values(stored)
    if window["mode"] == "percentile":
        grey, used = _percentile(stored, x, window, seen)
    else:
        share, used = {"dicom": _of_file, "fixed": _fixed, "none": _none}[window["mode"]](stored, x, window, machine)
        grey = (1 - share if is_inverted(stored) else share) * WHITE
    # values a rounding error apart, as those of a picture and its MONOCHROME1 twin, must not part at a half
    levels = np.floor(np.round(grey, 6) + 0.5).astype(np.uint8)
    levels[padding(stored)] = 0
    return levels, used


def _none(stored: Stored, x: Table, window: dict[str, Any], machine: str) -> tuple[Table, dict[str, Any]]:
    return _whole_range(x), {"mode": "none"}


def _fixed(stored: Stored, x: Table, window: dict[str, Any], machine: str) -> tuple[Table, dict[str, Any]]:
    presets = window.get("presets")
    if presets is not None and machine not in presets and "center" not in window:
        raise RenderError(
            "no_preset",
            f"machine '{machine}' is none of the window's presets ({', '.join(presets)}): add it to the config",
        )
    chosen = (presets or {}).get(machine, window)
    function = chosen.get("function") or window.get("function") or "LINEAR"
    return _windowed(x, float(chosen["center"]), float(chosen["width"]), function, {"mode": "fixed"})


def _of_file(stored: Stored, x: Table, window: dict[str, Any], machine: str) -> tuple[Table, dict[str, Any]]:
    """Apply the file's own window or VOI LUT; PS3.3 C.11.2 leaves values as they are where there is neither."""
    luts = stored.header.get("VOILUTSequence") or []
    centers, widths = (_floats(stored.header, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    has_window = bool(centers and widths)
    by_lut = bool(luts) and bool(window.get("lut") or not has_window)
    if "explanation" in window:
        by_lut, index = _explained(stored.header, window["explanation"], by_lut)
    else:
        index = int(window.get("index", 0))
    if by_lut:
        return _lut(stored, x, index, len(luts))
    if not has_window:
        return _whole_range(x), {"mode": "dicom", "function": "IDENTITY"}
    if index >= min(len(centers), len(widths)):
        raise RenderError(
            "no_such_window",
            f"window {index} asked, the file has {min(len(centers), len(widths))}: window.index in the config",
        )
    function = str(stored.header.get("VOILUTFunction") or "LINEAR").upper()
    return _windowed(x, centers[index], widths[index], function, {"mode": "dicom", "index": index})


def _explained(header: Dataset, wanted: str, lut_first: bool) -> tuple[bool, int]:
    """Find the window or VOI LUT of an explanation, whatever its case: whether it is a LUT, and which.

    Raises
    ------
    RenderError
        There is none; the message lists those there are.
    """
    windows = _texts(header.get("WindowCenterWidthExplanation"))
    luts = _texts([item.get("LUTExplanation") or "" for item in header.get("VOILUTSequence") or []])
    for by_lut in (lut_first, not lut_first):
        names = luts if by_lut else windows
        if wanted.strip().lower() in names:
            return by_lut, names.index(wanted.strip().lower())
    raise RenderError(
        "no_such_window",
        f"window '{wanted}' asked, the file explains its own as {windows + luts}: window.explanation in the config",
    )


def _texts(value: Any) -> list[str]:
    values = [] if value is None else [value] if isinstance(value, str) else value
    return [str(one).strip().lower() for one in values]


def _floats(header: Dataset, keyword: str) -> list[float]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [float(one) for one in (value if isinstance(value, MultiValue) else [value])]


def _windowed(
    x: Table, center: float, width: float, function: str, used: dict[str, Any]
) -> tuple[Table, dict[str, Any]]:
    if function not in FUNCTIONS:
        raise RenderError("bad_window", f"VOI LUT function {function}, expected one of {', '.join(FUNCTIONS)}")
    lowest = 1 if function == "LINEAR" else np.finfo(float).tiny
    if not np.isfinite([center, width]).all() or width < lowest:
        raise RenderError(
            "bad_window", f"window center {center}, width {width}: {function} needs a width of {lowest:g} or more"
        )
    apply = {"LINEAR": window_linear, "LINEAR_EXACT": window_linear_exact, "SIGMOID": window_sigmoid}[function]
    return apply(x, center, width), used | {"function": function, "center": center, "width": width}


def _lut(stored: Stored, x: Table, index: int, count: int) -> tuple[Table, dict[str, Any]]:
    if index >= count:
        raise RenderError("no_such_window", f"VOI LUT {index} asked, the file has {count}: window.index in the config")
    try:
        first, depth, entries = _entries(stored.header, index)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise RenderError("bad_voi_lut", f"VOI LUT {index} can't be applied: {error}") from error
    output = entries[np.clip(np.rint(x).astype(np.int64) - first, 0, entries.size - 1)]
    share = np.clip(output / (2.0**depth - 1), 0.0, 1.0)
    return share, {"mode": "dicom", "index": index, "function": "LUT"}


def _entries(header: Dataset, index: int) -> tuple[int, int, NDArray[np.int64]]:
    """Return a VOI LUT's first value mapped, bits of an entry, and entries (PS3.3 C.11.2.1.1).

    pydicom 3.0's `apply_voi` counts places in the entries' own type, so an 8-bit LUT begins anew every 256 values.
    """
    item = header.VOILUTSequence[index]
    count, first, depth = (int(number) for number in item.LUTDescriptor)
    if depth not in LUT_DEPTHS:
        raise ValueError(f"entries of {depth} bits, expected 8 or 10 to 16")
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, ">u2" if header.original_encoding[1] is False else "<u2")
    entries = np.atleast_1d(np.asarray(data, np.int64))[: count or 2**16]
    if entries.size < (count or 2**16):
        raise ValueError(f"{entries.size} entries, {count or 2**16} are announced")
    return first, depth, entries


def _percentile(
    stored: Stored, x: Table, window: dict[str, Any], seen: NDArray[np.int64]
) -> tuple[Table, dict[str, Any]]:
    """Grey levels, inversion included, between two percentiles of the breast."""
    bright = x.max() + x.min() - x if is_inverted(stored) else x
    counts = seen * ~padding(stored)
    if not counts.any():
        raise RenderError("only_padding", "no pixel besides padding to take percentiles of")
    order = np.argsort(bright, kind="stable")
    shares = np.cumsum(counts[order]) / counts.sum() * 100
    low, high = (float(bright[order][np.searchsorted(shares, window[end] - 1e-9)]) for end in ("low", "high"))
    if high <= low:
        raise RenderError("flat_picture", f"percentiles {window['low']} and {window['high']} are both {low}")
    used = {"mode": "percentile", "low": window["low"], "high": window["high"], "black": low, "white": high}
    return np.clip((bright - low) / (high - low), 0.0, 1.0) * WHITE, used


def _whole_range(x: Table) -> Table:
    return (x - x.min()) / np.ptp(x)
