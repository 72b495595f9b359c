"""Frozen models on another directory: one job, nothing trained, the study untouched."""

import json

import pytest

from mammoflow import tables
from mammoflow.phantom import generate

pytestmark = pytest.mark.slow


def test_held_out_images_go_through_the_frozen_models(study, tmp_path, monkeypatch):
    generate("hospital", tmp_path / "held", patients=3, malignant=1, benign=1, machines=["epsilon"], seed=9)
    monkeypatch.setenv("MAMMOFLOW_PREDICT_ROOT", str(tmp_path / "held"))
    assert study.jobs("predict") == {"predict"}
    results = study.directory / "results" / "predict" / "predicted"
    metrics = json.loads((results / "metrics.json").read_text())
    assert [row["dataset"] for row in metrics["counts"]] == ["predicted"]
    assert {row["detector"] for row in metrics["detection"]} == {"yolov5n", "yolov6n"}
    assert metrics["detection"][0]["froc"][1]["lesions"] > 0
    assert [level["units"] for level in metrics["two_stage"][0]["levels"]] == [12, 6, 3]
    # thresholds and shortcut baseline come from the study's own tables
    assert {point["aim"] for point in metrics["two_stage"][0]["levels"][0]["operating_points"]} == {
        "sensitivity_0.9", "specificity_0.9",
    }  # fmt: skip
    frames = tables.read(tables.FRAMES, results / "frames" / "resnet50.tsv")
    assert set(frames["model_fold"]) == {-1}

    assert study.jobs("predict", "--dry-run") == set()
    assert study.jobs("--dry-run") == set()
    next((tmp_path / "held" / "raw" / "negative").rglob("*.dcm")).unlink()
    assert study.jobs("predict", "--dry-run") == {"predict"}


def test_a_missing_model_stops_it(study, tmp_path, monkeypatch):
    generate("hospital", tmp_path / "held", patients=1, malignant=1, benign=0, machines=["epsilon"], seed=9)
    monkeypatch.setenv("MAMMOFLOW_PREDICT_ROOT", str(tmp_path / "held"))
    (study.directory / "results" / "detect" / "yolov5n" / "fold1" / "model.safetensors").unlink()
    done = study.run("predict")
    assert done.returncode != 0
    assert "`predict` trains nothing" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
