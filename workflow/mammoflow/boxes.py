"""Axis-aligned boxes, half-open ``x1, y1, x2, y2`` in pixels of the stored image, origin top left.

A box covers the pixels ``x1 <= x < x2``, so its width is ``x2 - x1`` and a whole image of 10 x 20 pixels (rows x
columns) is ``0, 0, 20, 10``.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]


def as_boxes(boxes: ArrayLike) -> Boxes:
    """Return `boxes` as a float64 array of shape (N, 4), N = 0 included."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Area in square pixels of each box, shape (N,); an inverted box has area 0."""
    b = as_boxes(boxes)
    return np.clip(b[:, 2] - b[:, 0], 0, None) * np.clip(b[:, 3] - b[:, 1], 0, None)


def iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair, shape (N, M), in 0..1; 0 where the union is empty."""
    a, b = as_boxes(first), as_boxes(second)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=2)
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def centers(boxes: ArrayLike) -> NDArray[np.float64]:
    """Centres ``(min + max) / 2``, shape (N, 2), as x, y."""
    b = as_boxes(boxes)
    return (b[:, :2] + b[:, 2:]) / 2


def center_in_box(first: ArrayLike, second: ArrayLike) -> NDArray[np.bool_]:
    """Whether the centre of each first box lies in each second box, shape (N, M)."""
    c, b = centers(first)[:, None, :], as_boxes(second)[None, :, :]
    return np.all((c >= b[..., :2]) & (c < b[..., 2:]), axis=2)


def hits(detections: ArrayLike, truths: ArrayLike, min_iou: float, center: bool) -> NDArray[np.bool_]:
    """Whether each detection finds each truth, shape (N, M).

    The hit rule of the whole project: IoU of at least `min_iou`, or, when `center` is true, the detection's centre
    inside the truth.
    """
    hit = iou(detections, truths) >= min_iou
    return hit | center_in_box(detections, truths) if center else hit


def clip(boxes: ArrayLike, width: float, height: float) -> Boxes:
    """Cut boxes to an image of `width` x `height` pixels."""
    return np.clip(as_boxes(boxes), 0, [width, height, width, height])


def expand(boxes: ArrayLike, factor: float) -> Boxes:
    """Grow each side of each box about its centre: `factor` 1.5 makes a box 1.5 times as wide and as high."""
    b = as_boxes(boxes)
    half = (b[:, 2:] - b[:, :2]) / 2 * factor
    c = centers(b)
    return np.hstack([c - half, c + half])


def from_yolo(rows: ArrayLike, width: float, height: float) -> Boxes:
    """Boxes from YOLO's relative ``center_x, center_y, width, height`` (0..1) in an image of `width` x `height`."""
    r = as_boxes(rows) * [width, height, width, height]
    return np.hstack([r[:, :2] - r[:, 2:] / 2, r[:, :2] + r[:, 2:] / 2])


def to_yolo(boxes: ArrayLike, width: float, height: float) -> Boxes:
    """YOLO's relative ``center_x, center_y, width, height`` of boxes in an image of `width` x `height` pixels."""
    b = as_boxes(boxes)
    return np.hstack([centers(b), b[:, 2:] - b[:, :2]]) / [width, height, width, height]
