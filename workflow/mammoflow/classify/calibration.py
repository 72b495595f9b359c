"""Probabilities that mean what they say: temperature scaling on a validation part.

References
----------
Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

# A few validation crops that happen to be told apart would otherwise make every answer 0 or 1.
LOWEST, HIGHEST = 0.5, 20.0


@dataclass(frozen=True)
class Calibration:
    """``calibrated = 1 / (1 + exp(-(margin + offset) / temperature))``, margin: logit of malignant minus benign.

    Attributes
    ----------
    temperature : above 1 for a classifier that is too sure of itself.
    offset : logarithm of the odds of malignant among the training crops. The loss weighs both classes alike, so the
        margin is about a study in which they are equally common; this brings it back to how common they were.
    """

    temperature: float = 1.0
    offset: float = 0.0

    def apply(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probability of malignant, 0..1, of margins, shape (N,)."""
        return np.asarray(expit((margins + self.offset) / self.temperature), dtype=np.float64)


def log_loss(margins: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean of ``-log(probability of the true class)``; margins (N,), labels 1 for malignant."""
    return float(np.mean(np.logaddexp(0, -np.where(labels == 1, margins, -margins))))


def fit(margins: NDArray[np.float64], labels: NDArray[np.int64], training_labels: NDArray[np.int64]) -> Calibration:
    """Fit a classifier's calibration.

    Parameters
    ----------
    margins, labels : of the validation part, (N,), labels 1 for malignant; without both classes the temperature is 1.
    training_labels : of the training part, (M,), both classes present.
    """
    malignant = int((training_labels == 1).sum())
    offset = float(np.log(malignant / (len(training_labels) - malignant)))
    if len(set(labels.tolist())) < 2:
        return Calibration(1.0, offset)
    found = minimize_scalar(
        lambda power: log_loss((margins + offset) / np.exp(power), labels),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
    )
    return Calibration(float(np.exp(found.x)), offset)
