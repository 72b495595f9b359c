"""Relevance maps as pictures' arrays: back from a model's input to the picture, and how much of them lies where."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammoflow import boxes, tables
from mammoflow.boxes import as_boxes
from mammoflow.files import whole_file
from mammoflow.geometry import Transform

FloatMap = NDArray[np.float32]
EDGES = ["x1", "y1", "x2", "y2"]
BLOB = 1 / 4  # standard deviation of the control blob, share of the frame's side


@dataclass(frozen=True)
class RelevanceMap:
    """Relevance of one judgement.

    Attributes
    ----------
    relevance : float32 array, (H, W), in the picture's pixels, in units of the explained number.
    value : the explained number.
    conservation_error : see `mammoflow.explain.engine.Explanation.conservation_error`.
    on_padding : share of absolute relevance, 0..1, on what isn't part of the image.
    """

    relevance: FloatMap
    value: float
    conservation_error: float
    on_padding: float


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


def blob(box: ArrayLike, height: int, width: int) -> FloatMap:
    """Control map that never looked at a model: a Gaussian at the frame, its standard deviation a quarter of each side.

    Parameters
    ----------
    box : ``x1, y1, x2, y2`` in the map's pixels.

    Returns
    -------
    float32 array, (height, width), highest 1 at the frame's centre.
    """
    x1, y1, x2, y2 = as_boxes(box)[0]
    x, y = (np.arange(size) + 0.5 for size in (width, height))
    across = np.exp(-(((x - (x1 + x2) / 2) / (BLOB * (x2 - x1))) ** 2) / 2)
    down = np.exp(-(((y - (y1 + y2) / 2) / (BLOB * (y2 - y1))) ** 2) / 2)
    return np.outer(down, across).astype(np.float32)


def map_row(explained: RelevanceMap, frame: ArrayLike, region: ArrayLike, **what: Any) -> dict[str, Any]:
    """Return a row of `mammoflow.tables.MAPS`.

    Parameters
    ----------
    frame : frame that was explained, ``x1, y1, x2, y2`` in pixels of the stored image.
    region : what the map covers, in pixels of the stored image.
    **what : the columns that say what was explained, ``dataset`` to ``score``.
    """
    height, width = explained.relevance.shape
    covers: list[float] = as_boxes(region)[0].tolist()
    framed: list[float] = as_boxes(frame)[0].tolist()
    box = Transform.window(covers[0], covers[1], covers[2], covers[3], width, height).forward(framed)[0]
    in_box, area_share = relevance_in_box(explained.relevance, box)
    return {
        **what,
        "explained_value": explained.value,
        "conservation_error": explained.conservation_error,
        "relevance_in_box": in_box,
        "box_area_share": area_share,
        "blob_in_box": relevance_in_box(blob(box, height, width), box)[0],
        "relevance_on_padding": explained.on_padding,
        **dict(zip((f"frame_{edge}" for edge in EDGES), framed, strict=True)),
        **dict(zip(EDGES, covers, strict=True)),
        "reason": "",
    }


def row_without_map(reason: str, frame: ArrayLike, region: ArrayLike, **what: Any) -> dict[str, Any]:
    """Return a row of `mammoflow.tables.MAPS` for what can't be explained, with the reason; see `map_row`."""
    nothing = dict.fromkeys(tables.MAPS.columns, float("nan"))
    framed: list[float] = as_boxes(frame)[0].tolist()
    covers: list[float] = as_boxes(region)[0].tolist()
    edges = dict(zip((*(f"frame_{edge}" for edge in EDGES), *EDGES), (*framed, *covers), strict=True))
    return {**nothing, **what, **edges, "reason": reason}


def write_maps(found: Iterable[tuple[dict[str, Any], FloatMap | None]], table: str | Path, maps: str | Path) -> int:
    """Write rows of `mammoflow.tables.MAPS` in the order of ``map_id``, and their arrays; return how many of those."""
    pairs = sorted(found, key=lambda pair: pair[0]["map_id"])
    arrays = {row["map_id"]: array for row, array in pairs if array is not None}
    save_maps(maps, arrays)
    tables.write(tables.MAPS, tables.from_rows(tables.MAPS, [row for row, _ in pairs]), table)
    return len(arrays)


def outside_share(relevance: FloatMap, region: ArrayLike, width: int, height: int) -> float:
    """Share of absolute relevance, 0..1, that lies beyond the border of an image of `width` x `height` pixels.

    Parameters
    ----------
    relevance : float array, (H, W).
    region : what it covers, ``x1, y1, x2, y2`` in pixels of the stored image.
    """
    rows, columns = relevance.shape
    x1, y1, x2, y2 = as_boxes(region)[0].tolist()
    within = Transform.window(x1, y1, x2, y2, columns, rows).forward(boxes.clip(region, width, height))[0]
    inside = relevance_in_box(relevance, within)[0]
    return 0.0 if np.isnan(inside) else 1 - inside


def save_maps(path: str | Path, maps: Mapping[str, FloatMap]) -> None:
    """Write maps (float32, possibly none) to one compressed ``.npz`` container, whole."""
    with whole_file(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **maps)  # type: ignore[arg-type]
