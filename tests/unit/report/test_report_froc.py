import numpy as np
import pandas as pd
import pytest

from mammoflow.report.bootstrap import Resamples
from mammoflow.report.froc import HitRule, Judged, average_precision, judge, match, sensitivities

RULE = HitRule(0.5, False)
EDGES = ["x1", "y1", "x2", "y2"]


def frames(rows, **extra):
    """Table of (image, box) or (image, box, score) rows, all of one data set; the patient is the image's."""
    table = pd.DataFrame([(row[0], *row[1]) for row in rows], columns=["image_id", *EDGES]).astype(
        dict.fromkeys(EDGES, float)
    )
    table.insert(0, "dataset", "d")
    table["patient_key"] = "p_" + table["image_id"].astype(str)
    table["score"] = [row[2] if len(row) > 2 else 1.0 for row in rows]
    table["detection_id"] = [f"d{at}" for at in range(len(rows))]
    return table.assign(**extra)


def images(*names):
    return pd.DataFrame(
        {"dataset": "d", "image_id": list(names), "patient_key": [f"p_{name}" for name in names]}, dtype=str
    )


def whole(judged, levels):
    patients = Resamples.draw(judged.image_patient, 1, seed=0)
    return sensitivities(judged, np.ones((1, len(patients.patients))), patients, np.array(levels, dtype=float))[0]


@pytest.fixture
def by_hand():
    """Four images, three lesions; .9 hit, .8 false, .7 hit, .6 false, .5 hit of a lesion already hit, .4 false."""
    detections = frames(
        [
            ("i1", (0, 0, 10, 10), 0.9),
            ("i4", (50, 50, 60, 60), 0.8),
            ("i2", (0, 0, 10, 10), 0.7),
            ("i1", (50, 50, 60, 60), 0.6),
            ("i1", (0, 0, 10, 9), 0.5),
            ("i3", (70, 0, 80, 10), 0.4),
        ]
    )
    lesions = frames([("i1", (0, 0, 10, 10)), ("i2", (0, 0, 10, 10)), ("i3", (0, 0, 10, 10))])
    return judge(detections, lesions, lesions.iloc[:0], images("i1", "i2", "i3", "i4"), RULE)


def test_froc_by_hand(by_hand):
    assert by_hand.hit.tolist() == [True, False, True, False, True, False]
    assert by_hand.lesion_score.tolist() == [0.9, 0.7, -np.inf]
    # 4 images: 0 false -> above .8; 1 false (0.25 per image) -> above .6; 2 -> above .4; 3 -> all
    np.testing.assert_allclose(whole(by_hand, [0.1, 0.25, 0.5, 0.75, 2]), [1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_average_precision_by_hand(by_hand):
    # matched at ranks 1 and 3; the duplicate at rank 5 is false: precisions 1, 1/2, 2/3, 2/4, 2/5, 2/6
    patients = Resamples.draw(by_hand.image_patient, 1, seed=0)
    value = average_precision(by_hand, np.ones((1, 4)), patients)[0]
    assert value == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)


def test_a_detection_of_another_true_lesion_is_ignored():
    detections = frames([("i1", (20, 20, 30, 30), 0.9), ("i1", (0, 0, 10, 10), 0.8)])
    target, other = frames([("i1", (0, 0, 10, 10))]), frames([("i1", (20, 20, 30, 30))])
    judged = judge(detections, target, other, images("i1"), RULE)
    assert judged.ignored.tolist() == [True, False]
    assert judged.false_positive.sum() == 0
    assert whole(judged, [0.1])[0] == 1
    strict = judge(detections, target, other.iloc[:0], images("i1"), RULE)
    assert strict.false_positive.tolist() == [True, False]
    assert whole(strict, [0.1])[0] == 0


def test_hit_rule_centre_and_iou():
    # centre inside, IoU 0.04
    detections = frames([("i1", (4, 4, 6, 6), 0.9)])
    target = frames([("i1", (0, 0, 10, 10))])
    none = target.iloc[:0]
    assert judge(detections, target, none, images("i1"), HitRule(0.3, True)).hit[0]
    assert not judge(detections, target, none, images("i1"), HitRule(0.3, False)).hit[0]
    assert "centre" in HitRule(0.3, True).words()
    assert "centre" not in HitRule(0.3, False).words()


def test_negative_images_count():
    detections = frames([("i1", (0, 0, 10, 10), 0.3), ("i2", (0, 0, 10, 10), 0.9)])
    target = frames([("i1", (0, 0, 10, 10))])
    few = judge(detections, target, target.iloc[:0], images("i1", "i2"), RULE)
    many = judge(detections, target, target.iloc[:0], images("i1", "i2", *(f"n{i}" for i in range(8))), RULE)
    assert whole(few, [0.1])[0] == 0  # the one false positive in two images is too many
    assert whole(many, [0.1])[0] == 1  # in ten images it is just allowed


def test_equal_scores_are_taken_together():
    detections = frames([("i1", (0, 0, 10, 10), 0.5), ("i2", (0, 0, 10, 10), 0.5)])
    target = frames([("i1", (0, 0, 10, 10))])
    judged = judge(detections, target, target.iloc[:0], images("i1", "i2"), RULE)
    np.testing.assert_allclose(whole(judged, [0.4, 0.5]), [0, 1])


def test_match_gives_each_lesion_once():
    found = np.array([[True, True], [True, False], [True, True]])
    overlap = np.array([[0.6, 0.9], [0.8, 0.0], [0.7, 0.7]])
    assert match(found, overlap).tolist() == [True, True, False]


def random_judged(seed):
    rng = np.random.default_rng(seed)
    patients = np.array([f"p{i}" for i in range(12)])
    image_patient = np.repeat(patients, 3)
    count, lesions = 60, 15
    hit = rng.random(count) < 0.4
    score = np.sort(np.round(rng.random(count), 2))[::-1]
    lesion_score = np.where(rng.random(lesions) < 0.7, np.round(rng.random(lesions), 2), -np.inf)
    return Judged(
        score,
        hit,
        hit & (rng.random(count) < 0.7),
        ~hit & (rng.random(count) < 0.1),
        rng.choice(patients, count),
        lesion_score,
        rng.choice(patients, lesions),
        image_patient,
    )


def slow_sensitivity(judged, weight, level):
    """Try every score as threshold; keep the most lesions found within the level."""
    images_weight = sum(weight[p] for p in judged.image_patient)
    lesions_weight = sum(weight[p] for p in judged.lesion_patient)
    best = 0.0
    for threshold in [np.inf, *judged.score.tolist(), *judged.lesion_score.tolist(), 0.0]:
        if not threshold > -np.inf:
            continue
        false = sum(
            weight[p]
            for p, s, f in zip(judged.patient, judged.score, judged.false_positive, strict=True)
            if f and s >= threshold
        )
        if false <= level * images_weight + 1e-9:
            found = sum(
                weight[p] for p, s in zip(judged.lesion_patient, judged.lesion_score, strict=True) if s >= threshold
            )
            best = max(best, found / lesions_weight)
    return best


def slow_average_precision(judged, weight):
    """Walk down the scores; sum recall gained times the best precision from there on."""
    points = []
    lesions = sum(weight[p] for p in judged.lesion_patient)
    for threshold in sorted(set(judged.score.tolist()), reverse=True):
        taken = (judged.score >= threshold) & ~judged.ignored
        true = sum(weight[p] for p in judged.patient[taken & judged.matched])
        everything = sum(weight[p] for p in judged.patient[taken])
        points.append((true / lesions, true / everything if everything else 0.0))
    area, before = 0.0, 0.0
    for at, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[at:])
        before = recall
    return area


@pytest.mark.parametrize("seed", range(6))
def test_resampled_figures_agree_with_a_slow_oracle(seed):
    judged = random_judged(seed)
    patients = Resamples.draw(judged.image_patient, 8, seed)
    levels = np.array([0.05, 0.2, 0.5, 1.0])
    fast = sensitivities(judged, patients.weights, patients, levels)
    precision = average_precision(judged, patients.weights, patients)
    for row, weights in enumerate(patients.weights):
        weight = dict(zip(patients.patients, weights, strict=True))
        slow = [slow_sensitivity(judged, weight, level) for level in levels]
        np.testing.assert_allclose(fast[row], slow)
        assert precision[row] == pytest.approx(slow_average_precision(judged, weight))


def test_weighting_a_patient_twice_is_having_it_twice():
    judged = random_judged(3)
    patients = Resamples.draw(judged.image_patient, 1, seed=0)
    weights = np.ones((1, 12))
    weights[0, 4] = 2
    doubled = [np.append(values, values[keys == patients.patients[4]]) for values, keys in (
        (judged.score, judged.patient), (judged.hit, judged.patient), (judged.matched, judged.patient),
        (judged.ignored, judged.patient), (judged.patient, judged.patient),
        (judged.lesion_score, judged.lesion_patient), (judged.lesion_patient, judged.lesion_patient),
        (judged.image_patient, judged.image_patient),
    )]  # fmt: skip
    order = np.argsort(-doubled[0], kind="stable")
    twice = Judged(*(values[order] for values in doubled[:5]), *doubled[5:])
    levels = np.array([0.1, 0.3, 1.0])
    np.testing.assert_allclose(
        sensitivities(judged, weights, patients, levels), sensitivities(twice, np.ones((1, 12)), patients, levels)
    )


def test_no_lesion_gives_nan():
    none = frames([])
    judged = judge(frames([("i1", (0, 0, 1, 1), 0.5)]), none, none, images("i1"), RULE)
    assert np.isnan(whole(judged, [1.0])).all()
