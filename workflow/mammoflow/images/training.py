"""The training picture: the breast alone, its chest wall at the left, at the size that detectors read."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.geometry import Transform


def training_transform(
    width: int, height: int, breast: tuple[int, int, int, int] | None, chest_wall: str, settings: dict[str, Any]
) -> Transform:
    """Map the stored image onto its training picture.

    The cut comes before the shrinking, so a lesion keeps more pixels the less of the image the breast fills.

    Parameters
    ----------
    width, height : of the stored image, pixels.
    breast : half-open box of the breast, pixels; without one the whole image is taken.
    chest_wall : side at which it is seen, ``L``, ``R`` or empty.
    settings : section `images` of the config: `train_size` (long side, pixels; smaller regions aren't enlarged),
        `breast_crop`, `breast_margin` (on each side, share of the box's longer side), `same_side`.
    """
    x1, y1, x2, y2 = region(width, height, breast, settings["breast_margin"]) if settings["breast_crop"] else (
        0, 0, width, height
    )  # fmt: skip
    size = Transform.fit_long_side(x2 - x1, y2 - y1, settings["train_size"])
    transform = Transform.window(x1, y1, x2, y2, size.width, size.height)
    return transform.mirrored() if settings["same_side"] and chest_wall == "R" else transform


def region(
    width: int, height: int, breast: tuple[int, int, int, int] | None, margin: float
) -> tuple[int, int, int, int]:
    """Return the breast's box grown by `margin` of its longer side and cut at the image's border, whole pixels."""
    if breast is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = breast
    rim = round(margin * max(x2 - x1, y2 - y1))
    return max(0, x1 - rim), max(0, y1 - rim), min(width, x2 + rim), min(height, y2 + rim)


def training_picture(picture: NDArray[np.uint8], transform: Transform) -> NDArray[np.uint8]:
    """Draw what `training_transform` describes; a pixel is the mean over the area that it covers.

    Parameters
    ----------
    picture : uint8 array, (H, W), the windowed picture at full size.
    transform : of `training_transform`; the edges of its region are whole pixels.
    """
    x1, y1, x2, y2 = np.rint(transform.backward([0, 0, transform.width, transform.height])[0]).astype(int)
    shrunk = cv2.resize(picture[y1:y2, x1:x2], (transform.width, transform.height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(shrunk[:, ::-1] if transform.scale_x < 0 else shrunk, np.uint8)
