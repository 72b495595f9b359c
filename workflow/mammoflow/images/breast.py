"""Where the breast is: the largest connected bright region, apart from labels and the film's border."""

import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_SIDE = 512  # pixels; outlines need no more, and it evens noise out
MIN_SHARE = 0.02  # of the picture; smaller regions are labels
BORDER_SHARE = 0.01  # of the working picture's side: thin bridges between breast, labels and film edges
FRAME_SHARE = 0.25  # of the picture's side: a bright frame or an unexposed margin is no wider
FRAME_LEVEL = 0.8  # of the brightest grey: a frame's pixels are above it
FRAME_SPREAD = 0.05  # of the brightest grey: 90% of a frame's line at the border differ by less, of a breast's by more


def breast_mask(bright: NDArray[np.uint16]) -> NDArray[np.bool_] | None:
    """Find the breast's pixels.

    Parameters
    ----------
    bright : uint16 array, (H, W), raw values with dense tissue bright and padding 0, before any window.

    Returns
    -------
    bool array, (H, W), or None when no region is large enough.
    """
    height, width = bright.shape
    small = _shrink(bright)
    found = _largest(_foreground(small))
    if found is None:
        return None
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def breast_box(bright: NDArray[np.uint16]) -> tuple[int, int, int, int] | None:
    """Return the smallest half-open box ``x1, y1, x2, y2`` around the breast in pixels, or None; see `breast_mask`."""
    return mask_box(breast_mask(bright))


def mask_box(mask: NDArray[np.bool_] | None) -> tuple[int, int, int, int] | None:
    """Return the smallest half-open box around a mask's pixels; None for none."""
    if mask is None or not mask.any():
        return None
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def chest_wall(mask: NDArray[np.bool_] | None) -> str:
    """Return the side of the chest wall, ``L`` or ``R`` of the picture, empty without breast.

    A breast is widest at the chest wall: it is where the larger half of the mask lies.
    """
    box = mask_box(mask)
    if mask is None or box is None:
        return ""
    x1, y1, x2, y2 = box
    half = (x2 - x1) // 2
    left, right = mask[y1:y2, x1 : x1 + half].sum(), mask[y1:y2, x2 - half : x2].sum()
    return "L" if left >= right else "R"


def _shrink(bright: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Shrink to the working size, without bright frames, grey levels stretched over those that occur."""
    factor = min(1.0, WORKING_SIDE / max(bright.shape))
    size = (max(1, round(bright.shape[1] * factor)), max(1, round(bright.shape[0] * factor)))
    small = cv2.resize(bright, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    picture = _inside_frame(small)
    low, high = np.percentile(small[picture], [0.5, 99.5])
    outside = np.ones(small.shape, bool)
    outside[picture] = False
    small[outside] = low
    stretched = np.clip((small - low) / max(high - low, 1.0) * 255, 0, 255)
    return cv2.GaussianBlur(stretched.astype(np.uint8), (5, 5), 0)


def _inside_frame(small: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns within the bright margins, if any, that unexposed film or a collimator leaves along the border.

    A breast may fill a line at the chest wall, but never as evenly.
    """
    height, width = small.shape
    rows, columns = slice(0, height), slice(0, width)
    for _ in range(2):  # a frame's rows are seen once its columns are gone
        rows = _peeled(small[:, columns], rows, float(small.max()))
        columns = _peeled(small[rows].T, columns, float(small.max()))
    return rows, columns


def _peeled(picture: NDArray[np.float32], lines: slice, brightest: float) -> slice:
    """Take the frame's lines off both ends of `lines`, each at most `FRAME_SHARE` of all."""
    low, high = np.percentile(picture, [5, 95], axis=1)
    is_frame = (low >= max(FRAME_LEVEL * brightest, 1.0)) & (high - low <= FRAME_SPREAD * brightest)
    most = int(FRAME_SHARE * len(is_frame))
    start, stop = lines.start, lines.stop
    while start < most and is_frame[start]:
        start += 1
    while len(is_frame) - stop < most and is_frame[stop - 1]:
        stop -= 1
    return slice(start, stop)


def _foreground(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Threshold twice: Otsu parts dense tissue from the rest, Otsu of the rest parts fat and skin from air."""
    first, _ = cv2.threshold(small, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    below = small[small <= first].reshape(-1, 1)
    second, _ = cv2.threshold(below, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return (small > min(first, second)).astype(np.uint8)


def _largest(foreground: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Find the largest region that hangs together by more than a thin bridge, and give it its thin parts back."""
    border = max(1, round(BORDER_SHARE * max(foreground.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * border + 1, 2 * border + 1))
    opened = cv2.morphologyEx(foreground, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    if statistics[largest, cv2.CC_STAT_AREA] < MIN_SHARE * foreground.size:
        return None
    grown = cv2.dilate((labels == largest).astype(np.uint8), kernel, iterations=2)  # a nipple stands out by no more
    return np.minimum(grown, foreground).astype(np.uint8, copy=False)
