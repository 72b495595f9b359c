"""A relevance map over its picture: red spoke for the finding, blue against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammoflow.boxes import as_boxes
from mammoflow.explain.maps import FloatMap
from mammoflow.files import write_bytes

LONG_SIDE = 480  # pixels of a drawn picture, at least
STRIP = 30  # pixels of the scale below it
SMOOTHING = 1 / 160  # of the long side: single pixels of a map are too fine to see
SATURATION = 99.5  # percentile of absolute relevance shown in full colour
FOR, AGAINST = np.array([39, 48, 215]), np.array([180, 90, 30])  # BGR
FRAME = (90, 220, 250)  # yellow
TRUTH = {"malignant": (90, 230, 90), "benign": (230, 200, 90)}  # green, cyan
BAR_MM = (1, 2, 5, 10, 20, 50)
BAR_SHARE = 0.3  # of the picture's width, at most


@dataclass(frozen=True)
class Outline:
    """A true lesion to be outlined: bool mask of the map's shape, and its pathology."""

    mask: NDArray[np.bool_]
    pathology: str


def draw_overlay(
    picture: NDArray[np.uint8],
    relevance: FloatMap,
    box: ArrayLike,
    path: str | Path,
    outlines: Sequence[Outline] = (),
    spacing: float | None = None,
) -> None:
    """Draw the picture in grey, signed relevance in colour, the frame and a colour scale, as PNG.

    Parameters
    ----------
    picture : uint8 array, (H, W).
    relevance : float32 array, (H, W). It is smoothed for the eye; tables and containers hold it as it is.
    box : frame, ``x1, y1, x2, y2`` in the picture's pixels.
    path : PNG to write.
    outlines : true lesions; malignant ones green, others cyan.
    spacing : mm a pixel of the picture, for a scale bar; None when unknown.

    Notes
    -----
    The scale is symmetric about zero, so equal strengths for and against have equal colour.
    """
    factor = max(1.0, LONG_SIDE / max(picture.shape))
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    sigma = max(1.0, SMOOTHING * max(relevance.shape))
    smooth = cv2.GaussianBlur(relevance, (0, 0), sigma)
    limit = float(np.percentile(np.abs(smooth), SATURATION)) or float(np.abs(smooth).max()) or 1.0
    grey = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    strength = cv2.resize(np.asarray(smooth / limit, np.float32), size, interpolation=cv2.INTER_LINEAR)
    canvas = _coloured(grey, strength)
    for outline in outlines:
        _draw_outline(canvas, outline)
    corners = np.rint(as_boxes(box)[0] * factor).astype(int).tolist()
    cv2.rectangle(canvas, tuple(corners[:2]), tuple(corners[2:]), FRAME, 1, cv2.LINE_AA)
    if spacing is not None:
        _draw_bar(canvas, spacing / factor)
    write_bytes(path, cv2.imencode(".png", np.vstack([canvas, _scale(size[0], limit)]))[1].tobytes())


def _coloured(grey: NDArray[Any], strength: NDArray[Any]) -> NDArray[np.uint8]:
    """Mix grey levels with colour by strength, -1..1."""
    opacity = 0.7 * np.clip(np.abs(strength), 0, 1)[..., None]
    colour = np.where(strength[..., None] >= 0, FOR, AGAINST)
    return np.rint(grey[..., None] * (1 - opacity) + colour * opacity).astype(np.uint8)


def _draw_outline(canvas: NDArray[np.uint8], outline: Outline) -> None:
    size = canvas.shape[1], canvas.shape[0]
    mask = cv2.resize(outline.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, TRUTH.get(outline.pathology, TRUTH["benign"]), 1, cv2.LINE_AA)


def _draw_bar(canvas: NDArray[np.uint8], spacing: float) -> None:
    """Draw a bar of a round length in the lower left corner; `spacing` is mm a pixel of the canvas."""
    height, width = canvas.shape[:2]
    length = max((mm for mm in BAR_MM if mm / spacing <= BAR_SHARE * width), default=BAR_MM[0])
    start, end = (8, height - 8), (8 + round(length / spacing), height - 8)
    for colour, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        cv2.line(canvas, start, end, colour, thickness)
        text = (8, height - 14)
        cv2.putText(canvas, f"{length} mm", text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness - 1, cv2.LINE_AA)


def _scale(width: int, limit: float) -> NDArray[np.uint8]:
    """Colour scale from ``-limit`` to ``limit``, in the units of the explained logit a pixel."""
    ramp = np.tile(np.linspace(-1, 1, width, dtype=np.float32), (STRIP // 3, 1))
    bar = _coloured(np.full(ramp.shape, 128, np.uint8), ramp)
    text = np.zeros((STRIP - STRIP // 3, width, 3), np.uint8)
    for label, place in ((f"-{limit:.1e}", 0.0), ("0", 0.5), (f"+{limit:.1e}", 1.0)):
        extent = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)[0][0]
        left = round(place * (width - extent))
        cv2.putText(text, label, (left, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([bar, text])
