import cv2
import numpy as np
import pytest

from mammoflow import tables
from mammoflow.anatomy import locate, locate_shard
from mammoflow.anatomy.nipple import chest_wall_side, outline_nipple
from mammoflow.anatomy.quadrant import half, match, quadrant
from mammoflow.errors import DataError
from mammoflow.geometry import Transform

SETTINGS = {"min_nipple_score": 0.1, "match_mm": 15}
WIDTH, HEIGHT, SPACING = 400, 600, 0.2


def index_row(image_id, laterality="L", view="MLO", patient="p1", study="s1", spacing=SPACING):
    return {
        "dataset": "hospital", "image_id": image_id, "status": "ok", "reason": "", "patient_key": patient,
        "study_key": study, "directory_label": "positive", "image_laterality": laterality, "view_position": view,
        "rows": HEIGHT, "columns": WIDTH, "bits_stored": 12, "photometric_interpretation": "MONOCHROME2",
        "presentation_intent": "FOR PRESENTATION", "machine": "alpha", "transfer_syntax_uid": "1.2",
        "imager_pixel_spacing": spacing, "size": 1, "mtime_ns": 1, "kind": "", "content_digest": "",
    }  # fmt: skip


def image_row(image_id, png="", breast=(np.nan,) * 4, patient="p1"):
    return {
        "dataset": "hospital", "image_id": image_id, "patient_key": patient, "status": "ok", "reason": "",
        "png": str(png), "train_png": "", "width": WIDTH, "height": HEIGHT,
        "transform": Transform.resize(WIDTH, HEIGHT, 40, 60).to_json(),
        **dict(zip(("breast_x1", "breast_y1", "breast_x2", "breast_y2"), breast, strict=True)),
        "window": "", "pixel_digest": "", "grey_p05": 1, "grey_p50": 2, "grey_p95": 3,
        "flag": "", "labels_masked": False,
    }  # fmt: skip


def detection(image_id, center, finding="lesion", score=0.8, fold=0, number=0, patient="p1"):
    x, y = center
    return {
        "dataset": "hospital", "image_id": image_id, "patient_key": patient,
        "detection_id": f"{image_id}-{finding}-{number}", "detector": "yolov6n", "model_fold": fold, "held_out": True,
        "finding": finding, "confidence": score, "score": score, "x1": x - 10, "y1": y - 20, "x2": x + 10, "y2": y + 20,
        "model_digest": "0" * 16,
    }  # fmt: skip


def thresholds(*rows):
    return tables.from_rows(
        tables.THRESHOLDS,
        [
            {"detector": "yolov6n", "fold": fold, "threshold": threshold, "false_frames_per_image": 0.5,
             "sensitivity": 0.9, "images": 10, "lesions": 5}
            for fold, threshold in rows or [(0, 0.3)]
        ],
    )  # fmt: skip


def run(detections, index, images=None, settings=SETTINGS, asked=()):
    images = images or [image_row(row["image_id"]) for row in index]
    return locate(
        tables.from_rows(tables.DETECTIONS, detections),
        thresholds(*asked),
        tables.from_rows(tables.IMAGES, images),
        tables.from_rows(tables.INDEX, index),
        settings,
    )


@pytest.mark.parametrize(
    ("view", "above", "below"),
    [
        ("MLO", "upper", "lower"),
        ("ML", "upper", "lower"),
        ("LM", "upper", "lower"),
        ("CC", "outer", "inner"),
        ("XCCL", "outer", "inner"),
        ("SIO", "indeterminate", "indeterminate"),
        ("", "indeterminate", "indeterminate"),
    ],
)
def test_half_by_view(view, above, below):
    assert half(view, nipple_y=300, center_y=200) == above
    assert half(view, nipple_y=300, center_y=400) == below
    assert half(view, nipple_y=300, center_y=300) == "indeterminate"
    assert half(view, nipple_y=float("nan"), center_y=200) == "indeterminate"


@pytest.mark.parametrize(
    ("halves", "expected"),
    [
        (("upper", "outer"), "upper_outer"),
        (("inner", "upper"), "upper_inner"),
        (("lower", "outer"), "lower_outer"),
        (("inner", "lower"), "lower_inner"),
        (("upper", "lower"), "indeterminate"),
        (("upper", "indeterminate"), "indeterminate"),
    ],
)
def test_quadrant_needs_both_kinds_of_half(halves, expected):
    assert quadrant(*halves) == expected


def test_match_takes_the_closest_pair_first_and_each_lesion_once():
    # 20-22 differ by 2, 30-22 by 8, 20-35 by 15, 30-35 by 5.
    assert match([20, 30], [22, 35], 15) == [(0, 0), (1, 1)]
    assert match([20, 30], [26], 15) == [(1, 0)]
    assert match([20], [36], 15) == []
    assert match([20], [35], 15) == [(0, 0)]
    assert match([float("nan")], [20], 15) == []


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize(
    ("mlo_y", "cc_y", "expected"),
    [(200, 250, "upper_outer"), (200, 350, "upper_inner"), (400, 250, "lower_outer"), (400, 350, "lower_inner")],
)
def test_quadrants_of_both_breasts_by_hand(laterality, mlo_y, cc_y, expected):
    nipple_x, lesion_x = (360, 260) if laterality == "L" else (40, 140)
    table = run(
        [
            detection("mlo", (nipple_x, 300), "nipple"),
            detection("mlo", (lesion_x, mlo_y)),
            detection("cc", (nipple_x, 300), "nipple"),
            detection("cc", (lesion_x, cc_y)),
        ],
        [index_row("mlo", laterality, "MLO"), index_row("cc", laterality, "CC")],
    ).set_index("image_id")
    # hypot(100, 100) * 0.2 mm = 28.28 mm; hypot(100, 50) * 0.2 mm = 22.36 mm; 5.9 mm apart.
    assert table.loc["mlo", "distance_mm"] == pytest.approx(28.284, abs=1e-3)
    assert table.loc["cc", "distance_mm"] == pytest.approx(22.361, abs=1e-3)
    assert list(table["quadrant"]) == [expected, expected]
    assert table.loc["mlo", "half"] == expected.split("_")[0]
    assert table.loc["cc", "half"] == expected.split("_")[1]
    assert set(table["nipple_source"]) == {"detector"}
    assert set(table["nipple_x"]) == {nipple_x}
    assert set(table["nipple_score"]) == {0.8}


def two_views(cc_x=260, **cc):
    return [
        detection("mlo", (360, 300), "nipple"),
        detection("mlo", (260, 200)),
        detection("cc", (360, 300), "nipple"),
        detection("cc", (cc_x, 250)),
    ], [index_row("mlo"), index_row("cc", **({"view": "CC"} | cc))]


@pytest.mark.parametrize(
    "other",
    [
        {"laterality": "R"},
        {"patient": "p2"},
        {"study": "s2"},
        {"view": "ML"},
        {"spacing": np.nan},
    ],
)
def test_lesion_of_another_breast_study_or_unknown_distance_is_no_match(other):
    detections, index = two_views(**other)
    if "patient" in other:
        detections = [row | {"patient_key": "p2"} if row["image_id"] == "cc" else row for row in detections]
    assert set(run(detections, index)["quadrant"]) == {"indeterminate"}


def test_lesions_too_far_apart_are_not_one():
    # 28.28 mm against hypot(200, 50) * 0.2 = 41.23 mm: 12.95 mm apart.
    detections, index = two_views(cc_x=160)
    assert set(run(detections, index)["quadrant"]) == {"upper_outer"}
    assert set(run(detections, index, settings=SETTINGS | {"match_mm": 12})["quadrant"]) == {"indeterminate"}


def test_unknown_laterality_gives_halves_but_no_quadrant():
    detections, _ = two_views()
    table = run(detections, [index_row("mlo", ""), index_row("cc", "", "CC")])
    assert set(table["half"]) == {"upper", "outer"}
    assert set(table["quadrant"]) == {"indeterminate"}


def test_only_lesions_at_their_folds_threshold_are_located():
    detections = [
        detection("mlo", (260, 200), score=0.3, number=0),
        detection("mlo", (260, 250), score=0.29, number=1),
        detection("mlo", (260, 350), score=0.29, fold=-1, number=2),
    ]
    table = run(detections, [index_row("mlo")], asked=[(0, 0.3), (-1, 0.2)])
    assert list(table["detection_id"]) == ["mlo-lesion-0", "mlo-lesion-2"]
    with pytest.raises(DataError, match="fold -1"):
        run(detections, [index_row("mlo")])


def test_weak_nipple_and_no_breast_leave_the_position_unknown():
    detections = [detection("mlo", (260, 200)), detection("mlo", (360, 300), "nipple", score=0.09)]
    row = run(detections, [index_row("mlo")]).iloc[0]
    assert (row["nipple_source"], row["half"], row["quadrant"]) == ("unknown", "indeterminate", "indeterminate")
    assert np.isnan(row["distance_mm"])


def breast_picture(side, tip_y=320, depth=250):
    """Half an ellipse of tissue with `depth` at row `tip_y`, a faint gradient as air, a bright label in a corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float) + 0.5
    inside = (x / depth) ** 2 + ((y - tip_y) / 220) ** 2 < 1
    picture = np.where(inside, 140, 3 + x / 100).astype(np.uint8)
    picture[20:50, 340:390] = 255
    return picture if side == "left" else picture[:, ::-1].copy()


@pytest.mark.parametrize(
    ("side", "x", "breast"), [("left", 250, (0, 100, 250, 540)), ("right", 150, (150, 100, 400, 540))]
)
def test_nipple_of_the_outline_is_the_tip(side, x, breast):
    assert chest_wall_side(np.array(breast, float), WIDTH) == side
    nipple = outline_nipple(breast_picture(side), np.array(breast, float))
    assert nipple.source == "outline"
    assert nipple.x == x
    assert nipple.y == pytest.approx(320, abs=1)


def test_breast_that_meets_both_borders_has_no_tip():
    assert chest_wall_side(np.array([0.0, 0, 400, 600]), 400) == ""
    assert outline_nipple(breast_picture("left"), np.array([0.0, 0, 400, 600])).source == "unknown"


def test_outline_stands_in_for_a_weak_nipple(tmp_path):
    cv2.imwrite(str(tmp_path / "mlo.png"), breast_picture("left"))
    detections = [detection("mlo", (100, 200)), detection("mlo", (10, 10), "nipple", score=0.05)]
    images = [image_row("mlo", tmp_path / "mlo.png", (0, 100, 250, 540))]
    row = run(detections, [index_row("mlo")], images).iloc[0]
    assert row["nipple_source"] == "outline"
    assert row["half"] == "upper"
    assert row["distance_mm"] == pytest.approx(0.2 * np.hypot(150, 120), abs=0.2)
    with pytest.raises(DataError, match=r"none\.png"):
        run(detections, [index_row("mlo")], [image_row("mlo", "none.png", (0, 100, 250, 540))])


def test_detection_without_an_image_or_index_row_is_named():
    detections = [detection("mlo", (100, 200))]
    with pytest.raises(DataError, match="image mlo has detections but no picture"):
        run(detections, [index_row("mlo")], [image_row("other")])
    with pytest.raises(DataError, match="image mlo has detections but no row in the index"):
        run(detections, [index_row("other")], [image_row("mlo")])


def test_shard_is_read_and_written(tmp_path):
    detections, index = two_views()
    for name, schema, rows in (
        ("detections", tables.DETECTIONS, detections),
        ("images", tables.IMAGES, [image_row("mlo"), image_row("cc")]),
        ("index", tables.INDEX, [*index, index_row("elsewhere")]),
        ("none", tables.DETECTIONS, []),
    ):
        tables.write(schema, tables.from_rows(schema, rows), tmp_path / f"{name}.tsv")
    tables.write(tables.THRESHOLDS, thresholds(), tmp_path / "thresholds.tsv")
    for name, count in (("detections", 2), ("none", 0)):
        paths = [tmp_path / f"{table}.tsv" for table in (name, "thresholds", "images", "index")]
        locate_shard(*paths, SETTINGS, tmp_path / "anatomy.tsv")
        assert len(tables.read(tables.ANATOMY, tmp_path / "anatomy.tsv")) == count
