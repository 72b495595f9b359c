"""Intervals by resampling patients, vectorised over resamples.

A resample draws as many patients as there are, with replacement; a patient drawn twice counts twice with all its
images, lesions and crops. So a resample is a vector of whole weights, one a patient.

References
----------
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Rate = dict[str, Any]
_DIGITS = 6  # keeps files equal where libraries differ in the last bits
_MIN_SHARE = 0.5  # of resamples that must give a number, else there is no interval


@dataclass(frozen=True)
class Resamples:
    """Patients and the weights of each in every resample, shape (resamples, patients)."""

    patients: pd.Index
    weights: Array

    @classmethod
    def draw(cls, patient_keys: ArrayLike, resamples: int, seed: int) -> "Resamples":
        """Resample the distinct values of `patient_keys`; the same patients and seed give the same weights."""
        patients = pd.Index(np.unique(np.asarray(patient_keys, dtype=str)))
        count = len(patients)
        if count == 0:
            return cls(patients, np.zeros((resamples, 0)))
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        return cls(patients, drawn.astype(np.float64))

    def codes(self, patient_keys: ArrayLike) -> NDArray[np.int64]:
        """Column of each patient in `weights`; the patients must be among those drawn from."""
        return np.asarray(self.patients.get_indexer(pd.Index(np.asarray(patient_keys, dtype=str))), dtype=np.int64)

    def total(self, patient_keys: ArrayLike, amounts: ArrayLike) -> Array:
        """Sum of `amounts` in each resample, shape (resamples,)."""
        per_patient = np.bincount(self.codes(patient_keys), np.asarray(amounts, dtype=float), len(self.patients))
        return self.weights @ per_patient

    def rate(self, patient_keys: ArrayLike, numerator: ArrayLike, denominator: ArrayLike | None = None) -> Rate:
        """Sum of `numerator` over sum of `denominator` (one a row when not given), with its interval."""
        over = np.ones(len(np.asarray(numerator))) if denominator is None else np.asarray(denominator, dtype=float)
        total = float(over.sum())
        value = float(np.sum(numerator)) / total if total > 0 else None
        replicates = divide(self.total(patient_keys, numerator), self.total(patient_keys, over))
        return rate(value, replicates, int(total))


def divide(numerator: Array, denominator: Array) -> Array:
    """Quotients, NaN where the denominator is 0."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def rate(value: float | None, replicates: Array, count: int, note: str = "") -> Rate:
    """Return a figure with its 95 % percentile interval and what it counts; None where there is nothing."""
    if value is None or not np.isfinite(value):
        return {"value": None, "low": None, "high": None, "count": count, "note": note or "nothing to count"}
    low, high = interval(replicates)
    return {"value": rounded(value), "low": low, "high": high, "count": count, "note": note}


def interval(replicates: Array) -> tuple[float | None, float | None]:
    """2.5th and 97.5th percentile of the resamples that gave a number; (None, None) when fewer than half did."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite) or len(finite) < _MIN_SHARE * len(replicates):
        return None, None
    low, high = np.percentile(finite, [2.5, 97.5])
    return rounded(low), rounded(high)


def rounded(value: float | None) -> float | None:
    """`value` as it is written to files; None for what is not a finite number."""
    return round(float(value), _DIGITS) if value is not None and np.isfinite(value) else None


def bands(replicates: Array) -> tuple[list[float | None], list[float | None]]:
    """Pointwise interval of curves, shape (resamples, points), as two lists."""
    pairs = [interval(column) for column in replicates.T]
    return [low for low, _ in pairs], [high for _, high in pairs]
