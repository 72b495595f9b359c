"""Do probabilities mean what they say, and is acting on them worth it: calibration and decision curves.

References
----------
Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 1950.
Vickers and Elkin, Decision Curve Analysis, Medical Decision Making 2006 (net benefit).
"""

from typing import Any

import numpy as np
import pandas as pd

from mammoflow.report.bootstrap import Array, Rate, bands, divide, rounded
from mammoflow.report.cases import Cases

BINS = 5
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)  # probabilities from which one would act


def brier(cases: Cases) -> Rate:
    """Mean squared distance of the probability from the truth (0 or 1), with its interval."""
    return cases.resamples.rate(cases.patient_keys, (cases.scores - cases.labels) ** 2)


def bins(cases: Cases) -> list[dict[str, Any]]:
    """Cases in groups of rising probability, as even as can be; equal probabilities stay together.

    Returns
    -------
    Of each group the mean probability and the share of malignant ones.
    """
    if not len(cases.scores):
        return []
    edges = np.unique(np.quantile(cases.scores, np.linspace(0, 1, BINS + 1)[1:-1]))
    group = np.searchsorted(edges, cases.scores, side="left")
    return [
        {
            "mean_probability": rounded(cases.scores[group == at].mean()),
            "malignant_share": cases.resamples.rate(cases.patient_keys[group == at], cases.labels[group == at]),
        }
        for at in np.unique(group)
    ]


def expected_error(cases: Cases) -> float | None:
    """Mean distance between mean probability and share of malignant ones over `bins`, weighted by their cases."""
    groups = bins(cases)
    counts = [group["malignant_share"]["count"] for group in groups]
    apart = [abs(group["mean_probability"] - group["malignant_share"]["value"]) for group in groups]
    return rounded(float(np.average(apart, weights=counts))) if groups else None


def calibration(rows: pd.DataFrame, calibrated: Cases, raw: Cases) -> dict[str, Any]:
    """Brier score and calibration error before and after, and the points of the plot."""
    return {
        "crops": len(rows),
        "brier": brier(calibrated),
        "brier_uncalibrated": brier(raw),
        "expected_error": expected_error(calibrated),
        "expected_error_uncalibrated": expected_error(raw),
        "bins": bins(calibrated),
    }


def net_benefit(cases: Cases, weights: Array) -> Array:
    """Net benefit of acting from each of `THRESHOLDS` on, for each row of weights of the patients.

    ``(true positives - false positives * t / (1 - t)) / cases``

    Returns
    -------
    float64 array, (R, T).
    """
    weight = weights[:, cases.resamples.codes(cases.patient_keys)]
    called = cases.scores[:, None] >= THRESHOLDS
    gained = weight @ (called & cases.labels[:, None]).astype(float)
    harmed = weight @ (called & ~cases.labels[:, None]).astype(float)
    return divide(gained - harmed * THRESHOLDS / (1 - THRESHOLDS), weight.sum(axis=1, keepdims=True))


def decision_curve(cases: Cases) -> dict[str, list[float | None]]:
    """Net benefit by threshold, with its band, beside that of acting on every case (on none it is 0)."""
    names = ("threshold", "net_benefit", "low", "high", "treat_all")
    if not cases.both():
        return {name: [] for name in names}
    value = net_benefit(cases, np.ones((1, len(cases.resamples.patients))))[0]
    low, high = bands(net_benefit(cases, cases.resamples.weights))
    share = cases.labels.mean()
    everybody = share - (1 - share) * THRESHOLDS / (1 - THRESHOLDS)
    lists = (THRESHOLDS.tolist(), [rounded(one) for one in value], low, high, [rounded(one) for one in everybody])
    return dict(zip(names, lists, strict=True))
