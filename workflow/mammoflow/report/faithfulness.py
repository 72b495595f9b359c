"""Which ways to explain can be trusted: each beside a control blob and a random map, and a verdict in words.

Nothing is called good for what a blob reaches that never looked at the model.

    python -m mammoflow.report.faithfulness [RESULTS]

prints the table of docs/explanations.md for the study whose results are in RESULTS (default: results).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammoflow import tables
from mammoflow.errors import DataError, MammoflowError
from mammoflow.report.bootstrap import Resamples
from mammoflow.report.study import Study

BLOB, RANDOM = "control_blob", "control_random"
_TITLES = {BLOB: "control: blob at the frame", RANDOM: "control: random"}
FIGURES = [
    "deletion",
    "insertion",
    "mass_in_box",
    "pointing",
    "stability",
    "fold_agreement",
    "randomised_head",
    "randomised_upper_half",
    "randomised_all",
]
HEADER = (
    "| model | method | deletion | insertion | mass in the frame | pointing | noise | other fold's model "
    "| randomised: head / upper half / all | |\n|---|---|---|---|---|---|---|---|---|---|"
)
DEPENDENT = 0.75  # |Pearson| with the map of a randomised model: above, the map hardly depends on the weights
STABLE = 0.5  # |Pearson| with the map of the same picture with a little noise


def measure(study: Study) -> list[dict[str, Any]]:
    """One entry per kind of map, architecture and method, controls first."""
    entries = []
    for (kind, model), rows in study.faithfulness.groupby(["kind", "model"]):
        means = rows.groupby("method")[FIGURES].mean()
        for method in _methods(rows):
            of_method = rows[rows["method"] == method]
            entries.append(
                {
                    "kind": kind,
                    "model": model,
                    "method": method,
                    "maps": len(of_method),
                    **{figure: _rate(study, of_method, figure) for figure in FIGURES},
                    **verdict(method, means),
                }
            )
    return entries


def _methods(rows: pd.DataFrame) -> list[str]:
    """Methods of one model's rows, controls first."""
    return [BLOB, RANDOM, *(str(name) for name in rows["method"].unique() if name not in (BLOB, RANDOM))]


def _rate(study: Study, rows: pd.DataFrame, figure: str) -> dict[str, Any]:
    known = rows[rows[figure].notna()]
    patients = Resamples.draw(known["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    return patients.rate(known["patient_key"], known[figure])


def verdict(method: str, means: pd.DataFrame) -> dict[str, Any]:
    """Say in words whether a method passes.

    A method passes when its maps change with the weights of the model's upper half (the randomisation check), stay the
    same under a little noise, and pick pixels whose loss lowers the score more than those of a random map. Whether they
    do better than the control blob is said besides, since the blob knows where the frame is.

    Parameters
    ----------
    method : row of `means`.
    means : mean of each of `FIGURES` by method.

    Returns
    -------
    ``passes``, None for a control, and ``text``.
    """
    if method in (BLOB, RANDOM):
        return {"passes": None, "text": "control: never looked at the model"}
    row = means.loc[method]
    checks = [
        (
            "randomised_upper_half",
            row["randomised_upper_half"] < DEPENDENT,
            "depends on the weights",
            "hardly depends on the weights",
        ),
        ("stability", row["stability"] > STABLE, "stable under noise", "unstable under noise"),
        (
            "deletion",
            row["deletion"] < means.at[RANDOM, "deletion"],
            "deletion better than random",
            "deletion no better than random",
        ),
    ]
    said = [
        f"{figure.replace('_', ' ')} can't be told" if pd.isna(row[figure]) else good if passed else bad
        for figure, passed, good, bad in checks
    ]
    if not pd.isna(row["deletion"]):
        better = row["deletion"] < means.at[BLOB, "deletion"]
        said.append(f"{'better' if better else 'no better'} at deletion than the blob")
    return {"passes": all(bool(passed) for _, passed, _, _ in checks), "text": ", ".join(said)}


def markdown(rows: pd.DataFrame) -> str:
    """Table of docs/explanations.md from rows of `mammoflow.tables.FAITHFULNESS`."""
    lines = [HEADER]
    for (_, name), of_model in rows.groupby(["kind", "model"], sort=False):
        means = of_model.groupby("method")[FIGURES].mean()
        for method in _methods(of_model):
            row: list[float] = means[FIGURES].T[method].tolist()
            figures = ["" if np.isnan(mean) else f"{mean:.2f}" for mean in row]
            randomised = " / ".join(figures[-3:]) if any(figures[-3:]) else ""
            said = {None: "", True: "passes", False: "fails"}[verdict(method, means)["passes"]]
            cells = [str(name), _TITLES.get(method, f"`{method}`"), *figures[:-3], randomised, said]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a study's trials.

    Raises
    ------
    DataError
        The study made none.
    """
    parser = argparse.ArgumentParser(description="Print the faithfulness table of a study in Markdown.")
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), metavar="RESULTS")
    results = parser.parse_args(arguments).results
    kinds = ("detections/*.tsv", "crops/*/*.tsv")
    found = [path for kind in kinds for path in sorted((results / "explain" / "faithfulness").glob(kind))]
    if not found:
        raise DataError(
            f"{results}: no table in explain/faithfulness; give results of a study with "
            "explain.faithfulness.images above 0"
        )
    print(markdown(tables.read_all(tables.FAITHFULNESS, found)))


if __name__ == "__main__":
    try:
        main()
    except MammoflowError as error:
        sys.exit(f"{type(error).__name__}: {error}")
