"""From a picture to a detector's input: the same steps in training, inference and explanation."""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mammoflow.geometry import Transform

BACKGROUND = 0  # air in a windowed mammogram; Ultralytics pads with the grey 114 of photographs


def fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height, pixels, of a picture whose long side is brought to `size`, rounded as Ultralytics does."""
    factor = size / max(width, height)
    return min(math.ceil(width * factor), size), min(math.ceil(height * factor), size)


def letterbox_transform(width: int, height: int, size: int) -> Transform:
    """Map of a picture of `width` x `height` pixels onto the middle of a square of side `size`."""
    fit_width, fit_height = fitted_size(width, height, size)
    left, top = ((size - fit_width) // 2, (size - fit_height) // 2)
    step = Transform(1.0, 1.0, float(left), float(top), size, size)
    return Transform.resize(width, height, fit_width, fit_height).then(step)


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[torch.Tensor, Transform]:
    """Bring a picture to a detector's input: long side to `size`, centred, padded with background.

    Parameters
    ----------
    image : uint8 array, (H, W), grey levels 0..255.
    size : side of the model's input, pixels.

    Returns
    -------
    float32 tensor, (1, 1, size, size), grey levels 0..1, and the map from the picture's pixels to it.
    """
    height, width = image.shape
    transform = letterbox_transform(width, height, size)
    left, top = int(transform.shift_x), int(transform.shift_y)
    fit_width, fit_height = fitted_size(width, height, size)
    canvas = np.full((size, size), BACKGROUND, np.uint8)
    resized = image if (width, height) == (fit_width, fit_height) else cv2.resize(image, (fit_width, fit_height))
    canvas[top : top + fit_height, left : left + fit_width] = resized
    return torch.from_numpy(canvas)[None, None].float() / 255, transform
