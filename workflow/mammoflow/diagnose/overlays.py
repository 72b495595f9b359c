"""Findings drawn on the pictures."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow.classify.data import read_crop
from mammoflow.diagnose.findings import DISCLAIMER
from mammoflow.files import write_bytes

MALIGNANT, BENIGN, NIPPLE = (60, 60, 255), (120, 220, 60), (255, 200, 0)  # blue, green, red
FONT = cv2.FONT_HERSHEY_SIMPLEX
REFERENCE_HEIGHT = 1000  # rows at which lines are two pixels wide


def draw_overlays(description: dict[str, Any], images: pd.DataFrame, directory: Path) -> None:
    """Draw each usable image's findings on its picture.

    Parameters
    ----------
    description : what `mammoflow.diagnose.findings.describe` gave.
    images : IMAGES table of the study.
    directory : where one PNG an image is written, colour, of the stored image's size.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pictures = images.set_index("image_id")["png"]
    for image in description["images"]:
        if image["overlay"]:
            drawn = draw(read_crop(pictures[image["image_id"]]), image["findings"])
            write_bytes(directory / Path(image["overlay"]).name, cv2.imencode(".png", drawn)[1].tobytes())


def draw(picture: NDArray[np.uint8], findings: list[dict[str, Any]]) -> NDArray[np.uint8]:
    """Return the grey picture (H, W) in colour (H, W, 3; blue, green, red) with frames, numbers and nipple.

    A frame is red from a probability of malignant of 0.5 on, green below.
    """
    drawn = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    scale = picture.shape[0] / REFERENCE_HEIGHT
    line = max(1, round(2 * scale))
    for finding in findings:
        colour = MALIGNANT if finding["probability_malignant"] >= 0.5 else BENIGN
        x1, y1, x2, y2 = (round(edge) for edge in finding["box"])
        cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colour, line)
        text = f"{finding['probability_malignant']:.2f} ({finding['detector_score']:.2f})"
        _write(drawn, text, (x1, y1 - 3 * line), scale, colour)
        if finding["nipple"]:
            center = (round(finding["nipple"][0]), round(finding["nipple"][1]))
            cv2.drawMarker(drawn, center, NIPPLE, cv2.MARKER_CROSS, 12 * line, line)
    _write(drawn, DISCLAIMER, (4 * line, picture.shape[0] - 4 * line), scale, (200, 200, 200))
    return np.asarray(drawn, dtype=np.uint8)


def _write(drawn: Any, text: str, corner: tuple[int, int], scale: float, colour: tuple[int, int, int]) -> None:
    """Write `text` from its lower left corner, moved inside the picture where it would leave it."""
    size, line = max(0.3, 0.7 * scale), max(1, round(scale))
    (width, height), _ = cv2.getTextSize(text, FONT, size, line)
    x = max(0, min(corner[0], drawn.shape[1] - width))
    y = max(height, min(corner[1], drawn.shape[0] - 1))
    cv2.putText(drawn, text, (x, y), FONT, size, colour, line, cv2.LINE_AA)
