import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from mammoflow.report.bootstrap import Resamples
from mammoflow.report.cases import Cases
from mammoflow.report.reliability import THRESHOLDS, bins, brier, decision_curve, expected_error, net_benefit


def cases_of(labels, scores):
    keys = np.array([f"p{i:03d}" for i in range(len(labels))])
    return Cases(
        np.array(labels), np.array(scores, dtype=float), keys, np.zeros(len(keys), int), Resamples.draw(keys, 30, 0)
    )


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    scores = rng.random(300)
    return cases_of(rng.random(300) < scores, scores)


def test_brier_score_agrees_with_scikit_learn(drawn):
    assert brier(drawn)["value"] == pytest.approx(brier_score_loss(drawn.labels, drawn.scores), abs=1e-6)


def test_bins_by_hand():
    scores = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95]
    labels = [False, False, False, True, False, True, True, False, True, True]
    groups = bins(cases_of(labels, scores))
    assert [group["mean_probability"] for group in groups] == pytest.approx([0.075, 0.25, 0.45, 0.65, 0.875])
    assert [group["malignant_share"]["value"] for group in groups] == [0, 0.5, 0.5, 0.5, 1]
    assert expected_error(cases_of(labels, scores)) == pytest.approx((0.075 + 0.25 + 0.05 + 0.15 + 0.125) / 5)


def test_bins_hold_every_case_once_and_equal_scores_stay_together(drawn):
    assert sum(group["malignant_share"]["count"] for group in bins(drawn)) == 300
    (only,) = bins(cases_of([True, False, True], [0.5, 0.5, 0.5]))
    assert only["malignant_share"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert bins(cases_of([], [])) == []
    assert expected_error(cases_of([], [])) is None


def test_calibrated_scores_have_a_small_expected_error(drawn):
    assert expected_error(drawn) < 0.08
    assert expected_error(cases_of(drawn.labels, drawn.scores**3)) > 0.15


def test_net_benefit_by_hand():
    cases = cases_of([True, True, False, False], [0.9, 0.3, 0.6, 0.1])
    curve = decision_curve(cases)
    at = dict(zip(curve["threshold"], curve["net_benefit"], strict=True))
    # from 0.5 on: one true, one false positive of four; odds 1
    assert at[0.5] == pytest.approx(0)
    # from 0.2 on: two true, one false; odds 1/4
    assert at[0.2] == pytest.approx((2 - 0.25) / 4)
    everybody = dict(zip(curve["threshold"], curve["treat_all"], strict=True))
    assert everybody[0.2] == pytest.approx(0.5 - 0.5 / 4)
    assert everybody[0.05] == pytest.approx(at[0.05])


def test_net_benefit_of_resamples_is_that_of_repeated_patients(drawn):
    drawn_twice = net_benefit(drawn, drawn.resamples.weights)
    for row in (0, 7):
        repeated = np.repeat(np.arange(300), drawn.resamples.weights[row].astype(int))
        labels, scores = drawn.labels[repeated], drawn.scores[repeated]
        slow = [np.mean((scores >= t) & labels) - np.mean((scores >= t) & ~labels) * t / (1 - t) for t in THRESHOLDS]
        np.testing.assert_allclose(drawn_twice[row], slow)


def test_one_class_gives_no_curve():
    assert decision_curve(cases_of([True, True], [0.2, 0.4]))["net_benefit"] == []
