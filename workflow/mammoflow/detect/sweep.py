"""Ranking of a sweep: a small grid of detector settings, by what they reach on patients put apart in training folds."""

from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.config import sweep_points


def rank(histories: dict[tuple[int, int], str | Path], sweep: dict[str, Any], table: str | Path) -> None:
    """Rank the points by their validation figure and write `mammoflow.tables.SWEEP`, best first.

    The figure is that of the epoch whose weights would be kept, the lesions' AP at IoU 0.5 on the validation part, as a
    mean over the sweep's folds. No test fold's image is ever looked at.

    Parameters
    ----------
    histories : ``history.csv`` of each point's training, by point and fold.
    sweep : section `sweep` of the config.
    table : file to write.
    """
    rows: list[dict[str, Any]] = []
    for number, values in enumerate(sweep_points(sweep)):
        best = [_best(histories[number, fold]) for fold in sweep["folds"]]
        figures = [figure for figure, _ in best]
        rows.append(
            {
                "point": number,
                "settings": ", ".join(f"{key}={value}" for key, value in values.items()),
                "validation_ap50": sum(figures) / len(figures),
                "lowest": min(figures),
                "highest": max(figures),
                "folds": len(figures),
                "epoch": round(sum(epoch for _, epoch in best) / len(best)),
            }
        )
    ranked = sorted(rows, key=lambda row: (-row["validation_ap50"], row["point"]))
    tables.write(tables.SWEEP, tables.from_rows(tables.SWEEP, ranked), table)


def _best(history: str | Path) -> tuple[float, int]:
    """Highest validation figure and its epoch, of equal ones the later, as training chooses."""
    rows = pd.read_csv(history)
    best = rows["lesion_ap50"].max()
    return float(best), int(rows.loc[rows["lesion_ap50"] == best, "epoch"].iloc[-1])
