"""Lesions put into lesion-free training pictures, copied from others or drawn: more of the few that there are."""

import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from ultralytics.data.augment import BaseTransform
from ultralytics.utils.instance import Instances

from mammoflow.images.breast import breast_mask
from mammoflow.phantom.lesions import FAINTNESS, KINDS, draw_alone, draw_patch
from mammoflow.tables import FINDINGS

LESION = FINDINGS.index("lesion")
RIM = 0.25  # of the frame's side added around it: there the lesion fades into its new surroundings
ON_BREAST = 0.9  # of the pasted region
RESIZED = 0.3  # a drawn lesion is up to this share smaller or larger than the training lesion that lends its size
SMALLEST = 8.0  # pixels; smaller ones would have no shape
TRIES = 20  # for a place; without one the picture stays as it is


class LesionPaste(BaseTransform):
    """Paste a lesion of another training picture into some of the pictures without a lesion.

    It keeps its size, since pictures of one study have one scale, is mirrored in half of the cases, takes the mean grey
    of the place it comes to, and fades out towards its rim (Ghiasi et al. 2021 paste without blending; in mammograms an
    edge would be what is learned).

    Parameters
    ----------
    donors : (number of the picture, frame ``x1, y1, x2, y2`` relative to it, 0..1) of each training lesion.
    load : gives a picture by its number, uint8 (H, W, 1), at the size of training.
    share : of the lesion-free pictures that get one, 0..1.
    """

    def __init__(
        self, donors: list[tuple[int, NDArray[np.float64]]], load: Callable[[int], NDArray[np.uint8]], share: float
    ):
        super().__init__()
        self.donors, self.load, self.share = donors, load, share

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return the labels, with one lesion more where the dice and the breast allow it."""
        if (labels["cls"] == LESION).any() or not self.donors or random.random() >= self.share:
            return labels
        number, frame = random.choice(self.donors)
        return _with_lesion(labels, paste(labels["img"][..., 0], *cut_out(self.load(number)[..., 0], frame)))


class PhantomPaste(BaseTransform):
    """Draw a phantom's lesion into some of the pictures without a lesion.

    Masses and calcifications of `mammoflow.phantom.lesions`, malignant and benign in equal parts, are added to the
    tissue. Their size is drawn from those of the training lesions, their contrast is a share of the breast's range of
    grey levels. No other patient's pixels are used.

    Parameters
    ----------
    sizes : longer side of each training lesion relative to its picture's longer side, 0..1.
    share : of the lesion-free pictures that get one, 0..1.
    """

    def __init__(self, sizes: list[float], share: float):
        super().__init__()
        self.sizes, self.share = sizes, share

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return the labels, with one lesion more where the dice and the breast allow it."""
        if (labels["cls"] == LESION).any() or not self.sizes or random.random() >= self.share:
            return labels
        image = labels["img"][..., 0]
        side = random.choice(self.sizes) * random.uniform(1 - RESIZED, 1 + RESIZED) * max(image.shape)
        return _with_lesion(labels, add(image, draw_opacity(max(side, SMALLEST))))


def _with_lesion(
    labels: dict[str, Any], found: tuple[NDArray[np.uint8], tuple[float, float, float, float]] | None
) -> dict[str, Any]:
    """Labels with the picture and the frame, pixels, of one lesion more; unchanged without a place for it."""
    if found is None:
        return labels
    image, (x1, y1, x2, y2) = found
    height, width = image.shape
    box = np.array([[(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]])
    labels["img"] = image[..., None]
    there = labels["instances"]
    labels["instances"] = Instances(
        np.concatenate([there.bboxes, box.astype(np.float32)]),
        np.zeros((len(there) + 1, 0, 2), np.float32),
        bbox_format="xywh",
        normalized=True,
    )
    labels["cls"] = np.concatenate([labels["cls"], np.full((1, 1), LESION, np.float32)])
    return labels


def draw_opacity(side: float) -> NDArray[np.floating]:
    """Draw a phantom lesion of about `side` pixels, at least half of it.

    Returns
    -------
    Its opacity, (H, W), cut to where it is above 0; see `add`.
    """
    rng = np.random.default_rng(random.getrandbits(64))
    while True:  # a few specks can lie close together
        lesion = draw_alone(rng, random.choice(list(KINDS)))
        opacity = draw_patch(rng, lesion, lesion.diameter / side, (0.0, 0.0))
        rows, columns = np.flatnonzero(opacity.any(axis=1)), np.flatnonzero(opacity.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        if max(height, width) >= side / 2:
            shown = opacity[rows[0] : rows[0] + height, columns[0] : columns[0] + width]
            return shown * random.uniform(*FAINTNESS)


def add(
    image: NDArray[np.uint8], opacity: NDArray[np.floating]
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]] | None:
    """Add a lesion's opacity to a random place on the breast.

    Parameters
    ----------
    image : uint8 array, (H, W).
    opacity : float64 array, shares of the breast's range of grey levels (5th to 95th percentile).

    Returns
    -------
    The picture and the lesion's frame ``x1, y1, x2, y2`` in its pixels; None without a breast or a place on it.
    """
    mask = breast_mask(image.astype(np.uint16))
    height, width = opacity.shape
    place = None if mask is None else find_place(mask, width, height)
    if mask is None or place is None:
        return None
    x, y = place
    low, high = np.percentile(image[mask], (5, 95))
    changed = image.copy()
    region = changed[y : y + height, x : x + width]
    region[:] = np.clip(np.rint(region + opacity * (high - low)), 0, 255)
    return changed, (float(x), float(y), float(x + width), float(y + height))


def find_place(mask: NDArray[np.bool_], width: int, height: int) -> tuple[int, int] | None:
    """Left and top of a random region of that size on the breast, or None where none is found."""
    if height >= mask.shape[0] or width >= mask.shape[1]:
        return None
    covered = cv2.integral(mask.astype(np.uint8))
    for _ in range(TRIES):
        x, y = random.randrange(mask.shape[1] - width), random.randrange(mask.shape[0] - height)
        inside = covered[y + height, x + width] - covered[y, x + width] - covered[y + height, x] + covered[y, x]
        if inside >= ON_BREAST * width * height:
            return x, y
    return None


def cut_out(image: NDArray[np.uint8], frame: NDArray[np.float64]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Cut a lesion with its rim, mirrored in half of the cases; return it with the frame's width and height, pixels.

    Parameters
    ----------
    image : uint8 array, (H, W).
    frame : ``x1, y1, x2, y2``, 0..1.
    """
    height, width = image.shape
    x1, y1, x2, y2 = frame * [width, height, width, height]
    rim_x, rim_y = RIM * (x2 - x1), RIM * (y2 - y1)
    left, top = max(0, round(x1 - rim_x)), max(0, round(y1 - rim_y))
    right, bottom = min(width, round(x2 + rim_x)), min(height, round(y2 + rim_y))
    patch = image[top:bottom, left:right]
    return patch[:, ::-1] if random.random() < 0.5 else patch, (round(x2 - x1), round(y2 - y1))


def paste(
    image: NDArray[np.uint8], patch: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]] | None:
    """Blend a lesion into a random place on the breast.

    Parameters
    ----------
    image : uint8 array, (H, W).
    patch : uint8 array, the lesion with its rim.
    size : width and height of the lesion itself, in the middle of the patch, pixels.

    Returns
    -------
    The picture and the lesion's frame ``x1, y1, x2, y2`` in its pixels; None without a breast or a place on it.
    """
    height, width = patch.shape
    mask = breast_mask(image.astype(np.uint16))
    found = None if mask is None or min(size) < 1 else find_place(mask, width, height)
    if found is None:
        return None
    x, y = found
    weight = _fading(height, width)
    place = image[y : y + height, x : x + width].astype(np.float32)
    level = ((place - patch) * (1 - weight)).sum() / max(float((1 - weight).sum()), 1.0)
    blended = image.copy()
    blended[y : y + height, x : x + width] = np.clip(
        np.rint(place * (1 - weight) + (patch + level) * weight), 0, 255
    ).astype(np.uint8)
    middle_x, middle_y = x + width / 2, y + height / 2
    return blended, (
        max(0.0, middle_x - size[0] / 2), max(0.0, middle_y - size[1] / 2),
        min(float(image.shape[1]), middle_x + size[0] / 2), min(float(image.shape[0]), middle_y + size[1] / 2),
    )  # fmt: skip


def _fading(height: int, width: int) -> NDArray[np.float32]:
    """Weight of a patch's pixels, (H, W): 1 in the lesion's ellipse, 0 at the patch's ellipse and beyond."""
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1)
    inner = 1 / (1 + 2 * RIM)
    return np.clip((1 - radius) / (1 - inner), 0, 1).astype(np.float32)
