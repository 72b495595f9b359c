"""What lies where in a map: the true lesion, the breast's border, the pectoral muscle, labels, air."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammoflow.boxes import as_boxes
from mammoflow.explain.maps import FloatMap
from mammoflow.geometry import Transform

BREAST_GREY = 0.5  # of the breast's 5th percentile: darker is air
LABEL_GREY = 0.5  # of the breast's median: as bright outside the breast is a label
LABEL_REACH = 0.01  # of the picture's long side: a label's edge speaks beside it
BORDER = 0.02  # of the picture's long side: width of the band inside the breast's outline

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Zones:
    """Parts of a picture, bool arrays of its shape; `outside` holds what isn't breast, `label` included."""

    border: Mask
    label: Mask
    outside: Mask


def picture_zones(picture: NDArray[np.uint8], breast_box: ArrayLike, grey_p05: float, grey_p50: float) -> Zones:
    """Part a picture into breast, its border, labels and air, by grey levels.

    Parameters
    ----------
    picture : uint8 array, (H, W), windowed.
    breast_box : smallest box around the breast, ``x1, y1, x2, y2`` in the picture's pixels; NaN when there is none.
    grey_p05, grey_p50 : 5th percentile and median of the breast, 0..255.
    """
    breast = _breast(picture, as_boxes(breast_box)[0], grey_p05)
    side = max(picture.shape)
    depth = cv2.distanceTransform(breast.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    bright = ~breast & (picture >= max(1.0, LABEL_GREY * grey_p50))
    reach = 2 * max(1, round(LABEL_REACH * side)) + 1
    grown = cv2.dilate(bright.astype(np.uint8), np.ones((reach, reach), np.uint8)).astype(bool)
    return Zones(breast & (depth <= max(1.0, BORDER * side)), grown & ~breast, ~breast)


def _breast(picture: NDArray[np.uint8], box: NDArray[np.float64], grey_p05: float) -> Mask:
    """Largest connected region of the breast's grey levels inside its box, holes filled."""
    breast = np.zeros(picture.shape, np.bool_)
    if np.isnan(box).any():
        return breast
    x1, y1 = np.floor(box[:2]).astype(int).clip(0)
    x2, y2 = np.ceil(box[2:]).astype(int)
    inside = (picture[y1:y2, x1:x2] >= max(1.0, BREAST_GREY * np.nan_to_num(grey_p05))).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    if count < 2:
        return breast
    largest = (labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    outlines, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(largest, outlines, -1, 1, cv2.FILLED)
    breast[y1:y2, x1:x2] = largest.astype(bool)
    return breast


def sampled(mask: Mask, place: Transform, target: Transform) -> Mask:
    """Bring a mask onto another raster of the same stored image, by nearest pixel; False where it doesn't reach.

    Parameters
    ----------
    mask : bool array, (H, W), on the raster of `place`.
    place, target : maps from the stored image's pixels to the two rasters.
    """
    x, y = np.arange(target.width) + 0.5, np.arange(target.height) + 0.5
    columns = (x - target.shift_x) / target.scale_x * place.scale_x + place.shift_x
    rows = (y - target.shift_y) / target.scale_y * place.scale_y + place.shift_y
    columns, rows = np.floor(columns).astype(int), np.floor(rows).astype(int)
    known = np.outer((rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1]))
    found = mask[np.ix_(rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1))]
    return found & known


def covered(mask: Mask, box: ArrayLike, target: Transform) -> FloatMap:
    """Share of each of a map's pixels, 0..1, that a mask covers; for small things, which nearest pixels would miss.

    Parameters
    ----------
    mask : bool array, (y2 - y1, x2 - x1).
    box : its place, ``x1, y1, x2, y2`` in whole pixels of the stored image.
    target : map from the stored image's pixels to the relevance map's; without mirroring.

    Returns
    -------
    float32 array, (target.height, target.width).
    """
    x1, y1, _, _ = as_boxes(box)[0]
    rows = _overlaps(y1, mask.shape[0], target.scale_y, target.shift_y, target.height)
    columns = _overlaps(x1, mask.shape[1], target.scale_x, target.shift_x, target.width)
    return (rows.T @ mask.astype(np.float64) @ columns).astype(np.float32)


def _overlaps(first: float, count: int, scale: float, shift: float, target: int) -> NDArray[np.float64]:
    """Length, in target pixels, that each of `count` stored pixels from `first` on has in each target pixel."""
    edges = (first + np.arange(count + 1)) * scale + shift
    starts = np.arange(target)
    shared = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(shared, 0, None)


def share(relevance: FloatMap, region: NDArray[np.floating] | Mask) -> tuple[float, float]:
    """Share of absolute relevance in a region (weights 0..1 a pixel), NaN for a map of zeros, and of the area."""
    magnitude = np.abs(relevance.astype(np.float64))
    total = magnitude.sum()
    inside = float(np.clip((magnitude * region).sum() / total, 0, 1)) if total > 0 else float("nan")
    return inside, float(np.mean(region))
