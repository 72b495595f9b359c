"""Two ROC curves of the same cases compared by DeLong's test.

References
----------
DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
Curves: A Nonparametric Approach, Biometrics 1988.
Sun and Xu, Fast Implementation of DeLong's Algorithm, IEEE Signal Processing Letters 2014 (midranks).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from mammoflow.report.bootstrap import Array
from mammoflow.report.roc import Labels


@dataclass(frozen=True)
class DeLong:
    """Areas of two judges and their difference.

    Attributes
    ----------
    areas : AUC of the first and of the second.
    covariance : float64 array, (2, 2), of the two areas.
    """

    areas: tuple[float, float]
    covariance: Array

    @property
    def difference(self) -> float:
        """First area minus second."""
        return self.areas[0] - self.areas[1]

    @property
    def standard_error(self) -> float:
        """Of the difference."""
        (first, both), (_, second) = self.covariance
        return float(np.sqrt(max(0.0, first + second - 2 * both)))

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference; 1 where the judges rank all pairs alike, NaN where the error is 0 otherwise."""
        if self.standard_error == 0:
            return 1.0 if self.difference == 0 else float("nan")
        return float(2 * norm.sf(abs(self.difference) / self.standard_error))


def compare(labels: Labels, first: Array, second: Array) -> DeLong:
    """Compare two judges of the same cases.

    Parameters
    ----------
    labels : bool array, (N,), at least two of each class. The test takes cases as independent; several of one patient
        make it look surer than it is.
    first, second : float64 arrays, (N,), their scores.
    """
    parts = [_components(labels, scores) for scores in (first, second)]
    by_positive, by_negative = (np.stack([part[at] for part in parts]) for at in (0, 1))
    covariance = np.cov(by_positive) / by_positive.shape[1] + np.cov(by_negative) / by_negative.shape[1]
    areas = by_positive.mean(axis=1)
    return DeLong((float(areas[0]), float(areas[1])), covariance)


def _components(labels: Labels, scores: Array) -> tuple[Array, Array]:
    """Share of negatives below each positive, and of positives above each negative; ties count one half."""
    positive, negative = scores[labels], scores[~labels]
    among_all = rankdata(np.concatenate([positive, negative]))
    below = (among_all[: len(positive)] - rankdata(positive)) / len(negative)
    above = 1 - (among_all[len(positive) :] - rankdata(negative)) / len(positive)
    return below, above
