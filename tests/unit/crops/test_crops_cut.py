from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mammoflow import boxes, tables
from mammoflow.classify.model import grey_levels
from mammoflow.crops import crop_box, crop_side, cut, cut_shard
from mammoflow.crops.cut import spread
from mammoflow.errors import DataError
from mammoflow.images.breast import breast_mask

SETTINGS = {"detector": "yolov6n", "false_frames_per_image": 0.5, "match_iou": 0.2, "margin": 1.5,
            "screen": {"min_breast_share": 0.0, "nipple_score": 0.3, "nipple_iou": 0.3}}  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "margin", "expected"),
    [
        ((10, 20, 30, 30), 1.0, (10, 15, 30, 35)),
        ((10, 20, 30, 30), 1.5, (5, 10, 35, 40)),
        ((0, 0, 8, 8), 1.5, (-2, -2, 10, 10)),
        ((3, 3, 3.2, 3.2), 1.0, (3, 3, 4, 4)),
    ],
)
def test_crop_box_by_hand(frame, margin, expected):
    assert crop_box(frame, crop_side(frame, {"margin": margin}, np.nan)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_crop_box_is_a_square_about_the_frame(seed):
    random = np.random.default_rng(seed)
    x, y, width, height = random.uniform(1, 200, 4)
    margin = random.uniform(1, 3)
    frame = (x, y, x + width, y + height)
    box = crop_box(frame, crop_side(frame, {"margin": margin, "scale": None}, 0.1))
    assert box[2] - box[0] == box[3] - box[1]
    assert abs(box[2] - box[0] - margin * max(width, height)) <= 0.5
    assert np.abs(boxes.centers(box)[0] - [x + width / 2, y + height / 2]).max() <= 0.5


@pytest.mark.parametrize(
    ("spacing", "scale", "side"),
    [
        (0.1, {"side_mm": 30}, 300),
        (0.1, {"side_mm": 30, "pixel_spacing": 0.2}, 300),
        (np.nan, {"side_mm": 30, "pixel_spacing": 0.2}, 150),
        (np.nan, {"side_mm": 30}, 60),  # unknown spacing: margin times 40
        (0.1, None, 60),
    ],
)
def test_side_in_mm_is_the_same_for_small_and_large_frames(spacing, scale, side):
    settings = {"margin": 1.5, "scale": scale}
    assert crop_side((0, 0, 40, 20), settings, spacing) == side
    if side != 60:
        assert crop_side((0, 0, 7, 3), settings, spacing) == side


def test_sixteen_bits_stay_sixteen_bits():
    image = np.arange(100, dtype=np.uint16).reshape(10, 10) * 600
    crop = cut(image, (5, 5, 12, 12))
    assert crop.dtype == np.uint16
    assert crop[0, 0] == 55 * 600
    assert crop[6, 6] == 0


def test_master_of_twelve_bits_fills_the_scale_by_hand():
    # greys 1000 to 1100 evenly: percentiles 1001 and 1099, so the ends of the scale are 952 and 1148
    master = np.tile(np.arange(1000, 1101, dtype=np.uint16), (5, 1))
    master[0, :5] = 0, 951, 952, 1148, 4095
    breast = np.ones(master.shape, bool)
    breast[0] = False
    found = spread(master, breast)
    assert found.dtype == np.uint16
    assert found[0, :5].tolist() == [0, 0, 0, 65535, 65535]
    assert found[1, [0, 1, 50, 99]].tolist() == pytest.approx(
        [65535 * (grey - 952) / 196 for grey in (1000, 1001, 1050, 1099)], abs=1
    )
    assert len(np.unique(found[1])) == 101
    assert (np.diff(found[1].astype(int)) > 0).all()


def test_master_of_one_grey_is_grey():
    assert (spread(np.full((4, 4), 7, np.uint16), None) == round(65535 / 4)).all()


@pytest.mark.parametrize("box", [(2, 3, 6, 7), (-3, -2, 5, 6), (6, 5, 14, 13), (-5, -5, 20, 20), (30, 30, 34, 34)])
def test_cut_is_the_padded_picture(box):
    image = np.random.default_rng(0).integers(1, 256, (9, 11), dtype=np.uint8)
    far = 40
    padded = np.pad(image, far)
    left, top, right, bottom = (edge + far for edge in box)
    assert np.array_equal(cut(image, box), padded[top:bottom, left:right])


def detection(patient: int, number: int, score: float, box: tuple, **changed) -> dict:
    return {
        "dataset": "hospital",
        "image_id": f"image{patient}",
        "patient_key": f"patient{patient}",
        "detection_id": f"image{patient}-yolov6n-{number:03d}",
        "detector": "yolov6n",
        "model_fold": patient % 2,
        "held_out": True,
        "finding": "lesion",
        "confidence": score,
        "score": score,
        **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
        "model_digest": "f" * 16,
        **changed,
    }


@pytest.fixture
def shard(tmp_path, monkeypatch):
    """Patients 0 positive with a lesion at 20, 20 to 40, 40; 1 negative; 2 unknown; 3 external and negative."""
    monkeypatch.chdir(tmp_path)
    labels = ["positive", "negative", "unknown", "negative"]
    folds = [0, 1, 0, -1]
    images, patients, index = [], [], []
    for number, (label, fold) in enumerate(zip(labels, folds, strict=True)):
        picture = np.random.default_rng(number).integers(1, 256, (80, 60), dtype=np.uint8)
        cv2.imwrite(f"image{number}.png", picture)
        images.append(
            {
                "dataset": "hospital", "image_id": f"image{number}", "patient_key": f"patient{number}", "status": "ok",
                "reason": "", "png": f"image{number}.png", "train_png": "small.png", "width": 60, "height": 80,
                "transform": "{}", "breast_x1": 0, "breast_y1": 0, "breast_x2": 60, "breast_y2": 80, "window": "none",
                "pixel_digest": f"{number}", "grey_p05": 0, "grey_p50": 0, "grey_p95": 0,
                "flag": "", "labels_masked": False,
            }
        )  # fmt: skip
        index.append(
            dict.fromkeys(tables.INDEX.columns, "")
            | {
                "dataset": "hospital", "image_id": f"image{number}", "status": "ok", "reason": "",
                "patient_key": f"patient{number}", "study_key": "", "directory_label": label, "image_laterality": "L",
                "view_position": "CC", "rows": 80, "columns": 60, "bits_stored": 8, "size": 1, "mtime_ns": 1,
                "photometric_interpretation": "MONOCHROME2", "presentation_intent": "", "machine": "alpha",
                "transfer_syntax_uid": "", "imager_pixel_spacing": 0.5 if number else np.nan,
            }
        )  # fmt: skip
        patients.append(
            {
                "dataset": "hospital", "patient_key": f"patient{number}", "label": label, "fold": fold,
                "role": "external" if fold < 0 else "internal", "annotated": number == 0, "shard": "other-000",
            }
        )  # fmt: skip
    lesion = {
        "dataset": "hospital", "image_id": "image0", "lesion_id": "lesion0", "finding": "lesion",
        "pathology": "malignant", "lesion_type": "unknown", "x1": 20, "y1": 20, "x2": 40, "y2": 40, "source": "yolo",
        "expert": True, "flag": "",
    }  # fmt: skip
    thresholds = [
        {
            "detector": "yolov6n", "fold": fold, "threshold": threshold, "false_frames_per_image": 0.5,
            "sensitivity": 0.5, "images": 4, "lesions": 2,
        }
        for fold, threshold in ((0, 0.3), (1, 0.5), (-1, 0.7))
    ]  # fmt: skip
    found = [
        detection(0, 0, 0.35, (22, 22, 42, 42)),
        detection(0, 1, 0.9, (0, 0, 9, 9)),
        detection(1, 0, 0.55, (50, 70, 59, 79)),
        detection(1, 1, 0.45, (10, 10, 20, 20)),
        detection(1, 2, 0.95, (1, 1, 5, 5), finding="nipple"),
        detection(2, 0, 0.9, (10, 10, 20, 20)),
        detection(3, 0, 0.75, (10, 10, 20, 24), model_fold=-1),
        detection(3, 1, 0.65, (30, 30, 40, 40), model_fold=-1),
    ]
    return SimpleNamespace(
        images=images, index=index, patients=patients, lesions=[lesion], thresholds=thresholds, detections=found
    )


def run(shard, protocol, settings=SETTINGS, without=None):
    schemas = {
        "images": tables.IMAGES, "index": tables.INDEX, "patients": tables.PATIENTS, "lesions": tables.LESIONS,
        "thresholds": tables.THRESHOLDS, "detections": tables.DETECTIONS,
    }  # fmt: skip
    for name, schema in schemas.items():
        tables.write(schema, tables.from_rows(schema, getattr(shard, name)), f"{name}.tsv")
    inputs = {name: f"{name}.tsv" for name in schemas}
    outputs = {"table": "crops.tsv", "screened": "screened.tsv", "pictures": "crops"}
    cut_shard(protocol, **inputs, settings=settings, **outputs, without=without)
    return tables.read(tables.CROPS, "crops.tsv")


def test_out_of_fold_crops(shard):
    found = run(shard, "out_of_fold")
    assert list(found["crop_id"]) == ["image0-oof-000", "image1-oof-000", "image3-oof-000"]
    assert list(found["label"]) == ["malignant", "benign", "benign"]
    assert list(found["fold"]) == [0, 1, -1]
    assert list(found["threshold"]) == [0.3, 0.5, 0.7]
    assert set(found["origin"]) == {"detection"}
    first = found.iloc[0]
    assert (first["lesion_id"], first["detection_id"]) == ("lesion0", "image0-yolov6n-000")
    assert first["iou"] == pytest.approx(18 * 18 / (800 - 18 * 18))
    assert found["config_digest"].nunique() == 1


def test_a_fold_left_out_gives_no_crop_and_needs_no_threshold(shard):
    shard.thresholds.pop(0)  # of fold 0
    found = run(shard, "out_of_fold", without=0)
    assert list(found["crop_id"]) == ["image1-oof0-000", "image3-oof0-000"]
    assert set(tables.read(tables.SCREENED, "screened.tsv")["image_id"]) == {"image1", "image3"}


def test_crops_are_cut_from_masters_where_they_are_kept(shard):
    from_pictures = run(shard, "out_of_fold")
    Path("masters").mkdir()
    masters = {}
    for number in range(4):
        masters[f"image{number}"] = np.random.default_rng(9 + number).integers(0, 4096, (80, 60), dtype=np.uint16)
        cv2.imwrite(f"masters/image{number}.png", masters[f"image{number}"])
    found = run(shard, "out_of_fold")
    columns = ["crop_id", "label", "fold", "x1", "y1", "x2", "y2", "crop_x1", "crop_y1", "crop_x2", "crop_y2"]
    assert found[columns].equals(from_pictures[columns])
    for row in found.itertuples():
        crop = cv2.imread(row.png, cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(f"{row.image_id}.png", cv2.IMREAD_UNCHANGED)
        whole = spread(masters[row.image_id], breast_mask(picture.astype(np.uint16)))
        assert crop.dtype == np.uint16
        assert np.array_equal(
            crop, cut(whole, tuple(int(edge) for edge in (row.crop_x1, row.crop_y1, row.crop_x2, row.crop_y2)))
        )
        assert (crop % 257 != 0).any()  # no 8-bit grey
        # the classifier sees the full depth, 0..1
        assert grey_levels(crop[None]).max() == pytest.approx(crop.max() / 65535)


def test_crops_of_one_scale_where_the_spacing_is_known(shard):
    found = run(shard, "out_of_fold", SETTINGS | {"scale": {"side_mm": 12}})
    assert (found["crop_x2"] - found["crop_x1"]).tolist() == [30, 24, 24]  # unknown: 1.5 * 20 px; 12 mm / 0.5 mm
    assert found["config_digest"][0] != run(shard, "out_of_fold")["config_digest"][0]


def test_a_frame_on_the_nipple_is_dropped_with_its_reason_whatever_its_patient(shard):
    shard.detections += [
        detection(0, 5, 0.9, (22, 22, 42, 42), finding="nipple"),
        detection(1, 5, 0.9, (50, 70, 59, 79), finding="nipple"),
    ]
    assert list(run(shard, "out_of_fold")["image_id"]) == ["image3"]
    screened = tables.read(tables.SCREENED, "screened.tsv")
    reasons = dict(zip(screened["detection_id"], screened["reason"], strict=True))
    assert reasons["image0-yolov6n-000"] == reasons["image1-yolov6n-000"] == "nipple"
    assert reasons["image2-yolov6n-000"] == reasons["image3-yolov6n-000"] == ""
    assert "image1-yolov6n-001" not in reasons  # below its fold's threshold


def test_paper_crops(shard):
    shard.detections[0]["held_out"] = False
    found = run(shard, "paper")
    assert list(found["crop_id"]) == [
        "image0-paper-000",
        *[f"image1-paper-00{n}" for n in (0, 1)],
        *[f"image3-paper-00{n}" for n in (0, 1)],
    ]
    assert list(found["origin"]) == ["expert"] + ["detection"] * 4
    first = found.iloc[0]
    assert tuple(first[["x1", "y1", "x2", "y2"]]) == (20, 20, 40, 40)
    assert first["detection_id"] == first["model_digest"] == ""
    # the one model's threshold everywhere
    assert set(found["threshold"].dropna()) == {0.3}


@pytest.mark.parametrize("protocol", ["out_of_fold", "paper"])
def test_pictures_are_the_region_named_by_the_table(shard, protocol):
    for row in run(shard, protocol).itertuples():
        assert row.png == f"crops/{row.label}/{row.crop_id}.png"
        crop = cv2.imread(row.png, cv2.IMREAD_UNCHANGED)
        source = np.pad(cv2.imread(f"{row.image_id}.png", cv2.IMREAD_UNCHANGED), 50)
        x1, y1, x2, y2 = (int(edge) + 50 for edge in (row.crop_x1, row.crop_y1, row.crop_x2, row.crop_y2))
        assert crop.dtype == np.uint8
        assert np.array_equal(crop, source[y1:y2, x1:x2])


def test_out_of_fold_refuses_detections_by_models_that_saw_the_patient(shard):
    shard.detections[3]["held_out"] = False
    with pytest.raises(DataError, match="saw the patient"):
        run(shard, "out_of_fold")


def test_same_input_same_bytes(shard, tmp_path):
    run(shard, "out_of_fold")
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run(shard, "out_of_fold")
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first


def test_no_detection_gives_an_empty_table_and_empty_directories(shard, tmp_path):
    shard.detections = []
    assert len(run(shard, "out_of_fold")) == 0
    assert {path.name for path in (tmp_path / "crops").iterdir()} == {"malignant", "benign"}


def test_unreadable_picture_is_named(shard, tmp_path):
    (tmp_path / "image1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image1\.png"):
        run(shard, "out_of_fold")
