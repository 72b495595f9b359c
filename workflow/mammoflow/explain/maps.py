"""Relevance maps as pictures' arrays: back from a model's input to the picture, and how much of them lies where."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammoflow.boxes import as_boxes
from mammoflow.files import whole_file
from mammoflow.geometry import Transform

FloatMap = NDArray[np.float32]


def to_picture(relevance: ArrayLike, transform: Transform, height: int, width: int) -> tuple[FloatMap, float]:
    """Bring relevance from a model's input back to the picture, sum preserved.

    A pixel of the input shares its relevance among the picture's pixels it covers, in proportion to the area.

    Parameters
    ----------
    relevance : float array, (S, T), of the model's input.
    transform : map from the picture's pixels to the model's input; without mirroring.
    height, width : of the picture, pixels.

    Returns
    -------
    float32 array, (height, width), and the share of absolute relevance, 0..1, that fell on padding and is left out.
    """
    values = np.asarray(relevance, dtype=np.float64)
    rows = _shares(values.shape[0], height, transform.scale_y, transform.shift_y)
    columns = _shares(values.shape[1], width, transform.scale_x, transform.shift_x)
    total = np.abs(values).sum()
    inside = rows.sum(1) @ np.abs(values) @ columns.sum(1)
    on_padding = float(np.clip(1 - inside / total, 0, 1)) if total > 0 else 0.0
    return (rows.T @ values @ columns).astype(np.float32), on_padding


def _shares(source: int, target: int, scale: float, shift: float) -> NDArray[np.float64]:
    """Share of each of `source` intervals that lies in each of `target` unit intervals, (source, target)."""
    edges: NDArray[np.float64] = (np.arange(source + 1, dtype=np.float64) - shift) / scale
    return _overlap(edges[:-1], edges[1:], target) * scale


def _overlap(low: NDArray[np.float64], high: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """Length of the overlap of intervals ``low..high`` with ``0..1, 1..2, ...``, (N, target)."""
    starts = np.arange(target)
    return np.clip(np.minimum(high[:, None], starts + 1) - np.maximum(low[:, None], starts), 0, None)


def coverage(box: ArrayLike, height: int, width: int) -> NDArray[np.float64]:
    """Share of each pixel, 0..1, that lies inside `box`, (height, width)."""
    x1, y1, x2, y2 = as_boxes(box)[0]
    columns = _overlap(np.array([x1]), np.array([x2]), width)[0]
    rows = _overlap(np.array([y1]), np.array([y2]), height)[0]
    return np.outer(rows, columns)


def relevance_in_box(relevance: FloatMap, box: ArrayLike) -> tuple[float, float]:
    """Share of absolute relevance inside `box`, and the box's share of the area, which a flat map would have there.

    Parameters
    ----------
    relevance : float array, (H, W).
    box : ``x1, y1, x2, y2`` in the map's pixels.

    Returns
    -------
    Two shares, 0..1; the first is NaN for a map of zeros.
    """
    covered = coverage(box, *relevance.shape)
    magnitude = np.abs(relevance.astype(np.float64))
    total = magnitude.sum()
    share = float(np.clip((magnitude * covered).sum() / total, 0, 1)) if total > 0 else float("nan")
    return share, float(covered.mean())


def save_maps(path: str | Path, maps: Mapping[str, FloatMap]) -> None:
    """Write maps (float32, possibly none) to one compressed ``.npz`` container, whole."""
    with whole_file(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **maps)  # type: ignore[arg-type]
