"""How figures look, and how they are written so that the same input gives the same bytes."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammoflow.files import whole_file

# Okabe and Ito's palette: told apart by colour-blind readers and on black.
EXPERT = "#E8703A"  # expert's or true malignant frame
BENIGN = "#56B4E9"  # true benign frame
DETECTION = "#F0E442"  # the machine's frame
NIPPLE = "#2FC79A"
LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
GREY = "#777777"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "image.interpolation": "bilinear",
}


def new(width: float, height: float) -> Figure:
    """Return an empty figure of `width` x `height` inches whose parts don't overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def words(text: str) -> Figure:
    """Return a figure that says in words why there is nothing to show."""
    figure = new(6.5, 1.6)
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True, fontsize=10, color="#444444")
    return figure


def bare(axes: Axes, title: str = "") -> None:
    """Take ticks and spines away; set a title."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, pad=4)


def styled() -> Any:
    """Return the context in which figures are drawn and written."""
    return mpl.rc_context(STYLE)  # type: ignore[arg-type]


def write(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG or PDF, by suffix, without dates or versions in it."""
    no_metadata = {".pdf": {"CreationDate": None, "Producer": None, "Creator": None}, ".png": {"Software": None}}
    with whole_file(path) as partial:
        figure.savefig(partial, metadata=no_metadata[Path(path).suffix])


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as PNG bytes, for the page."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()
