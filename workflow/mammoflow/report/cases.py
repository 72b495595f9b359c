"""Cases (crops, images, breasts or patients) with the score that one judge gave each, and their figures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow.report.bootstrap import Array, Rate, Resamples, bands, rate, rounded
from mammoflow.report.roc import GRID, Curves, Labels, pr_auc, resampled, roc_auc
from mammoflow.tables import EXTERNAL_FOLD

AIM = 0.9
AIMS = ("sensitivity_0.9", "specificity_0.9", "probability_0.5")
ONE_CLASS = "needs malignant and benign ones"
NO_CASES = "nothing to judge"  # as of breasts, where no image says which one it shows


@dataclass(frozen=True)
class Cases:
    """Cases with the score of one judge, and resamples of their patients.

    Attributes
    ----------
    labels : bool array, (N,), true for malignant.
    scores : float64 array, (N,), higher is more malignant.
    patient_keys : str array, (N,).
    folds : int64 array, (N,), fold of each patient, -1 for external ones.
    resamples : of patients, all cases' among them.
    """

    labels: Labels
    scores: Array
    patient_keys: NDArray[Any]
    folds: NDArray[np.int64]
    resamples: Resamples

    @classmethod
    def of(cls, rows: pd.DataFrame, score: str, resamples: Resamples) -> "Cases":
        """Cases of the rows (label, patient_key, fold) whose `score` is known; `resamples` must hold their patients."""
        known = rows[rows[score].notna()]
        return cls(
            (known["label"] == "malignant").to_numpy(),
            known[score].to_numpy(dtype=float),
            known["patient_key"].to_numpy(dtype=str),
            known["fold"].to_numpy(dtype=np.int64),
            resamples,
        )

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
            return none_of(self.labels)
        return rate(value, self.drawn(what), len(self.labels))

    def curve(self, what: str, x: str, y: str) -> dict[str, list[float | None]]:
        """Curve (`roc` or `precision_recall` of `roc.Curves`) with its band, its axes called `x` and `y`."""
        if not self.both():
            return {x: [], y: [], "low": [], "high": []}
        line = getattr(Curves(self.labels, self.scores, np.ones((1, len(self.labels)))), what)()[0]
        low, high = bands(self.drawn(what))
        return {x: GRID.tolist(), y: [rounded(value) for value in line], "low": low, "high": high}


def none_of(labels: Labels) -> Rate:
    """No figure of cases that are all of one class, or none, and why."""
    return rate(None, np.empty(0), len(labels), ONE_CLASS if len(labels) else NO_CASES)


def lead(first: Cases, second: Cases) -> Rate:
    """AUC of the first judge minus that of the second on the same cases, in the same resamples."""
    own, other = (roc_auc(cases.labels, cases.scores) for cases in (first, second))
    if own is None or other is None:
        return none_of(first.labels)
    return rate(own - other, first.drawn("roc_auc") - second.drawn("roc_auc"), len(first.labels))


def threshold_at(labels: Labels, scores: Array, aim: str) -> float:
    """Threshold of an operating point, both classes present.

    ``sensitivity_0.9``: the highest at which sensitivity is at least 0.9; ``specificity_0.9``: the lowest at which
    specificity is at least 0.9 (just above the highest score when no lower one does); ``probability_0.5``: 0.5.
    """
    if aim == "probability_0.5":
        return 0.5
    if aim == "sensitivity_0.9":
        positive = np.sort(scores[labels])[::-1]
        return float(positive[int(np.ceil(AIM * len(positive) - 1e-9)) - 1])
    candidates = np.append(np.unique(scores), np.nextafter(scores.max(), np.inf))
    specificity = np.searchsorted(np.sort(scores[~labels]), candidates, side="left") / (~labels).sum()
    return float(candidates[np.argmax(specificity >= AIM - 1e-9)])


def operating_points(cases: Cases, internal: Cases, aims: tuple[str, ...] = AIMS) -> list[dict[str, Any]]:
    """Rates and counts at thresholds that were chosen on other cases.

    Parameters
    ----------
    internal : the internal cases of the same judge. The cases of a fold meet the threshold chosen on the other folds',
        external ones that chosen on all.
    aims : see `threshold_at`.

    Returns
    -------
    One entry an aim; an aim whose threshold no fold could be given is left out.
    """
    points = []
    for aim in aims:
        chosen = {int(fold): _chosen(internal, int(fold), aim) for fold in np.unique(cases.folds)}
        at = np.array([chosen[int(fold)] for fold in cases.folds], dtype=float)
        if np.isfinite(at).any() and cases.both():
            thresholds = [{"fold": fold, "threshold": rounded(value)} for fold, value in chosen.items()]
            judged = np.isfinite(at)
            points.append({"aim": aim, "thresholds": thresholds, **confusion(cases, cases.scores >= at, judged)})
    return points


def _chosen(internal: Cases, fold: int, aim: str) -> float:
    """Threshold for the cases of `fold`, NaN when the other folds lack a class."""
    others = internal.folds != fold if fold != EXTERNAL_FOLD else np.ones(len(internal.folds), dtype=bool)
    labels = internal.labels[others]
    if aim == "probability_0.5":
        return 0.5
    if not labels.any() or labels.all():
        return float("nan")
    return threshold_at(labels, internal.scores[others], aim)


def confusion(cases: Cases, called: Labels, judged: Labels | None = None) -> dict[str, Any]:
    """Count and rate what calling the cases `called` malignant gives, among those `judged` (all, when not given)."""
    judged = np.ones(len(called), dtype=bool) if judged is None else judged
    malignant, called = cases.labels & judged, called & judged
    benign, cleared = ~cases.labels & judged, ~called & judged
    over = {
        "sensitivity": (called & malignant, malignant),
        "specificity": (cleared & benign, benign),
        "precision": (called & malignant, called),
        "negative_predictive_value": (cleared & benign, cleared),
        "accuracy": ((called & malignant) | (cleared & benign), judged),
    }
    counts = {
        "true_positive": int((called & malignant).sum()),
        "false_positive": int((called & benign).sum()),
        "true_negative": int((cleared & benign).sum()),
        "false_negative": int((cleared & malignant).sum()),
    }
    return counts | {name: cases.resamples.rate(cases.patient_keys, *counted) for name, counted in over.items()}
