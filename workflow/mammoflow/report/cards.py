"""Small pictures for the page's gallery: the truth on the left, the machine's frames on the right."""

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from mammoflow.boxes import Boxes
from mammoflow.report.figures import panels, style
from mammoflow.report.study import Study, each, framed
from mammoflow.report.wording import percent

_HEIGHT = 380  # pixels
_GAP = 6


def card(study: Study, frames: pd.DataFrame, image: panels.Row) -> Image.Image:
    """Two views of one image (a row of `Study.pictures`), truth and `frames`, side by side."""
    region = np.round(panels.breast_region(image))
    scale = _HEIGHT / (region[3] - region[1])
    size = (max(1, round((region[2] - region[0]) * scale)), _HEIGHT)
    grey = panels.read_picture(image.png, region)
    view = Image.new("RGB", size) if grey is None else Image.fromarray(grey).convert("RGB").resize(size)
    truth, detected = view.copy(), view
    lesions = panels.of_image(framed(study.true_lesions), image)
    for row in each(lesions):
        _frame(truth, row, region, scale, style.BENIGN if row.pathology == "benign" else style.EXPERT)
    for row in each(panels.of_image(frames, image)):
        _frame(detected, row, region, scale, style.DETECTION, percent(row.score))
    both = Image.new("RGB", (2 * size[0] + _GAP, _HEIGHT), "white")
    both.paste(truth, (0, 0))
    both.paste(detected, (size[0] + _GAP, 0))
    return both


def _frame(picture: Image.Image, row: panels.Row, region: Boxes, scale: float, color: str, text: str = "") -> None:
    box = ((panels.box_of(row).reshape(2, 2) - region[:2]) * scale).ravel()
    pen = ImageDraw.Draw(picture)
    pen.rectangle(box.tolist(), outline=color, width=2)
    above = box[1] > 20
    at = (float(np.clip(box[0], 0, picture.width - 40)), float(box[1] - 18 if above else box[3] + 2))
    pen.text(at, text, fill=color, font=ImageFont.load_default(16), stroke_width=1, stroke_fill="black")
