"""The counterparts of the paper's Figures 1 to 12: one function each, `(study, metrics) -> Figure`."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from mammoflow.report.figures import breast, curves, extraction, localisation, machines, relevance, style
from mammoflow.report.study import Study

FIGURES: dict[str, Callable[[Study, dict], Figure]] = {
    "fig01": extraction.draw,
    "fig02": localisation.comparison,
    "fig03": localisation.microcalcifications,
    "fig04": breast.nipple,
    "fig05": breast.quadrants,
    "fig06": localisation.external,
    "fig07": relevance.expert_and_map,
    "fig08": relevance.aspects,
    "fig09": curves.cnn_roc,
    "fig10": curves.cnn_precision_recall,
    "fig11": curves.transformer_roc,
    "fig12": machines.draw,
}


def draw(name: str, study: Study, metrics: dict, png: str | Path, pdf: str | Path) -> None:
    """Draw figure `name` (fig01 .. fig12) and write it in both formats; the same input gives the same bytes."""
    with style.styled():
        figure = FIGURES[name](study, metrics)
        style.write(figure, png)
        style.write(figure, pdf)
