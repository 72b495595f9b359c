"""Crop classifiers: ROC and precision-recall with intervals, operating points, calibration, and the shortcut audit."""

from itertools import combinations
from typing import Any

import pandas as pd

from mammoflow.report import audit, delong, reliability
from mammoflow.report.bootstrap import Resamples, rounded
from mammoflow.report.cases import Cases, lead, operating_points
from mammoflow.report.study import IMAGE, Cohort, Study


def rows_of(study: Study, protocol: str, classifier: str, datasets: tuple[str, ...]) -> pd.DataFrame:
    """PREDICTIONS rows of one judge on some data sets, with what is known of the image (`audit.described`)."""
    rows = study.predictions
    rows = rows[(rows["protocol"] == protocol) & (rows["classifier"] == classifier) & rows["dataset"].isin(datasets)]
    known = study.pictures[[*IMAGE, "machine", "view_position", "density", "grey_p50"]]
    return rows.merge(known, on=IMAGE, how="left").fillna({"machine": "unknown", "view_position": ""})


def measure(study: Study, protocol: str, classifier: str, cohort: Cohort, crops: pd.DataFrame) -> dict[str, Any]:
    """Everything the report says of one classifier on one cohort.

    Parameters
    ----------
    crops : what `audit.described` gave for the protocol.
    """
    rows = rows_of(study, protocol, classifier, cohort.datasets)
    internal = rows_of(study, protocol, classifier, study.internal)
    draw = study.settings["report"]["bootstrap"], study.settings["seed"]
    resamples = Resamples.draw(rows["patient_key"], *draw)
    inside = Cases.of(internal, "calibrated", Resamples.draw(internal["patient_key"], *draw))
    cases = Cases.of(rows, "calibrated", resamples)
    described = rows.merge(crops, on=["dataset", "crop_id"], how="left")
    return {
        "protocol": protocol,
        "classifier": classifier,
        "cohort": cohort.name,
        "role": cohort.role,
        "crops": len(cases.labels),
        "malignant": int(cases.labels.sum()),
        "patients": len(resamples.patients),
        "untrained_folds": [{"fold": fold} for fold in untrained_folds(rows)],
        "roc_auc": cases.roc_auc(),
        "pr_auc": cases.pr_auc(),
        "by_fold": [{"fold": int(str(fold)), **_areas(part, resamples)} for fold, part in rows.groupby("fold")],
        "by_machine": [{"machine": machine, **_areas(part, resamples)} for machine, part in rows.groupby("machine")],
        "by_group": [
            {"attribute": attribute, "group": group, **_areas(part, resamples)}
            for attribute, group, part in audit.groups(described)
        ],
        "operating_points": operating_points(cases, inside),
        "calibration": reliability.calibration(rows, cases, Cases.of(rows, "probability", resamples)),
        "decision_curve": reliability.decision_curve(cases),
        "roc_curve": cases.curve("roc", "false_positive_rate", "sensitivity"),
        "pr_curve": cases.curve("precision_recall", "recall", "precision"),
        "shortcut": shortcut_lead(described, resamples),
        "masked": masked_lead(rows, resamples),
    }


def untrained_folds(rows: pd.DataFrame) -> list[int]:
    """Folds whose model had no crop of a class to learn from: it gives every crop the probability 0.5."""
    indifferent = (rows["probability"] == 0.5).groupby(rows["model_fold"]).all()
    return [int(fold) for fold in indifferent.index[indifferent]]


def _areas(rows: pd.DataFrame, resamples: Resamples) -> dict[str, Any]:
    cases = Cases.of(rows, "calibrated", resamples)
    return {"crops": len(cases.labels), "malignant": int(cases.labels.sum()), "roc_auc": cases.roc_auc()}


def shortcut_lead(rows: pd.DataFrame, resamples: Resamples) -> dict[str, Any]:
    """Return the shortcut baseline on the same crops, and the classifier's lead over it in the same resamples."""
    rows = rows[rows["shortcut"].notna()]
    classifier, baseline = (Cases.of(rows, score, resamples) for score in ("calibrated", "shortcut"))
    ahead = lead(classifier, baseline)
    return {
        "roc_auc": baseline.roc_auc(),
        "difference": ahead,
        "clearly_better": None if ahead["low"] is None else bool(ahead["low"] > 0),
        "roc_curve": baseline.curve("roc", "false_positive_rate", "sensitivity"),
    }


def masked_lead(rows: pd.DataFrame, resamples: Resamples) -> dict[str, Any]:
    """Return the classifier's figure on the same crops with the centre hidden, and what the centre adds."""
    rows = rows[rows["masked"].notna()]
    whole, masked = (Cases.of(rows, score, resamples) for score in ("calibrated", "masked"))
    ahead = lead(whole, masked)
    clear = None if ahead["low"] is None else bool(ahead["low"] > 0)
    return {"roc_auc": masked.roc_auc(), "difference": ahead, "clearly_better": clear}


def compare(study: Study, protocol: str, cohort: Cohort) -> list[dict[str, Any]]:
    """Each pair of classifiers on the same crops: DeLong's test, and the difference over resamples of patients."""
    entries = []
    for first, second in combinations(study.settings["classify"]["architectures"], 2):
        mine, other = (rows_of(study, protocol, name, cohort.datasets) for name in (first, second))
        rows = mine.merge(
            other[["dataset", "crop_id", "calibrated"]], on=["dataset", "crop_id"], suffixes=("", "_other")
        )
        resamples = Resamples.draw(rows["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
        pair = [Cases.of(rows, score, resamples) for score in ("calibrated", "calibrated_other")]
        entries.append(
            {
                "protocol": protocol,
                "first": first,
                "second": second,
                "cohort": cohort.name,
                "role": cohort.role,
                "difference": lead(*pair),
                **_delong(*pair),
            }
        )
    return entries


def _delong(first: Cases, second: Cases) -> dict[str, float | None]:
    if min(first.labels.sum(), (~first.labels).sum()) < 2:
        return {"delong_standard_error": None, "delong_p": None}
    found = delong.compare(first.labels, first.scores, second.scores)
    return {"delong_standard_error": rounded(found.standard_error), "delong_p": rounded(found.p_value)}
