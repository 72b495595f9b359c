"""Crop classifiers: ROC and precision-recall with intervals, operating points, machines, and the shortcut audit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mammoflow.report.bootstrap import Array, Rate, Resamples, bands, rate, rounded
from mammoflow.report.roc import GRID, Curves, Labels, pr_auc, resampled, roc_auc
from mammoflow.report.study import IMAGE, Cohort, Study

_AIM = 0.9
_ONE_CLASS = "needs malignant and benign crops"


@dataclass(frozen=True)
class Cases:
    """Crops with the probability that one judge gave them, and resamples of their patients."""

    labels: Labels
    scores: Array
    patient_keys: np.ndarray
    resamples: Resamples

    @classmethod
    def of(cls, rows: pd.DataFrame, score: str, resamples: Resamples) -> "Cases":
        """Cases of the rows whose `score` is known; `resamples` must hold their patients."""
        known = rows[rows[score].notna()]
        labels = (known["label"] == "malignant").to_numpy()
        return cls(labels, known[score].to_numpy(dtype=float), known["patient_key"].to_numpy(dtype=str), resamples)

    def both(self) -> bool:
        """Whether there are malignant and benign cases."""
        return bool(self.labels.any() and not self.labels.all())

    def drawn(self, what: str) -> Array:
        """Return a figure of `roc.Curves` in each resample."""
        codes = self.resamples.codes(self.patient_keys)
        return resampled(self.labels, self.scores, self.resamples.weights, codes, what)

    def roc_auc(self) -> Rate:
        """Area under the ROC curve with its interval."""
        return self._area(roc_auc(self.labels, self.scores), "roc_auc")

    def pr_auc(self) -> Rate:
        """Average precision with its interval."""
        return self._area(pr_auc(self.labels, self.scores), "average_precision")

    def _area(self, value: float | None, what: str) -> Rate:
        if value is None:
            return rate(None, np.empty(0), len(self.labels), _ONE_CLASS)
        return rate(value, self.drawn(what), len(self.labels))


def rows_of(study: Study, protocol: str, classifier: str, cohort: Cohort) -> pd.DataFrame:
    """PREDICTIONS rows of one judge on one cohort, with the machine."""
    rows = cohort.of(study.predictions)
    rows = rows[(rows["protocol"] == protocol) & (rows["classifier"] == classifier)]
    return rows.merge(study.pictures[[*IMAGE, "machine"]], on=IMAGE, how="left").fillna({"machine": "unknown"})


def measure(study: Study, protocol: str, classifier: str, cohort: Cohort, shortcut: pd.DataFrame) -> dict[str, Any]:
    """Everything the report says of one classifier on one cohort.

    Parameters
    ----------
    shortcut : columns dataset, crop_id and ``shortcut``, the baseline's probability of the protocol's crops.
    """
    rows = rows_of(study, protocol, classifier, cohort)
    resamples = Resamples.draw(rows["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    cases = Cases.of(rows, "probability", resamples)
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
        "operating_points": operating_points(cases),
        "roc_curve": _curve(cases, "roc", "false_positive_rate", "sensitivity"),
        "pr_curve": _curve(cases, "precision_recall", "recall", "precision"),
        "shortcut": audit(rows.merge(shortcut, on=["dataset", "crop_id"], how="left"), resamples),
    }


def untrained_folds(rows: pd.DataFrame) -> list[int]:
    """Folds whose model had no crop of a class to learn from: it gives every crop the probability 0.5."""
    indifferent = (rows["probability"] == 0.5).groupby(rows["model_fold"]).all()
    return [int(fold) for fold in indifferent.index[indifferent]]


def _areas(rows: pd.DataFrame, resamples: Resamples) -> dict[str, Any]:
    cases = Cases.of(rows, "probability", resamples)
    return {"crops": len(cases.labels), "malignant": int(cases.labels.sum()), "roc_auc": cases.roc_auc()}


def _curve(cases: Cases, what: str, x: str, y: str) -> dict[str, list[float | None]]:
    if not cases.both():
        return {x: [], y: [], "low": [], "high": []}
    line = getattr(Curves(cases.labels, cases.scores, np.ones((1, len(cases.labels)))), what)()[0]
    low, high = bands(cases.drawn(what))
    return {x: GRID.tolist(), y: [rounded(value) for value in line], "low": low, "high": high}


def audit(rows: pd.DataFrame, resamples: Resamples) -> dict[str, Any]:
    """Return the shortcut baseline on the same crops, and the classifier's lead over it in the same resamples."""
    rows = rows[rows["shortcut"].notna()]
    classifier, baseline = (Cases.of(rows, score, resamples) for score in ("probability", "shortcut"))
    if not classifier.both():
        nothing = rate(None, np.empty(0), len(rows), _ONE_CLASS)
        curve = _curve(baseline, "roc", "false_positive_rate", "sensitivity")
        return {"roc_auc": nothing, "difference": nothing, "clearly_better": None, "roc_curve": curve}
    own, other = (roc_auc(cases.labels, cases.scores) for cases in (classifier, baseline))
    assert own is not None
    assert other is not None
    lead = rate(own - other, classifier.drawn("roc_auc") - baseline.drawn("roc_auc"), len(rows))
    better = None if lead["low"] is None else bool(lead["low"] > 0)
    return {
        "roc_auc": baseline.roc_auc(),
        "difference": lead,
        "clearly_better": better,
        "roc_curve": _curve(baseline, "roc", "false_positive_rate", "sensitivity"),
    }


def threshold_at(cases: Cases, aim: str) -> float:
    """Threshold of an operating point.

    ``sensitivity_0.9``: the highest at which sensitivity is at least 0.9; ``specificity_0.9``: the lowest at which
    specificity is at least 0.9 (just above the highest score when no lower one does); ``probability_0.5``: 0.5.
    """
    if aim == "probability_0.5":
        return 0.5
    if aim == "sensitivity_0.9":
        positive = np.sort(cases.scores[cases.labels])[::-1]
        return float(positive[int(np.ceil(_AIM * len(positive) - 1e-9)) - 1])
    negative = cases.scores[~cases.labels]
    candidates = np.append(np.unique(cases.scores), np.nextafter(cases.scores.max(), np.inf))
    specificity = np.searchsorted(np.sort(negative), candidates, side="left") / len(negative)
    return float(candidates[np.argmax(specificity >= _AIM - 1e-9)])


def operating_points(cases: Cases) -> list[dict[str, Any]]:
    """Sensitivity, specificity, precision, negative predictive value and accuracy at three thresholds."""
    if not cases.both():
        return []
    return [
        {"aim": aim, "threshold": rounded(threshold), **confusion(cases, threshold)}
        for aim in ("sensitivity_0.9", "specificity_0.9", "probability_0.5")
        for threshold in [threshold_at(cases, aim)]
    ]


def confusion(cases: Cases, threshold: float) -> dict[str, Rate]:
    """Rates of calling malignant every crop whose probability is at least `threshold`."""
    called, malignant = cases.scores >= threshold, cases.labels
    over = {
        "sensitivity": (called & malignant, malignant),
        "specificity": (~called & ~malignant, ~malignant),
        "precision": (called & malignant, called),
        "negative_predictive_value": (~called & ~malignant, ~called),
        "accuracy": (called == malignant, np.ones(len(called))),
    }
    return {name: cases.resamples.rate(cases.patient_keys, *counted) for name, counted in over.items()}
