"""ROC and precision-recall figures of cases, under many weightings at once.

Point estimates come from scikit-learn; the vectorised functions give the same numbers for each row of weights.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from mammoflow.report.bootstrap import Array, divide

GRID = np.round(np.linspace(0, 1, 101), 2)  # false positive rates or sensitivities at which curves are drawn
_CELLS = 4_000_000  # weights of cases held at a time
Labels = NDArray[np.bool_]


def roc_auc(labels: Labels, scores: Array) -> float | None:
    """Area under the ROC curve by scikit-learn; None unless both classes are there."""
    return float(roc_auc_score(labels, scores)) if _both(labels) else None


def pr_auc(labels: Labels, scores: Array) -> float | None:
    """Average precision by scikit-learn; None unless both classes are there."""
    return float(average_precision_score(labels, scores)) if _both(labels) else None


def _both(labels: Labels) -> bool:
    return bool(labels.any() and not labels.all())


class Curves:
    """Weights of positives and negatives at or above each distinct score, for each row of weights.

    Parameters
    ----------
    labels : bool array, (N,), true for malignant.
    scores : float64 array, (N,), higher is more malignant.
    weights : float64 array, (R, N), weight of each case.
    """

    def __init__(self, labels: Labels, scores: Array, weights: Array):
        order = np.argsort(-scores, kind="stable")
        last_of_score = np.append(np.diff(scores[order]) != 0, True)[: len(scores)]
        ordered = weights[:, order]
        self.true_positive = np.cumsum(ordered * labels[order], axis=1)[:, last_of_score]
        self.false_positive = np.cumsum(ordered * ~labels[order], axis=1)[:, last_of_score]
        self.sensitivity = divide(self.true_positive, self.true_positive[:, -1:])
        self.false_positive_rate = divide(self.false_positive, self.false_positive[:, -1:])

    def roc_auc(self) -> Array:
        """Area under the ROC curve by trapezoids, (R,), NaN where a class has no weight."""
        x, y = (np.pad(values, ((0, 0), (1, 0))) for values in (self.false_positive_rate, self.sensitivity))
        return np.sum(np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2, axis=1)

    def average_precision(self) -> Array:
        """Sum of precision times gain in recall, (R,), NaN where a class has no weight."""
        gained = np.diff(self.sensitivity, axis=1, prepend=0.0)
        area = np.sum(gained * np.nan_to_num(self._precision()), axis=1)
        return np.where(self.false_positive[:, -1] > 0, area, np.nan)

    def roc(self) -> Array:
        """Sensitivity at the false positive rates of `GRID`, (R, 101), straight between operating points."""
        return np.array(
            [_sensitivity_at_grid(x, y) for x, y in zip(self.false_positive_rate, self.sensitivity, strict=True)]
        )

    def precision_recall(self) -> Array:
        """Precision at the first score from which sensitivity reaches each value of `GRID`, (R, 101)."""
        precision = self._precision()
        rows = [np.searchsorted(line, GRID - 1e-12) for line in np.nan_to_num(self.sensitivity)]
        return np.array([line[np.minimum(at, len(line) - 1)] for line, at in zip(precision, rows, strict=True)])

    def _precision(self) -> Array:
        return divide(self.true_positive, self.true_positive + self.false_positive)


def _sensitivity_at_grid(x: Array, y: Array) -> Array:
    if np.isnan(x).any() or np.isnan(y).any():
        return np.full(len(GRID), np.nan)
    return np.interp(GRID, np.append(0.0, x), np.append(0.0, y))


def resampled(labels: Labels, scores: Array, weights: Array, codes: NDArray[np.int64], what: str) -> Array:
    """Return a figure of `Curves`, by the name of its method, for each resample, a block of resamples at a time.

    Parameters
    ----------
    weights : float64 array, (R, P), weight of each patient.
    codes : int64 array, (N,), column of each case's patient in `weights`.
    what : ``roc_auc``, ``average_precision``, ``roc`` or ``precision_recall``.
    """
    step = max(1, _CELLS // max(1, len(codes)))
    blocks = [weights[start : start + step] for start in range(0, len(weights), step)]
    return np.concatenate([getattr(Curves(labels, scores, block[:, codes]), what)() for block in blocks])
