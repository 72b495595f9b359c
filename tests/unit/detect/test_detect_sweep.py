import json

import numpy as np
import pytest

from mammoflow import tables
from mammoflow.config import sweep_points, sweep_settings
from mammoflow.detect import sweep
from mammoflow.detect.infer import Frames
from mammoflow.detect.sweep import divide, rank, try_settings
from mammoflow.geometry import Transform

SWEEP = {
    "detector": "yolov5n",
    "folds": [0, 2],
    "parts": 2,
    "seeds": 1,
    "grid": [{"learning_rate": [0.1, 0.2], "augment.fliplr": [0, 1]}],
}


def test_every_combination_is_a_point_laid_over_the_settings():
    assert sweep_points(SWEEP) == [
        {"learning_rate": rate, "augment.fliplr": flip} for rate in (0.1, 0.2) for flip in (0, 1)
    ]
    settings = {"learning_rate": 0.5, "augment": {"fliplr": 0.5, "scale": 0.3}, "epochs": 3}
    assert sweep_settings(settings, SWEEP, 1) == {
        "learning_rate": 0.1, "augment": {"fliplr": 1, "scale": 0.3}, "epochs": 3,
    }  # fmt: skip
    assert settings["augment"]["fliplr"] == 0.5


def judged(false, best, images=10):
    return {"false_scores": false, "true_scores": [], "best_hits": best, "images": images}


def test_points_are_ranked_by_their_mean_sensitivity_over_rates_and_folds(tmp_path):
    # of each fold two parts of 10 images; at 0.1 false positives per image the score must beat the third false one
    high, low = judged([0.9, 0.5], [0.6]), judged([0.4], [0.3, 0.1])
    files = {}
    for point, fold in ((p, f) for p in range(4) for f in (0, 2)):
        parts = [tmp_path / f"{point}-{fold}-{part}.json" for part in (0, 1)]
        files.setdefault(point, []).append(parts)
        for path, values in zip(parts, (high, low), strict=True):
            path.write_text(json.dumps(judged([], [0.2]) if (point, fold) == (3, 0) else values))
    rank(files, SWEEP, [0.05, 0.1], tmp_path / "table.tsv")
    table = tables.read(tables.SWEEP, tmp_path / "table.tsv")
    # pooled: false scores 0.9, 0.5, 0.4, lesions 0.6, 0.3, 0.1; at 0.05 one false frame is allowed: above 0.5 one of
    # three is found; at 0.1 two: above 0.4 the same one; without false frames both
    assert list(table["point"]) == [3, 0, 1, 2]
    assert table["sensitivity"].to_numpy() == pytest.approx([(1 + 1 / 3) / 2, 1 / 3, 1 / 3, 1 / 3])
    assert (table["lowest"][0], table["highest"][0]) == pytest.approx((1 / 3, 1))
    assert table["at_half"][1] == 1.0  # ten false frames allowed, there are three
    assert (table["lesions"][1], table["images"][1]) == (6, 40)
    assert table["settings"][1] == "learning_rate=0.1, augment.fliplr=0"


def test_parts_leave_the_fold_out_and_share_its_patients(tiny_study):
    table = tables.read(tables.TRAINING, tiny_study.table)
    divided = divide(table, 0, 2)
    assert set(divided["patient_key"]) == set(table.loc[table["fold"] != 0, "patient_key"])
    assert sorted(divided["fold"].value_counts()) == [2, 2]
    assert divided.groupby("patient_key")["fold"].nunique().max() == 1
    assert divided.equals(divide(table.sample(frac=1, random_state=1), 0, 2).loc[divided.index])


def images_table(tiny_study, mirrored=()):
    """IMAGES table of the study's pictures, those of the given names mirrored."""
    rows = [
        {
            "dataset": "hospital", "image_id": row["image_id"], "patient_key": row["patient_key"], "status": "ok",
            "reason": "", "png": row["train_png"], "train_png": row["train_png"], "width": 48, "height": 64,
            "transform": Transform(-1.0 if row["image_id"] in mirrored else 1.0, 1.0, 0.0, 0.0, 48, 64).to_json(),
            "breast_x1": 0, "breast_y1": 0, "breast_x2": 48, "breast_y2": 64, "window": "none", "pixel_digest": "0",
            "grey_p05": 0, "grey_p50": 0, "grey_p95": 0, "flag": "", "labels_masked": False,
        }
        for row in tiny_study.rows
    ]  # fmt: skip
    path = tiny_study.root / "images.tsv"
    tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, rows), path)
    return path


def test_a_part_is_judged_by_a_detector_of_the_others(tiny_study, tmp_path):
    match = {"hit_iou": 0.3, "hit_center": True}
    out, file = tmp_path / "part0", tmp_path / "part0.json"
    settings = tiny_study.settings | {"validation_share": 0, "min_score": 0.0001}
    images = images_table(tiny_study)
    try_settings([tiny_study.table], [images], "yolov5n", 0, 0, 2, settings, match, 1, "cpu", out, file)
    found = json.loads(file.read_text())
    assert found["images"] == 2
    assert len(found["best_hits"]) == 2
    assert len(found["false_scores"]) + len(found["true_scores"]) > 0
    seen = tables.read(tables.TRAINING, out / "parts.tsv")
    assert not set(seen["patient_key"]) & {row["patient_key"] for row in tiny_study.rows if row["fold"] == 0}


def test_members_of_a_point_are_trained_from_other_seeds_and_judge_together(tiny_study, tmp_path, monkeypatch):
    trained, judges = [], []

    def train(tables, architecture, fold, settings, seed, device, model, history, start):
        trained.append((seed, model))
        model.write_text("weights")

    def judge(judge, pictures, settings):
        judges.append(judge)
        return [Frames(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)) for _ in pictures]

    monkeypatch.setattr(sweep, "train_detector", train)
    monkeypatch.setattr(sweep, "load_detector", lambda path, device: str(path))
    monkeypatch.setattr(sweep, "judge_images", judge)
    settings, match = tiny_study.settings | {"members": 3}, {"hit_iou": 0.3, "hit_center": True}
    out, images = tmp_path / "part0", images_table(tiny_study)
    try_settings([tiny_study.table], [images], "yolov5n", 0, 0, 2, settings, match, 7, "cpu", out, tmp_path / "j.json")
    assert [seed for seed, _ in trained] == [7, 8, 9]
    assert len({model for _, model in trained}) == 3
    assert all(one.detectors == tuple(str(model) for _, model in trained) for one in judges)
    assert sorted(path.name for path in tmp_path.glob("part0*")) == ["part0"]


# a share is that of the image's 0.8 and the other breast's 0.8
@pytest.mark.parametrize(("rivals", "scores"), [(False, [0.2, 0.6]), (True, [0.2 / 1.6**0.5, 0.6 / 1.6**0.5])])
def test_frames_of_both_breasts_are_rivals_where_asked(tiny_study, tmp_path, monkeypatch, rivals, scores):
    # One part's two pictures become the breasts of one patient. The second one, with a lesion that nobody framed,
    # counts for nothing but its frames.
    rows = tables.read(tables.TRAINING, tiny_study.table)
    divided = divide(rows, 0, 2)
    first, second = divided.index[divided["fold"] == 0]
    divided.loc[second, ["patient_key", "lesions", "unframed"]] = (divided.loc[first, "patient_key"], 0, 1)
    places = np.array([[0.0, 0, 1, 1], [2, 2, 4, 4], [2, 2, 4, 4]])
    frames = Frames(places, np.array([0.6, 0.2, 0.1]), np.array([0, 0, 1]))
    monkeypatch.setattr(sweep, "divide", lambda *_: divided)
    monkeypatch.setattr(sweep, "train_detector", lambda *_: None)
    monkeypatch.setattr(sweep, "load_detector", lambda *_: None)
    monkeypatch.setattr(sweep, "judge_images", lambda judge, pictures, settings: [frames for _ in pictures])
    images, file = images_table(tiny_study, mirrored=[rows.loc[second, "image_id"]]), tmp_path / "judged.json"
    settings = tiny_study.settings | {"rivals": rivals}
    match = {"hit_iou": 0.9, "hit_center": False}
    try_settings([tiny_study.table], [images], "yolov5n", 0, 0, 2, settings, match, 1, "cpu", tmp_path, file)
    found = json.loads(file.read_text())
    assert found["images"] == 1
    assert sorted(found["false_scores"]) == pytest.approx(scores)
