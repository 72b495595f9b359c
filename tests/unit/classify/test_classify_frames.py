import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from mammoflow import tables
from mammoflow.classify import load_classifier, mean_scores, score_frames
from mammoflow.classify import predictions as module
from mammoflow.classify.model import CLASSES, build, save_classifier
from mammoflow.classify.predictions import choose_frames
from mammoflow.crops import crop_box, cut
from mammoflow.errors import DataError

CROPS = {"detector": "yolov6n", "margin": 1.5, "scale": None}


def detection(image, number, score, fold, **changed):
    x = 4 + 9 * number
    return {
        "dataset": "hospital", "image_id": image, "patient_key": f"p{image}", "detection_id": f"{image}-{number}",
        "detector": "yolov6n", "model_fold": fold, "held_out": True, "finding": "lesion",
        "confidence": score, "score": score, "x1": x, "y1": 10, "x2": x + 8, "y2": 16, "model_digest": "d", **changed,
    }  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """Images a (fold 0), b (fold 1), e (external), n (no frame); thresholds 0.5, 0.3, 0.4."""
    folds = {"a": 0, "b": 1, "e": -1, "n": 0}
    found = [
        detection("a", 0, 0.6, 0),
        detection("a", 1, 0.4, 0),  # below the threshold, and not the best
        detection("a", 2, 0.9, 0, finding="nipple"),
        detection("b", 0, 0.2, 1),  # below, but the best of its image
        detection("b", 1, 0.1, 1),
        detection("e", 0, 0.8, -1),
        detection("e", 1, 0.45, -1),
    ]
    patients = [
        {"dataset": "hospital", "patient_key": f"p{name}", "role": "external" if fold < 0 else "internal",
         "label": "unknown", "annotated": False, "fold": fold, "shard": "other-000"}
        for name, fold in folds.items()
    ]  # fmt: skip
    reached = {"false_frames_per_image": 0.5, "sensitivity": 0.5, "images": 4, "lesions": 2}
    thresholds = [
        {"detector": "yolov6n", "fold": fold, "threshold": threshold, **reached}
        for fold, threshold in ((0, 0.5), (1, 0.3), (-1, 0.4))
    ]
    images, index = [], []
    for number, name in enumerate(folds):
        picture = np.random.default_rng(number).integers(0, 256, (40, 50), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        key = {"dataset": "hospital", "image_id": name, "patient_key": f"p{name}", "status": "ok", "reason": ""}
        grey = dict.fromkeys(("grey_p05", "grey_p50", "grey_p95", "breast_x1", "breast_y1", "breast_x2", "breast_y2"))
        images.append(
            dict.fromkeys(tables.IMAGES.columns, "")
            | {**key, **grey, "labels_masked": False, "png": str(tmp_path / f"{name}.png"), "width": 50, "height": 40}
        )
        sizes = {"rows": 40, "columns": 50, "bits_stored": 8, "size": 1, "mtime_ns": 1, "imager_pixel_spacing": np.nan}
        index.append(dict.fromkeys(tables.INDEX.columns, "") | {**key, **sizes, "directory_label": "unknown"})
    written = {"detections": (tables.DETECTIONS, found), "patients": (tables.PATIENTS, patients),
               "thresholds": (tables.THRESHOLDS, thresholds), "images": (tables.IMAGES, images),
               "index": (tables.INDEX, index)}  # fmt: skip
    for name, (schema, rows) in written.items():
        tables.write(schema, tables.from_rows(schema, rows), tmp_path / f"{name}.tsv")
    for fold in range(2):
        torch.manual_seed(fold)
        record = {"architecture": "resnet10t", "crop_size": 32, "classes": CLASSES, "fold": fold,
                  "calibration": {"temperature": 2.0, "offset": -1.0}}  # fmt: skip
        save_classifier(tmp_path / f"model{fold}", build("resnet10t", 32), record)
    return tmp_path


def run(study):
    paths = {name: study / f"{name}.tsv" for name in ("thresholds", "index", "patients")}
    models = [study / "model0", study / "model1"]
    lists = {name: [study / f"{name}.tsv"] for name in ("detections", "images")}
    score_frames(
        "out_of_fold", **lists, **paths, model_paths=models, crop_settings=CROPS, threads=1, device="cpu",
        frames_path=study / "frames.tsv",
    )  # fmt: skip
    return tables.read(tables.FRAMES, study / "frames.tsv").set_index("detection_id")


def test_accepted_frames_and_the_best_of_every_image(study):
    found = run(study)
    assert found["accepted"].to_dict() == {"a-0": True, "b-0": False, "e-0": True, "e-1": True}
    assert found["model_fold"].to_dict() == {"a-0": 0, "b-0": 1, "e-0": -1, "e-1": -1}


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_scores_are_those_of_the_frames_crop_by_the_folds_model(study, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    found, judges = run(study), [load_classifier(study / f"model{fold}") for fold in range(2)]
    assert len(found) == 4
    for detection_id, those in (("a-0", judges[:1]), ("b-0", judges[1:]), ("e-1", judges)):
        row = found.loc[detection_id]
        picture = cv2.imread(str(study / f"{row['image_id']}.png"), cv2.IMREAD_GRAYSCALE)
        crop = cut(picture, crop_box((row["x1"], row["y1"], row["x2"], row["y2"]), 12))  # 1.5 * 8 px
        said = mean_scores(those, [crop])
        assert row["probability"] == pytest.approx(said.probability[0], abs=1e-6)
        assert row["calibrated"] == pytest.approx(said.calibrated[0], abs=1e-6)


def test_frames_by_a_model_that_saw_the_patient_are_refused(study):
    table = tables.read(tables.DETECTIONS, study / "detections.tsv").assign(held_out=False)
    with pytest.raises(DataError, match="saw the patient"):
        choose_frames(table, pd.DataFrame(), pd.DataFrame())
