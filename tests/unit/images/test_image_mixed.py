"""A directory of anybody's files: every one of them ends as a picture or as a row with its reason."""

import os
from pathlib import Path

import cv2
import pydicom
import pytest

from mammoflow import tables
from mammoflow.config import schema
from mammoflow.images.converting import convert_shard
from mammoflow.index.scan import scan

HEADERS_ROOT = os.environ.get("MAMMOFLOW_MG_HEADERS_ROOT")
KINDS = schema()["properties"]["index"]["properties"]["policy"]["properties"]
SETTINGS = {"format": "png", "train_size": 64, "breast_crop": True, "breast_margin": 0.05, "same_side": True}


@pytest.mark.parametrize(
    "root",
    [
        pytest.param(Path(pydicom.data.data_manager.DATA_ROOT, "test_files"), id="pydicom"),
        pytest.param(
            HEADERS_ROOT, id="vendors",
            marks=pytest.mark.skipif(not HEADERS_ROOT, reason="MAMMOFLOW_MG_HEADERS_ROOT names no directory"),
        ),
    ],
)  # fmt: skip
def test_every_file_is_a_picture_or_a_reason(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = {"name": "d", "source": "dicom", "root": str(root), "directories": {}, "window": {"mode": "dicom"}}
    scan(
        dataset=dataset, secret_file="public", seed=1, table="d.tsv", sources="d.sources.tsv",
        settings={"max_excluded": 1.0, "policy": dict.fromkeys(KINDS, "use"), "max_pixels": 2**26, "verify": "time"},
    )  # fmt: skip
    index = tables.read(tables.INDEX, "d.tsv")
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    assert len(index) == len(files)
    assert (index["reason"][index["status"] != "ok"] != "").all()

    keys = sorted(set(index["patient_key"][index["status"] == "ok"]))
    patient = {
        "dataset": "d",
        "role": "internal",
        "label": "unknown",
        "annotated": False,
        "fold": 0,
        "shard": "other-000",
    }
    rows = [patient | {"patient_key": key} for key in keys]
    tables.write(tables.PATIENTS, tables.from_rows(tables.PATIENTS, rows), "patients.tsv")
    convert_shard(
        dataset=dataset, shard="other-000", settings=SETTINGS, index="d.tsv", sources="d.sources.tsv",
        patients="patients.tsv", table="images.tsv", pictures="pictures",
    )  # fmt: skip
    images = tables.read(tables.IMAGES, "images.tsv")
    assert set(images["image_id"]) == set(index["image_id"][index["status"] == "ok"])
    made, refused = images[images["status"] == "ok"], images[images["status"] != "ok"]
    assert len(made) > 0
    assert refused["reason"].str.fullmatch("[a-z_0-9]+").all()
    for row in made.itertuples():
        picture = cv2.imread(row.png, cv2.IMREAD_UNCHANGED)
        assert picture.shape == (row.height, row.width)
        assert picture.dtype == "uint8"
