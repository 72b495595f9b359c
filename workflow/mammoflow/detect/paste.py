"""Lesions of training pictures pasted into lesion-free ones: more places for the few lesions that there are."""

import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from ultralytics.data.augment import BaseTransform
from ultralytics.utils.instance import Instances

from mammoflow.images.breast import breast_mask
from mammoflow.tables import FINDINGS

LESION = FINDINGS.index("lesion")
RIM = 0.25  # of the frame's side added around it: there the lesion fades into its new surroundings
ON_BREAST = 0.9  # of the pasted region
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
        pasted = paste(labels["img"][..., 0], *cut_out(self.load(number)[..., 0], frame))
        if pasted is None:
            return labels
        image, (x1, y1, x2, y2) = pasted
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
    if mask is None or min(size) < 1 or height >= image.shape[0] or width >= image.shape[1]:
        return None
    covered = cv2.integral(mask.astype(np.uint8))
    for _ in range(TRIES):
        x, y = random.randrange(image.shape[1] - width), random.randrange(image.shape[0] - height)
        inside = covered[y + height, x + width] - covered[y, x + width] - covered[y + height, x] + covered[y, x]
        if inside >= ON_BREAST * width * height:
            break
    else:
        return None
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
