"""Which ways to explain can be trusted: each beside a control blob and a random map, and a verdict in words.

Nothing is called good for what a blob reaches that never looked at the model.
"""

from typing import Any

import pandas as pd

from mammoflow.report.bootstrap import Resamples
from mammoflow.report.study import Study

BLOB, RANDOM = "control_blob", "control_random"
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
DEPENDENT = 0.75  # |Pearson| with the map of a randomised model: above, the map hardly depends on the weights
STABLE = 0.5  # |Pearson| with the map of the same picture with a little noise


def measure(study: Study) -> list[dict[str, Any]]:
    """One entry per kind of map, architecture and method, controls first."""
    entries = []
    for (kind, model), rows in study.faithfulness.groupby(["kind", "model"]):
        names = [BLOB, RANDOM, *(name for name in rows["method"].unique() if name not in (BLOB, RANDOM))]
        means = rows.groupby("method")[FIGURES].mean()
        for method in names:
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
