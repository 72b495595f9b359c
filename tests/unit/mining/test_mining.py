import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from ultralytics.data.utils import img2label_paths

from mammoflow import tables
from mammoflow.detect.train import split_folds
from mammoflow.errors import DataError, LeakageError
from mammoflow.geometry import Transform
from mammoflow.mining import accept_frames, write_round

HALF = Transform(scale_x=0.5, scale_y=0.5, shift_x=0, shift_y=0, width=50, height=40)
SCREEN = {"screen": {"min_breast_share": 0.0, "nipple_score": 0.3, "nipple_iou": 0.3}, "match_iou": 0.2}


def image(number):
    return {
        "dataset": "hospital", "image_id": f"image{number}", "patient_key": f"patient{number}", "status": "ok",
        "reason": "", "png": f"image{number}.png", "train_png": f"train{number}.png", "width": 100, "height": 80,
        "transform": HALF.to_json(), "breast_x1": 0, "breast_y1": 0, "breast_x2": 100, "breast_y2": 80,
        "window": "none", "pixel_digest": f"digest{number}", "grey_p05": 0, "grey_p50": 0, "grey_p95": 0, "flag": "",
        "labels_masked": False,
    }  # fmt: skip


def patient(number, label, fold):
    return {
        "dataset": "hospital", "patient_key": f"patient{number}", "label": label, "fold": fold, "role": "internal",
        "annotated": label == "positive", "shard": "other-000",
    }  # fmt: skip


def detection(number, place, score, **changed):
    x, y = place
    return {
        "dataset": "hospital", "image_id": f"image{number}", "patient_key": f"patient{number}",
        "detection_id": f"image{number}-{x}", "detector": "yolov6n", "model_fold": number % 2, "held_out": True,
        "finding": "lesion", "confidence": score, "score": score,
        "x1": x, "y1": y, "x2": x + 20, "y2": y + 20, "model_digest": "f" * 16,
        **changed,
    }  # fmt: skip


def lesion(number, finding="lesion", expert=True):
    return {
        "dataset": "hospital", "image_id": f"image{number}", "lesion_id": f"{number}-{finding}", "finding": finding,
        "pathology": "malignant" if finding == "lesion" else "", "lesion_type": "unknown", "x1": 20, "y1": 20, "x2": 60,
        "y2": 40, "source": "yolo", "expert": expert, "flag": "",
    }  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Patients 0 positive (fold 0), 1 and 2 negative (folds 1, 0), 3 unknown (fold 1): an image each, and frames."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        picture = np.random.default_rng(number).integers(60, 256, (80, 100), dtype=np.uint8)
        cv2.imwrite(f"image{number}.png", picture)
        cv2.imwrite(f"train{number}.png", picture[::2, ::2])
    rows = {
        "images": (tables.IMAGES, [image(number) for number in range(4)]),
        "patients": (
            tables.PATIENTS,
            [patient(0, "positive", 0), patient(1, "negative", 1), patient(2, "negative", 0), patient(3, "unknown", 1)],
        ),
        "detections": (
            tables.DETECTIONS,
            [
                detection(0, (70, 50), 0.9), detection(1, (10, 10), 0.6), detection(1, (60, 50), 0.4),
                detection(1, (12, 12), 0.55), detection(2, (10, 10), 0.45), detection(3, (10, 10), 0.9),
            ],
        ),
        "thresholds": (
            tables.THRESHOLDS,
            [
                {"detector": "yolov6n", "fold": fold, "threshold": threshold, "false_frames_per_image": 0.5,
                 "sensitivity": 0.5, "images": 4, "lesions": 2}
                for fold, threshold in ((0, 0.3), (1, 0.5), (-1, 0.7))
            ],
        ),
        "lesions": (tables.LESIONS, [lesion(0), lesion(0, "nipple")]),
    }  # fmt: skip
    made = {name: tables.from_rows(schema, each) for name, (schema, each) in rows.items()}
    for name, (schema, _) in rows.items():
        tables.write(schema, made[name], f"{name}.tsv")
    return made


def accepted():
    accept_frames("detections.tsv", "thresholds.tsv", "images.tsv", "patients.tsv", SCREEN, "frames.tsv")
    return tables.read(tables.SCREENED, "frames.tsv")


def test_frames_are_accepted_by_the_threshold_of_their_patients_fold(study):
    found = accepted().set_index("detection_id")
    assert dict(found["kept"]) == {
        "image0-70": True, "image1-10": True, "image1-12": False, "image2-10": True, "image3-10": True,
    }  # fmt: skip
    assert found.loc["image1-12", "reason"] == "duplicate"


def test_frames_by_a_model_that_saw_the_patient_are_refused(study):
    table = study["detections"].assign(held_out=[True, True, False, True, True, True])
    tables.write(tables.DETECTIONS, table, "detections.tsv")
    with pytest.raises(LeakageError, match="image1-60"):
        accepted()


def test_a_round_learns_experts_frames_and_accepted_ones_of_negative_patients(study):
    found = write_round(accepted(), study["images"], study["lesions"], study["patients"], False, "round/shard")
    rows = found.set_index("image_id")
    # the positive patient's second frame and the unlabelled patient's may be anything
    assert rows["lesions"].to_dict() == {"image0": 1, "image1": 1, "image2": 1}
    assert rows["nipples"].to_dict() == {"image0": 1, "image1": 0, "image2": 0}
    assert rows["fold"].to_dict() == {"image0": 0, "image1": 1, "image2": 0}
    # by hand: 20, 20, 60, 40 is 10, 10, 30, 20 in the training picture of 50 x 40
    expert = Path(rows.loc["image0", "label_file"]).read_text().split("\n")
    assert [float(value) for value in expert[0].split()] == [0, 0.4, 0.375, 0.4, 0.25]
    mined = Path(rows.loc["image1", "label_file"]).read_text().split()
    assert [float(value) for value in mined] == [0, 0.2, 0.25, 0.2, 0.25]
    for row in found.itertuples():
        assert img2label_paths([row.train_png]) == [row.label_file.replace("/", os.sep)]
        assert Path(row.train_png).read_bytes() == Path(f"train{row.image_id[-1]}.png").read_bytes()


def test_pictures_without_frames_are_laid_out_for_background_only(study):
    nothing = tables.empty(tables.SCREENED)
    assert len(write_round(nothing, study["images"], study["lesions"], study["patients"], False, "a")) == 1
    assert len(write_round(nothing, study["images"], study["lesions"], study["patients"], True, "b")) == 4


def test_a_fold_never_learns_from_its_own_patients_frames(study):
    found = write_round(accepted(), study["images"], study["lesions"], study["patients"], True, "round/shard")
    split = split_folds(found, (0,), 0, seed=1)
    assert set(split.training["patient_key"]) == {"patient1", "patient3"}
    assert set(split_folds(found, (1,), 0, seed=1).training["patient_key"]) == {"patient0", "patient2"}


def test_a_patient_without_a_fold_is_refused(study):
    with pytest.raises(DataError, match="no fold"):
        write_round(accepted(), study["images"], study["lesions"], study["patients"].iloc[:2], True, "round/shard")


def test_frames_of_positive_patients_never_teach(study):
    only = accepted()
    only = only[only["image_id"] == "image0"]
    found = write_round(only, study["images"], pd.DataFrame(study["lesions"].iloc[:0]), study["patients"], False, "r")
    assert len(found) == 0
