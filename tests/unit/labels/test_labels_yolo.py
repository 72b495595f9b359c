from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoflow import tables
from mammoflow.boxes import from_yolo
from mammoflow.detect.offline import go_offline
from mammoflow.errors import DataError
from mammoflow.geometry import Transform
from mammoflow.labels.readers import read_lesions
from mammoflow.labels.yolo import label_file, label_text, write_labels

SHARD = "results/images/hospital/annotated-000"
LABELS = "results/labels/hospital/annotated-000"
PEOPLE = [
    {
        "dataset": "hospital",
        "patient_key": key,
        "role": "internal",
        "label": "positive",
        "annotated": True,
        "fold": fold,
        "shard": "annotated-000",
    }
    for key, fold in (("p0", 2), ("p1", 0))
]


def image_row(number, patient="p0", **changes):
    template = {
        "dataset": "hospital",
        "image_id": f"i{number}",
        "patient_key": patient,
        "status": "ok",
        "reason": "",
        "png": f"{SHARD}/i{number}.png",
        "train_png": f"{SHARD}/train/i{number}.png",
        "width": 400,
        "height": 200,
        "transform": Transform.fit_long_side(400, 200, 100).to_json(),
        **{f"breast_{edge}": None for edge in ("x1", "y1", "x2", "y2")},
        "window": "none",
        "pixel_digest": f"d{number}",
        **{f"grey_p{p}": 1.0 for p in ("05", "50", "95")},
        "flag": "",
        "labels_masked": False,
    }
    return template | changes


@pytest.fixture
def write(tmp_path, monkeypatch, make_lesions):
    monkeypatch.chdir(tmp_path)

    def run(images, lesions, patients=PEOPLE, directory=LABELS):
        people = tables.from_rows(tables.PATIENTS, list(patients))
        return write_labels(tables.from_rows(tables.IMAGES, images), make_lesions(*lesions), people, directory)

    return run


NIPPLE = {"finding": "nipple", "pathology": "", "lesion_type": "nipple"}


def test_a_shard_by_hand(write):
    lesions = [
        {"image_id": "i0", "x1": 40.0, "y1": 50.0, "x2": 80.0, "y2": 150.0},
        {"image_id": "i0", "x1": 0.0, "y1": 0.0, "x2": 20.0, "y2": 10.0, **NIPPLE},
        {"image_id": "i0", "pathology": "benign", "expert": False},
    ]
    table = write([image_row(0), image_row(1, "p1")], lesions)
    # centre x (40 + 80) / 2 / 400, centre y (50 + 150) / 2 / 200, size 40 / 400 and 100 / 200
    assert Path(LABELS, "train/i0.txt").read_text() == (
        "0 0.15000000 0.50000000 0.10000000 0.50000000\n1 0.02500000 0.02500000 0.05000000 0.05000000\n"
    )
    assert Path(LABELS, "train/i1.txt").read_text() == ""
    counts = table[["image_id", "fold", "lesions", "nipples", "unframed"]].to_numpy().tolist()
    assert counts == [["i0", 2, 1, 1, 1], ["i1", 0, 0, 0, 0]]
    assert list(table["label_file"]) == [f"{LABELS}/train/i0.txt", f"{LABELS}/train/i1.txt"]
    assert list(table["train_png"]) == [f"{SHARD}/train/i0.png", f"{SHARD}/train/i1.png"]


def test_the_centre_is_that_of_the_edges_after_cropping_and_mirroring(make_lesions):
    transform = Transform.window(100, 0, 300, 100, 100, 50).mirrored()
    lesions = make_lesions({"image_id": "i0", "x1": 120.0, "y1": 20.0, "x2": 160.0, "y2": 40.0})
    # window: x (120 - 100) / 2 = 10 to 30, y 10 to 20; mirrored x 70 to 90
    assert label_text(lesions, transform) == "0 0.80000000 0.30000000 0.20000000 0.20000000\n"


def test_frames_are_cut_at_the_picture_and_none_is_made_of_one_outside(make_lesions, caplog):
    transform = Transform.window(100, 0, 300, 100, 200, 100)
    cut = {"image_id": "i0", "x1": 80.0, "y1": 20.0, "x2": 120.0, "y2": 40.0}
    outside = {"image_id": "i0", "x1": 10.0, "y1": 20.0, "x2": 90.0, "y2": 40.0}
    # 20 of the first frame's 40 columns are left: centre 10 of 200
    assert label_text(make_lesions(cut, outside), transform) == "0 0.05000000 0.30000000 0.10000000 0.20000000\n"
    assert "1 frames lie outside" in caplog.text


@settings(max_examples=60, deadline=None)
@given(
    corner=st.tuples(st.floats(0, 3000), st.floats(0, 2000)),
    size=st.tuples(st.floats(2, 900), st.floats(2, 900)),
    long_side=st.integers(64, 2048),
)
def test_frames_survive_the_way_to_the_picture_and_back(corner, size, long_side):
    transform = Transform.fit_long_side(4000, 3000, long_side)
    box = [corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]]
    row = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
    text = label_text(pd.DataFrame([{"finding": "lesion", **row}]), transform)
    relative = [float(value) for value in text.split()[1:]]
    back = transform.backward(from_yolo(relative, transform.width, transform.height))
    np.testing.assert_allclose(back[0], box, atol=1e-3)


def test_written_files_read_back_are_the_same_frames(write, tmp_path, catalogue):
    lesions = [{"image_id": "i0", "x1": 41.3, "y1": 50.7, "x2": 80.1, "y2": 150.9}]
    write([image_row(0, transform=Transform.resize(400, 200, 400, 200).to_json())], lesions)
    index, sources = catalogue(("positive/i0.dcm", {"rows": 200, "columns": 400}))
    entry = {"format": "yolo", "path": f"{LABELS}/train", "classes": ["malignant", "nipple"]}
    back = read_lesions("hospital", tmp_path, [entry], index, sources, ["malignant"])
    assert back[["x1", "y1", "x2", "y2"]].iloc[0].tolist() == pytest.approx([41.3, 50.7, 80.1, 150.9], abs=1e-4)


def test_images_without_picture_have_no_labels_and_lost_frames_are_told(write, caplog):
    table = write(
        [image_row(0), image_row(1, status="excluded", reason="x", png="", train_png="")], [{"image_id": "i1"}]
    )
    assert list(table["image_id"]) == ["i0"]
    assert "1 frames are lost" in caplog.text


def test_an_empty_shard_gives_an_empty_directory(write):
    assert len(write([], [])) == 0
    assert Path(LABELS).is_dir()


def test_a_patient_without_fold_is_refused(write):
    with pytest.raises(DataError, match="patient stranger of data set `hospital` has no fold"):
        write([image_row(0, "stranger")], [])


def test_pictures_elsewhere_are_refused(write):
    with pytest.raises(DataError, match="expected a file below results/labels/hospital/other-000"):
        write([image_row(0)], [], directory="results/labels/hospital/other-000")
    with pytest.raises(DataError, match="not below an `images` directory"):
        label_file("results/pictures/a.png")


@pytest.mark.slow
def test_label_files_lie_where_ultralytics_looks():
    go_offline()
    from ultralytics.data.utils import img2label_paths

    for picture in (f"{SHARD}/train/i0.png", "/images/study/results/images/a/other-000/train/x.jpg"):
        assert label_file(picture) == img2label_paths([picture])[0]
