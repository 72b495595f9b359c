import numpy as np
import pytest

from mammoflow import boxes, tables
from mammoflow.detect.thresholds import (
    Judged,
    choose_thresholds,
    judge_detections,
    lowest_precise,
    lowest_threshold,
    operating_points,
)
from mammoflow.errors import LeakageError

CROPS = {"match_iou": 0.2, "false_frames_per_image": 0.5, "precision": None}


def slow_threshold(false: list[float], true: list[float], images: int, aim: float) -> float:
    allowed = [s for s in {*false, *true} if sum(f >= s for f in false) / images <= aim]
    return min(allowed) if allowed else (1.0 if false or true else 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_lowest_threshold_is_that_of_the_slow_search(seed):
    random = np.random.default_rng(seed)
    false = random.integers(0, 20, random.integers(0, 12)) / 20
    true = random.integers(0, 20, random.integers(0, 6)) / 20
    images, aim = int(random.integers(1, 6)), float(random.choice([0.0, 0.25, 0.5, 1.0, 2.0]))
    judged = Judged(false, true, np.zeros(0), images)
    assert lowest_threshold(judged, aim) == slow_threshold(list(false), list(true), images, aim)


def detection(image: int, number: int, score: float, box: list[float], held_out: bool = True) -> dict:
    return {
        "dataset": "hospital",
        "image_id": f"image{image}",
        "patient_key": f"patient{image}",
        "detection_id": f"image{image}-yolov5n-{number:03d}",
        "detector": "yolov5n",
        "model_fold": image % 3,
        "held_out": held_out,
        "finding": "lesion",
        "confidence": score,
        "score": score,
        **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        "model_digest": "0" * 16,
    }


def lesion(image: int, box: list[float], **changed) -> dict:
    return {
        "dataset": "hospital",
        "image_id": f"image{image}",
        "lesion_id": f"lesion{image}-{box[0]:.0f}",
        "finding": "lesion",
        "pathology": "malignant",
        "lesion_type": "unknown",
        **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        "source": "yolo",
        "expert": True,
        "flag": "",
        **changed,
    }


def image_row(image: int) -> dict:
    return {
        "dataset": "hospital",
        "image_id": f"image{image}",
        "patient_key": f"patient{image}",
        "fold": image % 3,
        "train_png": "p.png",
        "label_file": "p.txt",
        "lesions": 1,
        "nipples": 0,
        "unframed": 0,
        "pixel_digest": f"{image}",
    }


def choose(tmp_path, detections, lesions, images=9, without=None, **settings):
    paths = {name: tmp_path / f"{name}.tsv" for name in ("detections", "lesions", "training", "thresholds", "curve")}
    tables.write(tables.DETECTIONS, tables.from_rows(tables.DETECTIONS, detections), paths["detections"])
    tables.write(tables.LESIONS, tables.from_rows(tables.LESIONS, lesions), paths["lesions"])
    rows = [image_row(number) for number in range(images)]
    tables.write(tables.TRAINING, tables.from_rows(tables.TRAINING, rows), paths["training"])
    lists = ([paths["detections"]], [paths["training"]], [paths["lesions"]])
    written = paths["thresholds"], paths["curve"]
    choose_thresholds(*lists, "yolov5n", [0, 1, 2], {**CROPS, **settings}, *written, without)
    return tables.read(tables.THRESHOLDS, paths["thresholds"]).set_index("fold")


def random_case(seed):
    random = np.random.default_rng(seed)
    lesions = [lesion(image, [10, 10, 30, 30]) for image in range(9)]
    detections = []
    for image in range(9):
        for number in range(random.integers(0, 5)):
            x, y = random.uniform(0, 60, 2)
            detections.append(detection(image, number, round(random.random(), 3), [x, y, x + 20, y + 20]))
    return detections, lesions


def test_every_fold_against_a_slow_loop(tmp_path):
    detections, lesions = random_case(3)
    found = choose(tmp_path, detections, lesions)
    for fold in (0, 1, 2, -1):
        false, true = [], []
        for row in detections:
            image = int(row["image_id"][5:])
            if image % 3 != fold:
                box = [row["x1"], row["y1"], row["x2"], row["y2"]]
                hit = boxes.hits(box, [10, 10, 30, 30], 0.2, center=True)[0, 0]
                (true if hit else false).append(row["score"])
        images = 9 if fold == -1 else 6
        assert found.loc[fold, "threshold"] == slow_threshold(false, true, images, 0.5)
        assert found.loc[fold, "images"] == images
        assert found.loc[fold, "lesions"] == images
        assert found.loc[fold, "false_frames_per_image"] <= 0.5


@pytest.mark.parametrize("seed", range(20))
def test_a_precision_is_reached_at_the_lowest_such_threshold(seed):
    random = np.random.default_rng(seed)
    false, true = (random.integers(0, 20, random.integers(0, 9)) / 20 for _ in range(2))
    judged, aim = Judged(false, true, np.zeros(0), 4), float(random.choice([0.25, 0.5, 0.75, 1.0]))
    good = [s for s in {*false, *true} if (true >= s).sum() / ((true >= s).sum() + (false >= s).sum()) >= aim]
    expected = min(good) if good else (1.0 if len(false) + len(true) else 0.0)
    assert lowest_precise(judged, aim) == expected


def test_the_curve_holds_the_chosen_threshold_and_what_others_reach(tmp_path):
    detections, lesions = random_case(3)
    detections += [detection(image, 7, 0.95, [12, 12, 32, 32]) for image in range(9)]
    found = choose(tmp_path, detections, lesions, precision=0.4)
    curve = tables.read(tables.CURVE, tmp_path / "curve.tsv")
    chosen = curve[curve["chosen"]].set_index("fold")
    assert chosen["threshold"].to_dict() == found["threshold"].to_dict()
    for column in ("false_frames_per_image", "sensitivity"):
        assert chosen[column].to_dict() == pytest.approx(found[column].to_dict())
    assert (chosen["precision"] >= 0.4).all()
    for _, points in curve.groupby("fold"):
        assert points["threshold"].is_monotonic_increasing
        assert points["false_frames_per_image"].is_monotonic_decreasing
        assert points["sensitivity"].is_monotonic_decreasing


def test_many_scores_give_a_short_curve_from_the_loosest_to_the_strictest():
    scores = np.random.default_rng(0).random(5000)
    points = operating_points(Judged(scores[:4000], scores[4000:], np.zeros(3), 10), 0.123)
    assert len(points) == 201
    assert (points[0]["threshold"], points[-1]["threshold"]) == (scores.min(), scores.max())
    assert [point["threshold"] for point in points if point["chosen"]] == [0.123]


def test_a_folds_own_images_never_move_its_threshold(tmp_path):
    detections, lesions = random_case(4)
    before = choose(tmp_path / "a", detections, lesions)
    own = [detection(0, 90 + number, 0.99, [50, 50, 60, 60]) for number in range(9)]
    after = choose(tmp_path / "b", detections + own, lesions)
    assert after.loc[0].equals(before.loc[0])
    assert after.loc[1, "threshold"] > before.loc[1, "threshold"]


def test_sensitivity_by_hand(tmp_path):
    # folds other than 0 hold images 1, 2, 4, 5, 7, 8; half a false frame an image allows three false frames
    lesions = [lesion(image, [10, 10, 30, 30]) for image in range(9)]
    hits = [detection(image, 0, score, [12, 12, 32, 32]) for image, score in ((1, 0.9), (2, 0.5), (4, 0.2), (5, 0.1))]
    false = [detection(7, number, score, [60, 60, 70, 70]) for number, score in enumerate((0.8, 0.6, 0.4, 0.3))]
    row = choose(tmp_path, hits + false, lesions).loc[0]
    assert row["threshold"] == 0.4
    assert row["false_frames_per_image"] == 3 / 6
    assert row["sensitivity"] == pytest.approx(2 / 6)


def test_nipples_and_other_frames_are_no_lesions(tmp_path):
    nipple = lesion(1, [50, 50, 60, 60], finding="nipple", pathology="", lesion_type="nipple")
    not_expert = lesion(2, [50, 50, 60, 60], expert=False)
    found = choose(tmp_path, [], [nipple, not_expert])
    assert list(found["lesions"]) == [0, 0, 0, 0]
    assert list(found["threshold"]) == [0.0] * 4
    assert found["sensitivity"].isna().all()


def test_detections_by_a_model_that_saw_the_patient_are_refused(tmp_path):
    with pytest.raises(LeakageError, match="image1-yolov5n-000"):
        choose(tmp_path, [detection(1, 0, 0.5, [0, 0, 9, 9], held_out=False)], [lesion(1, [10, 10, 30, 30])])


def test_image_in_another_data_set_is_another_image():
    other = {**image_row(1), "dataset": "elsewhere"}
    found = tables.from_rows(tables.DETECTIONS, [detection(1, 0, 0.5, [0, 0, 9, 9])])
    truth = tables.from_rows(tables.LESIONS, [lesion(1, [10, 10, 30, 30])])
    judged = judge_detections(tables.from_rows(tables.TRAINING, [other]), found, truth, 0.2)
    assert (len(judged.false_scores), len(judged.best_hits), judged.images) == (0, 0, 1)


def test_without_a_fold_its_images_count_for_no_threshold(tmp_path):
    detections, lesions = random_case(4)
    nested = choose(tmp_path, detections, lesions, without=1)
    assert list(nested.index) == [0, 2, -1]
    assert list(nested["images"]) == [3, 3, 6]  # those of fold 2, of fold 0, of both
    louder = [row | {"score": 1.0} if row["model_fold"] == 1 else row for row in detections]
    assert choose(tmp_path, louder, lesions, without=1).equals(nested)
    assert not choose(tmp_path, louder, lesions).loc[[0, 2]].equals(nested.loc[[0, 2]])
