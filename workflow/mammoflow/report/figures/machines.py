"""Figure 12: mammograms of different machines and their grey levels."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from mammoflow.report.figures import panels
from mammoflow.report.figures.style import LINES, new, words
from mammoflow.report.study import Study, each

_MACHINES = 6


def draw(study: Study, metrics: dict) -> Figure:
    """One mammogram per machine (median brightness) above the histogram of the breast's grey levels."""
    pictures = study.pictures[study.pictures["grey_p50"].notna()]
    if pictures.empty:
        return words("Figure 12. The study has no picture.")
    machines = list(pictures.groupby("machine"))[:_MACHINES]
    figure = new(max(3.2, 1.6 * len(machines)), 4.2)
    axes = figure.subplots(2, len(machines), squeeze=False, height_ratios=[1.9, 1])
    for column, (machine, rows) in enumerate(machines):
        ordered = rows.sort_values(["grey_p50", "image_id"])
        image = next(each(ordered.iloc[[len(ordered) // 2]]))
        panels.show(axes[0, column], image, title=_title(str(machine), image.dataset))
        _histogram(axes[1, column], image, LINES[column % len(LINES)])
        axes[1, column].set_xlabel("Grey level")
    axes[1, 0].set_ylabel("Pixels")
    return figure


def _title(machine: str, dataset: str) -> str:
    return f"{textwrap.fill(machine, 18)}\n({dataset})"


def _histogram(axes, image: panels.Row, color: str) -> None:  # type: ignore[no-untyped-def]
    picture = panels.read_picture(image.png, panels.breast_region(image))
    if picture is None:
        return
    counts, edges = np.histogram(picture, bins=64, range=(0, 256))
    axes.fill_between(edges[:-1], counts, step="post", color=color, alpha=0.8, lw=0)
    axes.set(xlim=(0, 255), xticks=[0, 128, 255], yticks=[])
    of_breast = counts[edges[1:] > image.grey_p05]  # the air's peak would dwarf the breast: it is cut off
    axes.set_ylim(0, 1.1 * max(1, of_breast.max()))
