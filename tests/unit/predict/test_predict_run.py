"""Untrained models of two folds on two phantom patients: what is written, and that truth adds figures only."""

import json

import pandas as pd
import pytest
import torch
import yaml

from mammoflow import tables
from mammoflow.classify.model import CLASSES, build, save_classifier
from mammoflow.detect.model import build_model, save_detector
from mammoflow.phantom import generate
from mammoflow.predict.request import requested
from mammoflow.predict.run import Frozen, labelled, overlap, patient_labels, predict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Raw files of a malignant and a benign phantom patient, with truth."""
    root = tmp_path_factory.mktemp("held") / "hospital"
    generate(name="hospital", root=root, seed=5, workers=1, patients=2, malignant=1, benign=1, machines=["alpha"])
    return root


@pytest.fixture(scope="module")
def settings(root, held):
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    config["images"]["train_size"] = 64
    config["detect"] |= {"min_score": 0.0, "architectures": ["yolov5n"], "image_size": 64}
    config["crops"]["detector"] = "yolov5n"
    config["classify"]["architectures"] = ["resnet10t"]
    config["report"]["bootstrap"] = 20
    config["predict"]["root"] = str(held)
    return config


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    where = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for fold in range(2):
        header = {"architecture": "yolov5n", "classes": ["lesion", "nipple"], "image_size": 64, "fold": fold}
        save_detector(where / f"detector{fold}", build_model("yolov5n").state_dict(), header)
        record = {"architecture": "resnet10t", "crop_size": 32, "classes": CLASSES, "fold": fold}
        save_classifier(where / f"classifier{fold}", build("resnet10t", 32), record)
    row = {"false_frames_per_image": 1.0, "sensitivity": 1.0, "images": 1, "lesions": 1}
    rows = [{"detector": "yolov5n", "fold": fold, "threshold": 0.0, **row} for fold in (0, 1, -1)]
    tables.write(tables.THRESHOLDS, tables.from_rows(tables.THRESHOLDS, rows), where / "thresholds.tsv")
    return Frozen(
        "out_of_fold",
        {"yolov5n": [str(where / "detector0"), str(where / "detector1")]},
        {"yolov5n": str(where / "thresholds.tsv")},
        {"resnet10t": [str(where / "classifier0"), str(where / "classifier1")]},
        {"indices": [str(where / "missing.tsv")]},
    )


@pytest.fixture(scope="module")
def results(root, settings, frozen, tmp_path_factory):
    where = tmp_path_factory.mktemp("results")
    schema = root / "workflow" / "schemas" / "metrics.schema.json"
    predict(requested(settings), frozen, settings, 1, schema, where / "with")
    blind = settings | {"predict": settings["predict"] | {"truth": None, "directories": {}}}
    predict(requested(blind), frozen, blind, 1, schema, where / "without")
    return where


def test_every_image_is_judged_by_all_folds(results):
    index = tables.read(tables.INDEX, results / "with" / "index.tsv")
    assert (index["status"] == "ok").sum() == 8
    detections = tables.read(tables.DETECTIONS, results / "with" / "detections" / "yolov5n.tsv")
    assert set(detections["image_id"]) == set(index["image_id"])
    assert set(detections["model_fold"]) == {-1}
    frames = tables.read(tables.FRAMES, results / "with" / "frames" / "resnet10t.tsv")
    lesions = detections[detections["finding"] == "lesion"]
    assert set(frames["detection_id"]) == set(lesions["detection_id"])  # the threshold lets all pass
    assert frames["model_digest"].str.contains("+", regex=False).all()
    predictions = tables.read(tables.PREDICTIONS, results / "with" / "predictions" / "resnet10t.tsv")
    both = predictions.merge(tables.read(tables.CROPS, results / "with" / "crops.tsv"), on="crop_id")
    both = both.merge(frames, on="detection_id", suffixes=("", "_frame"))
    assert len(both) == len(predictions) > 0
    assert both["calibrated"].to_numpy() == pytest.approx(both["calibrated_frame"].to_numpy(), abs=1e-6)


def test_truth_gives_the_studys_figures(results):
    metrics = json.loads((results / "with" / "metrics.json").read_text())
    (counts,) = metrics["counts"]
    assert (counts["dataset"], counts["patients"]) == ("predicted", 2)
    assert counts["patients_by_label"] == {"positive": 1, "negative": 1, "unknown": 0}
    (detection,) = metrics["detection"]
    assert detection["froc"][0]["lesions"] > 0
    assert detection["at_mining_threshold"]["located"]["value"] is not None
    levels = metrics["two_stage"][0]["levels"]
    assert [level["units"] for level in levels] == [8, 4, 2]
    assert (results / "with" / "tables" / "two_stage_levels.tsv").is_file()
    summary = (results / "with" / "summary.md").read_text()
    assert "## Detection" in summary
    assert "no test" not in summary


def test_without_truth_there_are_the_same_detections_and_no_figures(results):
    for name in ("detections/yolov5n.tsv", "frames/resnet10t.tsv"):
        first, second = (pd.read_csv(results / which / name, sep="\t") for which in ("with", "without"))
        pd.testing.assert_frame_equal(first, second)
    assert "No truth was given" in (results / "without" / "summary.md").read_text()
    assert len(tables.read(tables.CROPS, results / "without" / "crops.tsv")) == 0
    metrics = json.loads((results / "without" / "metrics.json").read_text())
    assert metrics["detection"][0]["at_mining_threshold"]["located"]["value"] is None


def test_no_path_and_no_identifier_is_left(results, held):
    planted = [b"PHANTOM", str(held).encode(), *(path.stem.encode() for path in held.rglob("*.dcm"))]
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) > 40
    for path in files:
        content = path.read_bytes()
        assert not [text for text in planted if text in content], path.name
    assert not [path for path in files if path.name == "sources.tsv" or ".cache" in path.parts]


def test_labels_by_directory_then_by_truth():
    index = pd.DataFrame(
        [("a", "p", "unknown"), ("b", "p", "unknown"), ("c", "q", "negative"), ("d", "r", "unknown")],
        columns=["image_id", "patient_key", "directory_label"],
    ).assign(status="ok")
    truth = pd.DataFrame([("a", "malignant"), ("d", "benign")], columns=["image_id", "pathology"])
    known = labelled(index, truth)
    assert known["directory_label"].tolist() == ["positive", "negative", "negative", "negative"]
    assert patient_labels(known) == {"p": "positive", "q": "negative", "r": "negative"}
    assert patient_labels(index) == {"p": "unknown", "q": "negative", "r": "unknown"}


def test_patients_and_pictures_of_the_study_are_counted():
    rows = [("study", "p", "x"), ("study", "q", "y"), ("new", "p", "z"), ("new", "r", "y"), ("new", "s", "w")]
    images = pd.DataFrame(rows, columns=["dataset", "patient_key", "pixel_digest"])
    study = type("Study", (), {"images": images})
    assert overlap(study, "new") == {"patients": 1, "pictures": 1}
