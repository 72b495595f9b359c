import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from mammoflow.report.bootstrap import Resamples
from mammoflow.report.cases import Cases, confusion, operating_points, threshold_at
from mammoflow.report.classification import untrained_folds
from mammoflow.report.roc import GRID, Curves, pr_auc, resampled, roc_auc


def random_cases(seed, count=80):
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.35
    scores = np.round(np.clip(rng.normal(0.4 + 0.25 * labels, 0.2), 0, 1), 2)  # rounded: ties
    return labels, scores, rng.integers(0, 4, (5, count)).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_scikit_learn_under_weights(seed):
    labels, scores, weights = random_cases(seed)
    curves = Curves(labels, scores, weights)
    for row, weight in enumerate(weights):
        kept = weight > 0
        assert curves.roc_auc()[row] == pytest.approx(
            roc_auc_score(labels[kept], scores[kept], sample_weight=weight[kept])
        )
        expected = average_precision_score(labels[kept], scores[kept], sample_weight=weight[kept])
        assert curves.average_precision()[row] == pytest.approx(expected)


def test_curves_agree_with_scikit_learn():
    labels, scores, _ = random_cases(9)
    curves = Curves(labels, scores, np.ones((1, len(labels))))
    x, y, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curves.roc()[0], np.interp(GRID, x, y))
    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = precision[-2::-1], recall[-2::-1]  # from the highest score down
    expected = [precision[np.flatnonzero(recall >= level - 1e-12)[0]] for level in GRID]
    np.testing.assert_allclose(curves.precision_recall()[0], expected)


def test_auc_by_hand():
    labels, scores = np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.4])
    # pairs: .9>.6, .9>.4, .4<.6, .4=.4 -> 2.5 of 4
    assert roc_auc(labels, scores) == pytest.approx(2.5 / 4)
    assert Curves(labels, scores, np.ones((1, 4))).roc_auc()[0] == pytest.approx(2.5 / 4)
    assert roc_auc(labels[:2], scores[:2]) is None
    assert pr_auc(labels[2:], scores[2:]) is None


def test_resamples_in_blocks_are_the_same(monkeypatch):
    labels, scores, _ = random_cases(2)
    keys = np.array([f"p{i % 20:02d}" for i in range(len(labels))])
    patients = Resamples.draw(keys, 30, seed=1)
    one = resampled(labels, scores, patients.weights, patients.codes(keys), "roc_auc")
    monkeypatch.setattr("mammoflow.report.roc._CELLS", 3 * len(labels))
    np.testing.assert_array_equal(one, resampled(labels, scores, patients.weights, patients.codes(keys), "roc_auc"))


def test_a_resample_without_a_class_gives_nan():
    labels, scores = np.array([True, False]), np.array([0.9, 0.1])
    curves = Curves(labels, scores, np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(curves.roc_auc()[0])
    assert curves.roc_auc()[1] == 1
    assert np.isnan(curves.average_precision()[0])
    assert np.isnan(curves.roc()[0]).all()


@pytest.fixture
def ten_cases():
    labels = np.array([True] * 5 + [False] * 5)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.65, 0.5, 0.4, 0.3, 0.1])
    keys = np.array([f"p{i}" for i in range(10)])
    return Cases(labels, scores, keys, np.arange(10) % 2, Resamples.draw(keys, 20, seed=0))


def test_thresholds_by_hand(ten_cases):
    # sensitivity of 0.9 needs all five malignant ones; specificity of 0.9 all five benign ones
    assert threshold_at(ten_cases.labels, ten_cases.scores, "sensitivity_0.9") == 0.2
    assert threshold_at(ten_cases.labels, ten_cases.scores, "specificity_0.9") == 0.7
    found = confusion(ten_cases, ten_cases.scores >= 0.6)
    rates = {name: rate["value"] for name, rate in found.items() if isinstance(rate, dict)}
    assert rates == {
        "sensitivity": 0.8,
        "specificity": 0.8,
        "precision": 0.8,
        "negative_predictive_value": 0.8,
        "accuracy": 0.8,
    }
    counts = [found[name] for name in ("true_positive", "false_positive", "true_negative", "false_negative")]
    assert counts == [4, 1, 4, 1]
    strict = confusion(ten_cases, ten_cases.scores >= 0.7)
    assert strict["precision"]["value"] == 1
    assert strict["negative_predictive_value"]["value"] == pytest.approx(5 / 7, abs=1e-6)


def test_operating_points_are_chosen_on_the_other_folds(ten_cases):
    points = {point["aim"]: point for point in operating_points(ten_cases, ten_cases)}
    # fold 0: malignant .9 .7 .2, benign .5 .3; fold 1: malignant .8 .6, benign .65 .4 .1
    sensitive = points["sensitivity_0.9"]
    assert sensitive["thresholds"] == [{"fold": 0, "threshold": 0.6}, {"fold": 1, "threshold": 0.2}]
    assert (sensitive["true_positive"], sensitive["false_negative"]) == (4, 1)  # .2 of fold 0 lies below .6
    assert (sensitive["true_negative"], sensitive["false_positive"]) == (3, 2)  # .65 and .4 of fold 1 above .2
    specific = points["specificity_0.9"]
    assert specific["thresholds"] == [{"fold": 0, "threshold": 0.8}, {"fold": 1, "threshold": 0.7}]
    assert specific["sensitivity"]["value"] == 0.4
    assert specific["specificity"]["value"] == 1
    assert points["probability_0.5"]["accuracy"]["value"] == 0.7


def test_external_cases_meet_the_threshold_of_all_internal_ones(ten_cases):
    keys = np.array(["x", "y"])
    outside = Cases(np.array([True, False]), np.array([0.69, 0.1]), keys, np.full(2, -1), Resamples.draw(keys, 5, 0))
    points = {point["aim"]: point for point in operating_points(outside, ten_cases)}
    assert points["specificity_0.9"]["thresholds"] == [{"fold": -1, "threshold": 0.7}]
    assert points["specificity_0.9"]["sensitivity"]["value"] == 0


def test_a_fold_whose_others_lack_a_class_is_not_counted():
    keys = np.array(list("abcd"))
    labels, scores = np.array([True, False, True, True]), np.array([0.9, 0.2, 0.8, 0.7])
    cases = Cases(labels, scores, keys, np.array([0, 0, 1, 1]), Resamples.draw(keys, 5, 0))
    points = {point["aim"]: point for point in operating_points(cases, cases)}
    assert points["sensitivity_0.9"]["thresholds"] == [{"fold": 0, "threshold": None}, {"fold": 1, "threshold": 0.9}]
    assert points["sensitivity_0.9"]["sensitivity"] == pytest.approx(
        {"value": 0.0, "low": 0.0, "high": 0.0, "count": 2, "note": ""}
    )


def test_threshold_above_all_scores_when_a_benign_crop_is_the_surest():
    labels, scores = np.array([True, False]), np.array([0.3, 1.0])
    assert threshold_at(labels, scores, "specificity_0.9") > 1.0


def test_models_that_say_one_half_of_everything_are_named():
    rows = pd.DataFrame({"model_fold": [0, 0, 1, 1, 2], "probability": [0.5, 0.5, 0.5, 0.6, 0.5]})
    assert untrained_folds(rows) == [0, 2]
