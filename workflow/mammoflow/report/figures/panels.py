"""Panels that several figures share: a picture with frames, a crop of it, a relevance overlay."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from mammoflow.boxes import Boxes, as_boxes, clip, expand
from mammoflow.report.figures.style import BENIGN, DETECTION, EXPERT, bare
from mammoflow.report.study import EDGES, IMAGE, Study, each, framed
from mammoflow.report.wording import percent

_LONG_SIDE = 1000  # pixels of a picture in a figure
Row = Any  # a row of a table, by `itertuples`


def read_picture(
    path: str | Path, region: Boxes | None = None, long_side: int = _LONG_SIDE
) -> NDArray[np.uint8] | None:
    """Grey picture, (H, W), shrunk to `long_side`; only `region` (x1, y1, x2, y2) when given; None without file."""
    if not path or not Path(path).is_file():
        return None
    with Image.open(path) as picture:
        grey = picture.convert("L")
        if region is not None:
            x1, y1, x2, y2 = (int(edge) for edge in np.round(region))
            grey = grey.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
        grey.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
        return np.asarray(grey)


def breast_region(image: Row) -> Boxes:
    """Region to show of an image: the breast with some air, the whole image when the breast is unknown."""
    breast = as_boxes([image.breast_x1, image.breast_y1, image.breast_x2, image.breast_y2])
    if np.isnan(breast).any():
        return as_boxes([0, 0, image.width, image.height])[0]
    return clip(expand(breast, 1.06), image.width, image.height)[0]


def show(axes: Axes, image: Row, region: Boxes | None = None, title: str = "") -> None:
    """Show a row of `Study.pictures` with the stored image's pixels as coordinates."""
    region = breast_region(image) if region is None else region
    x1, y1, x2, y2 = np.round(region)
    picture = read_picture(image.png, region)
    if picture is not None:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(x1, x2, y2, y1))
    axes.set_facecolor("black")
    axes.set(xlim=(x1, x2), ylim=(y2, y1), aspect="equal")
    bare(axes, title)


def frame(
    axes: Axes, box: Iterable[float], color: str, text: str = "", dashed: bool = False, width: float = 1.5
) -> None:
    """Draw one frame, with a text above it (below when it touches the top)."""
    x1, y1, x2, y2 = box
    style = (0, (4, 2)) if dashed else "-"
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, lw=width, ls=style))
    if not text:
        return
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    below = y1 - top < 0.08 * abs(bottom - top)
    at_right = (x1 + x2) / 2 > (left + right) / 2
    label = axes.annotate(
        text,
        (x2 if at_right else x1, y2 if below else y1),
        xytext=(0, -3 if below else 3),
        textcoords="offset points",
        color=color,
        fontsize=8,
        ha="right" if at_right else "left",
        va="top" if below else "bottom",
        annotation_clip=False,
    )
    label.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])


def frames_of(axes: Axes, rows: pd.DataFrame, color: str, scores: bool = False, dashed: bool = False) -> None:
    """Draw the frames of table rows, with their scores in percent when asked."""
    for row in each(rows):
        frame(axes, (row.x1, row.y1, row.x2, row.y2), color, percent(row.score) if scores else "", dashed)


def truth_frames(axes: Axes, study: Study, image: Row) -> None:
    """Draw the true lesions of an image, benign ones in a colour of their own."""
    rows = of_image(framed(study.true_lesions), image)
    frames_of(axes, rows[rows["pathology"] != "benign"], EXPERT)
    frames_of(axes, rows[rows["pathology"] == "benign"], BENIGN)


def expert_frames(axes: Axes, study: Study, image: Row) -> None:
    """Draw the lesions that the expert framed."""
    frames_of(axes, of_image(framed(study.expert_lesions), image), EXPERT)


def detected_frames(axes: Axes, frames: pd.DataFrame, image: Row) -> None:
    """Draw the machine's frames on an image with their confidence."""
    frames_of(axes, of_image(frames, image), DETECTION, scores=True)


def of_image(table: pd.DataFrame, image: Row) -> pd.DataFrame:
    """Rows of a table that are about an image."""
    return table[(table["dataset"] == image.dataset) & (table["image_id"] == image.image_id)]


def box_of(row: Row) -> Boxes:
    """Frame of a row, (4,)."""
    return as_boxes([getattr(row, edge) for edge in EDGES])[0]


def overlay(axes: Axes, row: Row, title: str = "") -> None:
    """Show the overlay of a RELEVANCE row with the stored image's pixels as coordinates."""
    with Image.open(row.overlay_png) as drawn:
        # below the map lies a scale, which covers no region of the image
        height = int(drawn.width * (row.y2 - row.y1) / (row.x2 - row.x1))
        picture = drawn.crop((0, 0, drawn.width, min(height, drawn.height)))
        picture.thumbnail((_LONG_SIDE, _LONG_SIDE), Image.Resampling.LANCZOS)
        axes.imshow(np.asarray(picture.convert("RGB")), extent=(row.x1, row.x2, row.y2, row.y1))
    axes.set_facecolor("black")
    bare(axes, title)


def spread(table: pd.DataFrame, by: str, count: int) -> pd.DataFrame:
    """`count` rows spread evenly from the highest to the lowest value of `by`; ties by image_id."""
    ordered = table.sort_values([by, *IMAGE], ascending=[False, True, True])
    if len(ordered) <= count:
        return ordered
    return ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, count).round().astype(int))]


def view_name(image: Row) -> str:
    """Side and view of an image as radiologists write them, for example ``L MLO``."""
    return f"{image.image_laterality} {image.view_position}".strip() or "view unknown"
