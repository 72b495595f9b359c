"""Figure 1: how crops are extracted from whole mammograms."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoflow.report.figures import panels
from mammoflow.report.figures.style import BENIGN, EXPERT, bare, new, words
from mammoflow.report.study import IMAGE, Study, each

_CROPS = 9


def draw(study: Study, metrics: dict) -> Figure:
    """Mammogram, frames at the mining threshold, crops: malignant from positive images, benign from negative ones."""
    crops = study.crops[study.crops["protocol"] == study.settings["crops"]["protocols"][0]]
    if crops.empty:
        return words("Figure 1. No crop was extracted: no detection reached the mining threshold.")
    figure = new(7.4, 6.2)
    grid = figure.add_gridspec(2, 3, width_ratios=[1, 1, 1.75])
    for row, (label, color) in enumerate((("malignant", EXPERT), ("benign", BENIGN))):
        rows = crops[crops["label"] == label].sort_values(["score", "crop_id"], ascending=[False, True])
        axes = [figure.add_subplot(grid[row, column]) for column in range(2)]
        _image_and_frames(axes, study, rows, label, color)
        inner = grid[row, 2].subgridspec(3, 3)
        _crops([figure.add_subplot(inner[at // 3, at % 3]) for at in range(_CROPS)], study, rows, label, color)
    return figure


def _image_and_frames(axes: list[Axes], study: Study, crops: pd.DataFrame, label: str, color: str) -> None:
    images = study.pictures.merge(crops[IMAGE].drop_duplicates().head(1), on=IMAGE)
    if images.empty:
        for panel in axes:
            bare(panel)
        axes[0].text(0.5, 0.5, f"no {label} crop", ha="center", va="center", transform=axes[0].transAxes)
        return
    image = next(each(images))
    side = "positive" if label == "malignant" else "negative"
    panels.show(axes[0], image, title=f"{side.capitalize()} mammogram ({panels.view_name(image)})")
    panels.show(axes[1], image, title="Machine's frames")
    panels.frames_of(axes[1], panels.of_image(crops, image), color, scores=True)


def _crops(axes: list[Axes], study: Study, crops: pd.DataFrame, label: str, color: str) -> None:
    different = crops.drop_duplicates(IMAGE).head(_CROPS)
    for panel in axes:
        bare(panel)
    axes[1].set_title(f"{label.capitalize()} crops ({len(crops)} in all)", color="black")
    for panel, crop in zip(axes, each(different), strict=False):
        picture = panels.read_picture(crop.png)
        if picture is not None:
            panel.imshow(picture, cmap="gray", vmin=0, vmax=255)
        for spine in panel.spines.values():
            spine.set(visible=True, color=color, linewidth=1.5)
