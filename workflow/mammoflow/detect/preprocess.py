"""From a picture to a detector's input: the same steps in training, inference and explanation."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mammoflow.geometry import Transform

STRIDE = 32  # pixels; a network's coarsest cell: sides of its input are multiples of it
MOST = 0.95  # share of the pictures that fit into the input of training without being shrunk further
BACKGROUND = 0  # air in a windowed mammogram; Ultralytics pads with the grey 114 of photographs


def fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height, pixels, of a picture whose long side is brought to `size`, rounded as Ultralytics does."""
    factor = size / max(width, height)
    return min(math.ceil(width * factor), size), min(math.ceil(height * factor), size)


def common_size(sizes: Sequence[tuple[int, int]], size: int) -> tuple[int, int]:
    """Width and height, pixels, of an input that suits most pictures: multiples of `STRIDE`, the longer side `size`.

    Training needs batches of one shape. A breast is about half as wide as high, and a square would spend almost half of
    the time on background. The few pictures that are wider than the input by their shape are shrunk to fit into it.

    Parameters
    ----------
    sizes : width and height of the pictures, pixels.
    size : long side of every picture at the input, pixels.
    """
    fitted = np.array([fitted_size(width, height, size) for width, height in sizes])
    width, height = (min(size, math.ceil(side / STRIDE) * STRIDE) for side in np.quantile(fitted, MOST, axis=0))
    return width, height


def letterbox_transform(width: int, height: int, size: int, square: bool = False) -> Transform:
    """Map of a picture of `width` x `height` pixels onto the middle of a detector's input.

    The long side becomes `size`. The short side is padded to the next multiple of `STRIDE`, as Ultralytics predicts: a
    breast is about half as wide as high, and empty columns would cost as much as tissue.

    Parameters
    ----------
    width, height : of the picture, pixels.
    size : long side of the pictures that the detector was trained on, pixels.
    square : pad to the whole square, for networks that read nothing else.
    """
    fit_width, fit_height = fitted_size(width, height, size)
    full_width, full_height = (
        size if square else min(size, math.ceil(side / STRIDE) * STRIDE) for side in (fit_width, fit_height)
    )
    left, top = ((full_width - fit_width) // 2, (full_height - fit_height) // 2)
    step = Transform(1.0, 1.0, float(left), float(top), full_width, full_height)
    return Transform.resize(width, height, fit_width, fit_height).then(step)


def letterbox(image: NDArray[np.uint8], size: int, square: bool = False) -> tuple[torch.Tensor, Transform]:
    """Bring a picture to a detector's input: long side to `size`, centred, padded with background.

    Parameters
    ----------
    image : uint8 array, (H, W), grey levels 0..255.
    size, square : see `letterbox_transform`.

    Returns
    -------
    float32 tensor, (1, 1, S, T), grey levels 0..1, and the map from the picture's pixels to it.
    """
    canvas, transform = letterbox_canvas(image, size, square)
    return torch.from_numpy(canvas)[None, None].float() / 255, transform


def letterbox_canvas(image: NDArray[np.uint8], size: int, square: bool = False) -> tuple[NDArray[np.uint8], Transform]:
    """Return what `letterbox` does as a uint8 array, (S, T), grey levels 0..255: a quarter of the bytes to move."""
    height, width = image.shape
    transform = letterbox_transform(width, height, size, square)
    left, top = int(transform.shift_x), int(transform.shift_y)
    fit_width, fit_height = fitted_size(width, height, size)
    canvas = np.full((transform.height, transform.width), BACKGROUND, np.uint8)
    resized = image if (width, height) == (fit_width, fit_height) else cv2.resize(image, (fit_width, fit_height))
    canvas[top : top + fit_height, left : left + fit_width] = resized
    return canvas, transform
