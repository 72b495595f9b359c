import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from mammoflow import tables
from mammoflow.classify.model import CLASSES, build, save_classifier
from mammoflow.detect.model import build_model, save_detector
from mammoflow.diagnose.findings import DISCLAIMER, describe
from mammoflow.diagnose.overlays import BENIGN, MALIGNANT, NIPPLE, draw
from mammoflow.diagnose.request import check_request
from mammoflow.diagnose.run import Models, diagnose
from mammoflow.errors import ConfigError, DataError
from mammoflow.phantom import generate


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("", "study is empty"),
        ("{tmp}/none", "not a directory"),
        ("{tmp}/file", "not a directory"),
        ("{tmp}/hollow", "without files"),
        ("$MAMMOFLOW_UNSET_STUDY/x", "MAMMOFLOW_UNSET_STUDY"),
    ],
)
def test_request_without_files_is_refused_with_the_way_to_ask(study, said, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "hollow" / "deeper").mkdir(parents=True)
    with pytest.raises(ConfigError, match="study") as error:
        check_request(study.format(tmp=tmp_path))
    assert said in str(error.value)


def test_request_expands_variables(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.dcm").touch()
    monkeypatch.setenv("MAMMOFLOW_STUDY", str(tmp_path))
    assert check_request("$MAMMOFLOW_STUDY") == str(tmp_path)


FINDING = {
    "image_id": "a", "nipple_x": 50.04, "nipple_y": 60.0, "nipple_source": "detector", "distance_mm": 12.34,
    "half": "upper", "quadrant": "upper_outer", "score": 0.87654, "probability": 0.91234,
    "x1": 10.04, "y1": 20.0, "x2": 30.0, "y2": 45.55,
}  # fmt: skip
LOST = {"nipple_x": np.nan, "nipple_y": np.nan, "nipple_source": "unknown", "distance_mm": np.nan}


def described(*findings):
    row = {"image_laterality": "L", "view_position": "CC", "rows": 100, "columns": 80, "reason": "", "status": "ok"}
    index = [
        {**row, "image_id": "a"},
        {**row, "image_id": "b"},
        {**row, "image_id": "c", "status": "excluded", "reason": "not_dicom"},
        {**row, "image_id": "d", "status": "excluded", "reason": "not_an_image"},
    ]
    images = [
        {"image_id": "a", "status": "ok", "reason": ""},
        {"image_id": "b", "status": "excluded", "reason": "truncated_pixel_data"},
    ]
    return describe(pd.DataFrame(index), pd.DataFrame(images), pd.DataFrame(findings), {"detector": "x"})


def test_description_by_hand():
    description = described(FINDING | LOST | {"score": 0.5}, FINDING)
    assert description["disclaimer"] == DISCLAIMER
    assert description["models"] == {"detector": "x"}
    assert [(image["image_id"], image["status"], image["reason"]) for image in description["images"]] == [
        ("a", "ok", ""),
        ("b", "excluded", "truncated_pixel_data"),
        ("c", "excluded", "not_dicom"),
    ]
    assert [image["overlay"] for image in description["images"]] == ["overlays/a.png", None, None]
    first, second = description["images"][0]["findings"]
    assert first == {
        "box": [10.0, 20.0, 30.0, 45.5], "detector_score": 0.87654, "probability_malignant": 0.9123, "half": "upper",
        "quadrant": "upper_outer", "nipple": [50.0, 60.0], "nipple_source": "detector", "nipple_distance_mm": 12.3,
    }  # fmt: skip
    assert (second["nipple"], second["nipple_distance_mm"], second["detector_score"]) == (None, None, 0.5)


def test_drawing_marks_frames_by_probability_and_the_nipple():
    findings = described(FINDING, FINDING | LOST | {"probability": 0.1, "x1": 60, "x2": 70})["images"][0]["findings"]
    drawn = draw(np.zeros((100, 80), np.uint8), findings)
    assert drawn.shape == (100, 80, 3)
    assert tuple(drawn[30, 10]) == MALIGNANT
    assert tuple(drawn[30, 29]) == MALIGNANT  # half-open: the last column is 29
    assert tuple(drawn[30, 60]) == BENIGN
    assert tuple(drawn[60, 50]) == NIPPLE
    assert not drawn[30, 15:25].any()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Raw files of one phantom patient, a broken file and a text among them."""
    root = tmp_path_factory.mktemp("phantom") / "hospital"
    generate(name="hospital", root=root, seed=5, workers=1, patients=1, malignant=1, benign=0, machines=["alpha"])
    raw = root / "raw"
    (raw / "broken.dcm").write_bytes(b"\0" * 200)
    (raw / "readme.txt").write_text("no image")
    return raw


@pytest.fixture
def settings(root):
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    config["images"]["train_size"] = 64
    config["detect"]["min_score"] = 0.0
    return config


@pytest.fixture
def models(tmp_path):
    """Models with random weights of two folds, one of which says so; the threshold lets every frame pass."""
    torch.manual_seed(0)
    paths = []
    for fold in range(2):
        detector, classifier = tmp_path / f"detector{fold}", tmp_path / f"classifier{fold}"
        header = {"architecture": "yolov5n", "classes": ["lesion", "nipple"], "image_size": 64, "fold": fold}
        save_detector(detector, build_model("yolov5n").state_dict(), header)
        record = {"architecture": "resnet10t", "crop_size": 32, "classes": CLASSES, "fold": fold}
        save_classifier(classifier, build("resnet10t", 32), record | ({"trained": False} if fold else {}))
        paths.append((detector, classifier))
    row = {"false_frames_per_image": 1.0, "sensitivity": 1.0, "images": 1, "lesions": 1}
    rows = [{"detector": "yolov5n", "fold": fold, "threshold": 0.0, **row} for fold in (0, 1, -1)]
    tables.write(tables.THRESHOLDS, tables.from_rows(tables.THRESHOLDS, rows), tmp_path / "thresholds.tsv")
    return Models([pair[0] for pair in paths], tmp_path / "thresholds.tsv", [pair[1] for pair in paths])


@pytest.mark.slow
def test_a_study_goes_through_all_stages(study, models, settings, tmp_path, caplog):
    findings, overlays = tmp_path / "out" / "findings.json", tmp_path / "out" / "overlays"
    diagnose(str(study), models, settings, 1, findings, overlays)
    description = json.loads(findings.read_text("utf-8"))
    usable = [image for image in description["images"] if image["status"] == "ok"]
    views = sorted((image["image_laterality"], image["view_position"]) for image in usable)
    assert views == [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
    assert [image["status"] for image in description["images"]].count("excluded") == 1
    assert sum(len(image["findings"]) for image in usable) > 0
    for image in usable:
        assert cv2.imread(str(overlays.parent / image["overlay"])).shape == (image["rows"], image["columns"], 3)
        for finding in image["findings"]:
            x1, y1, x2, y2 = finding["box"]
            assert 0 <= x1 < x2 <= image["columns"]
            assert 0 <= y1 < y2 <= image["rows"]
            assert 0 <= finding["probability_malignant"] <= 1
    assert len(description["models"]["detector"]["digests"]) == 2
    assert description["models"]["classifier"]["protocol"] == settings["crops"]["protocols"][0]
    assert description["models"]["classifier"]["untrained_folds"] == [1]
    assert "classifiers of folds 1 learned nothing" in caplog.text
    assert sorted(path.name for path in findings.parent.iterdir()) == ["findings.json", "overlays"]
    text = findings.read_text("utf-8")
    assert "PHANTOM" not in text
    assert not [path for path in study.rglob("*") if path.stem in text]


def test_study_without_a_mammogram_is_an_error(models, settings, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "broken.dcm").write_bytes(b"\0" * 200)
    with pytest.raises(DataError, match="no usable mammogram"):
        diagnose(str(tmp_path / "study"), models, settings, 1, tmp_path / "out" / "f.json", tmp_path / "out" / "o")
    assert list((tmp_path / "out").iterdir()) == []
