"""The nipple of an image: from the detector, or else from the breast's outline."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import boxes
from mammoflow.errors import DataError

BOX = ["x1", "y1", "x2", "y2"]
BREAST = [f"breast_{edge}" for edge in BOX]
TIP = 0.02  # share of the breast's depth, next to its outermost column, in which the tip's height is measured


@dataclass(frozen=True)
class Nipple:
    """A nipple in pixels of the stored image; NaN where unknown.

    Attributes
    ----------
    x, y : centre.
    source : ``detector``, ``outline`` or ``unknown``, as in ``tables.ANATOMY``.
    score : the detector's confidence, NaN for the others.
    """

    x: float
    y: float
    source: str
    score: float


UNKNOWN = Nipple(float("nan"), float("nan"), "unknown", float("nan"))


def find_nipple(image: pd.Series, nipples: pd.DataFrame, min_score: float) -> Nipple:
    """Give an image's nipple.

    Parameters
    ----------
    image : the image's row of the IMAGES table.
    nipples : its nipple detections, rows of the DETECTIONS table; possibly none.
    min_score : confidence from which the best of them counts; below it the outline decides.

    Raises
    ------
    DataError
        The picture is needed and can't be read.
    """
    accepted = nipples[nipples["score"] >= min_score]
    if len(accepted):
        best = accepted.sort_values("score", kind="stable").iloc[-1]
        x, y = boxes.centers(best[BOX].to_numpy(dtype=float))[0]
        return Nipple(float(x), float(y), "detector", float(best["score"]))
    breast = image[BREAST].to_numpy(dtype=float)
    if np.isnan(breast).any():
        return UNKNOWN
    return outline_nipple(_read_picture(image["png"]), breast)


def _read_picture(path: str | Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise DataError(f"{path}: can't be read as a picture: delete its shard's images table, and it is made again")
    return np.asarray(picture, dtype=np.uint8)


def chest_wall_side(breast: NDArray[np.float64], width: int) -> str:
    """Side of the image, ``left`` or ``right``, where the breast meets its border; empty when it meets both alike.

    Parameters
    ----------
    breast : ``x1, y1, x2, y2`` of the breast, pixels.
    width : of the image, pixels.
    """
    left, right = breast[0], width - breast[2]
    if left == right:
        return ""
    return "left" if left < right else "right"


def outline_nipple(picture: NDArray[np.uint8], breast: NDArray[np.float64]) -> Nipple:
    """Take the breast's point farthest from the chest wall for its nipple.

    It is right when the nipple is in profile, as it must be on a well-positioned mammogram, and the breast isn't cut
    off at its tip.

    Parameters
    ----------
    picture : uint8 array (H, W), the windowed picture, background dark.
    breast : ``x1, y1, x2, y2`` of the breast, pixels.
    """
    side = chest_wall_side(breast, picture.shape[1])
    x1, y1, x2, y2 = np.round(boxes.clip(breast, picture.shape[1], picture.shape[0])[0]).astype(int)
    depth = max(1, round(TIP * (x2 - x1)))
    tip = {"left": slice(x2 - depth, x2), "right": slice(x1, x1 + depth)}.get(side)
    if tip is None or min(x2 - x1, y2 - y1) < 1:
        return UNKNOWN
    profile = picture[y1:y2, tip].mean(axis=1)
    background = np.median(profile)  # beside the tip most of the column is air
    tissue = np.flatnonzero(profile > (background + profile.max()) / 2)
    if not len(tissue):
        return UNKNOWN
    runs = np.split(tissue, np.flatnonzero(np.diff(tissue) > 1) + 1)
    longest = max(runs, key=len)
    y = y1 + (longest[0] + longest[-1] + 1) / 2
    return Nipple(float(x2 if side == "left" else x1), float(y), "outline", float("nan"))
