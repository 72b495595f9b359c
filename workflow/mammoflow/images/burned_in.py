"""Text burned into a picture outside the breast: painted out of the stored values, before anything is drawn of them."""

from dataclasses import replace

import cv2
import numpy as np

from mammoflow.errors import RenderError
from mammoflow.images.breast import breast_mask
from mammoflow.images.sampling import shrink_factor, shrunk_brightness
from mammoflow.images.stored import Stored
from mammoflow.images.windows import brightness

MARGIN_SHARE = 0.01  # of the picture's long side, kept around the breast: its outline isn't exact


def without_labels(stored: Stored) -> Stored:
    """Give all pixels outside the breast the darkest value, labels, letters and film borders with them.

    Whatever is drawn of the result (picture, training picture, 16-bit master) is free of them. Text that lies on the
    breast itself stays.

    Raises
    ------
    RenderError
        No breast is found, so nothing says where text may be (``no_breast_to_mask_by``).
    """
    height, width = stored.patterns.shape
    factor, bright = shrink_factor(height, width), brightness(stored)
    breast = breast_mask(shrunk_brightness(stored.patterns, bright, factor))
    if breast is None:
        raise RenderError("no_breast_to_mask_by", "no breast is found, beside which labels could be masked")
    margin = max(1, round(MARGIN_SHARE * max(breast.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    kept = cv2.dilate(breast.astype(np.uint8), kernel)
    whole = np.repeat(np.repeat(kept, factor, axis=0), factor, axis=1)[:height, :width].astype(bool)
    darkest = stored.patterns.dtype.type(np.argmin(bright))
    return replace(stored, patterns=np.where(whole, stored.patterns, darkest))
