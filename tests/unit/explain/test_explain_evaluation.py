"""Maps beside the truth: shares by hand, what is flagged, and that nothing gives nothing."""

import cv2
import numpy as np
import pytest

from mammoflow import tables
from mammoflow.errors import DataError
from mammoflow.explain.evaluation import evaluate
from mammoflow.explain.maps import RelevanceMap, map_row, row_without_map, write_maps
from mammoflow.geometry import Transform
from mammoflow.masks import to_runs

SIDE, STORED = 100, 200  # training picture and stored image


def blank(schema, **values):
    empty = {
        name: "" if str(column.dtype).startswith("str") else float("nan") for name, column in schema.columns.items()
    }
    zeros = {name: 0 for name, column in schema.columns.items() if str(column.dtype) == "int64"}
    return empty | zeros | {"dataset": "hospital", "image_id": "i1"} | values


@pytest.fixture
def study(tmp_path):
    """Function that evaluates maps given as {map_id: (kind, frame, region, array)}."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    picture[:, :60] = 100
    cv2.imwrite(str(tmp_path / "train.png"), picture)
    cv2.imwrite(str(tmp_path / "full.png"), np.kron(picture, np.ones((2, 2), np.uint8)))
    image = blank(
        tables.IMAGES, patient_key="p1", status="ok", png=str(tmp_path / "full.png"),
        train_png=str(tmp_path / "train.png"), width=STORED, height=STORED,
        transform=Transform.resize(STORED, STORED, SIDE, SIDE).to_json(),
        breast_x1=0, breast_y1=0, breast_x2=120, breast_y2=200, grey_p05=100.0, grey_p50=100.0, grey_p95=100.0,
        flag="", labels_masked=False,
    )  # fmt: skip
    index = blank(
        tables.INDEX, status="ok", directory_label="positive", photometric_interpretation="MONOCHROME2",
        machine="alpha", imager_pixel_spacing=0.5,
    )  # fmt: skip
    lesion = blank(
        tables.LESIONS, lesion_id="i1-0", finding="lesion", pathology="malignant", lesion_type="calcifications",
        x1=40, y1=40, x2=60, y2=60, source="table", expert=True,
    )  # fmt: skip
    mask = np.zeros((20, 20), bool)
    mask[:10, :10] = True
    runs = blank(tables.MASKS, region="lesion", x1=40, y1=40, x2=60, y2=60, runs=to_runs(mask))
    muscle = blank(tables.MASKS, region="pectoral", x1=0, y1=0, x2=20, y2=20, runs=to_runs(np.ones((20, 20), bool)))

    def run(maps, masks=(runs, muscle), mirrored=False):
        if mirrored:
            cv2.imwrite(str(tmp_path / "train.png"), np.ascontiguousarray(picture[:, ::-1]))
            image["transform"] = Transform.resize(STORED, STORED, SIDE, SIDE).mirrored().to_json()
        for schema, rows, name in (
            (tables.IMAGES, [image], "images"), (tables.INDEX, [index], "index"),
            (tables.LESIONS, [lesion], "truth"), (tables.MASKS, list(masks), "masks"),
        ):  # fmt: skip
            tables.write(schema, tables.from_rows(schema, rows), tmp_path / f"{name}.tsv")
        pairs = []
        for map_id, (kind, frame, region, array) in maps.items():
            what = blank(
                tables.MAPS, map_id=map_id, kind=kind, part="score", explained_id="d1", score=0.5, model_fold=0
            )
            known = {name: what[name] for name in list(tables.MAPS.columns)[:11] if name in what}
            if array is None:
                pairs.append((row_without_map("no rule", frame, region, **known), None))
                continue
            explained = RelevanceMap(array.astype(np.float32), 1.0, 0.0, 0.0)
            pairs.append((map_row(explained, frame, region, **known), explained.relevance))
        write_maps(pairs, tmp_path / "maps.tsv", tmp_path / "maps.npz")
        evaluate(
            [tmp_path / "maps.tsv"], [tmp_path / "maps.npz"], [tmp_path / "images.tsv"], tmp_path / "index.tsv",
            tmp_path / "truth.tsv", tmp_path / "masks.tsv", 0.3, True,
            tmp_path / "detections.tsv", tmp_path / "crops.tsv", tmp_path / "overlays",
        )  # fmt: skip
        read = [tables.read(tables.RELEVANCE, tmp_path / f"{kind}.tsv") for kind in ("detections", "crops")]
        return [table.set_index("map_id") for table in read]

    return run


WHOLE = [0, 0, STORED, STORED]


def pixels(**values):
    """Map of the training picture's size with `y_x=value` pixels."""
    found = np.zeros((SIDE, SIDE))
    for place, value in values.items():
        y, x = map(int, place.removeprefix("at").split("_"))
        found[y, x] = value
    return found


def test_shares_of_a_detections_map_by_hand(study):
    # one unit each: on the lesion's mask, in its box but not on its mask, on muscle, on the border; four in the air
    array = pixels(at22_22=1, at28_28=-1, at5_5=1, at50_59=-1, at50_80=4)
    detections, crops = study({"m1": ("detection", [38, 38, 60, 60], WHOLE, array)})
    row = detections.loc["m1"]
    assert len(crops) == 0
    assert row["lesion_type"] == "calcifications"
    assert row["relevance_in_box"] == pytest.approx(2 / 8)
    assert row["on_lesion"] == pytest.approx(1 / 8)
    assert row["area_lesion"] == pytest.approx(25 / 1e4)
    assert row["on_pectoral"] == pytest.approx(1 / 8)
    assert row["on_border"] == pytest.approx(1 / 8)
    assert row["area_border"] == pytest.approx(0.02)
    assert row["on_outside"] == pytest.approx(4 / 8)
    assert row["area_outside"] == pytest.approx(0.4)
    assert row["on_label"] == 0
    assert row["flag"] == ""  # half isn't more than half
    assert 0.1 < row["blob_on_lesion"] < 0.4
    assert cv2.imread(row["overlay_png"]) is not None


def test_a_mirrored_training_picture_changes_no_figure_and_no_overlay(study):
    maps = {"m1": ("detection", [38, 38, 60, 60], WHOLE, pixels(at22_22=1, at28_28=-1, at5_5=1, at50_59=-1, at50_80=4))}
    plain = study(maps)[0].loc["m1"]
    drawn = cv2.imread(plain["overlay_png"])
    mirrored = study(maps, mirrored=True)[0].loc["m1"]
    assert mirrored.to_dict() == pytest.approx(plain.to_dict(), nan_ok=True)
    assert (cv2.imread(mirrored["overlay_png"]) == drawn).all()


def test_relevance_in_the_air_is_flagged_and_none_is_a_row_with_its_reason(study):
    detections, _ = study(
        {
            "air": ("detection", [100, 100, 120, 120], WHOLE, pixels(at50_80=4, at50_50=1)),
            "none": ("detection", [100, 100, 120, 120], WHOLE, pixels()),
        }
    )
    assert detections["flag"].to_dict() == {"air": "outside_breast", "none": "no_relevance"}
    assert (detections["lesion_type"] == "").all()
    assert detections["on_lesion"].isna().all()
    assert detections["blob_on_lesion"].isna().all()
    assert np.isnan(detections.loc["none", "on_outside"])


def test_a_crop_that_reaches_beyond_its_image_has_that_part_outside(study):
    array = np.ones((40, 40))
    _, crops = study({"c1": ("crop", [0, 40, 20, 60], [-20, 30, 20, 70], array)})
    assert crops.loc["c1", "on_outside"] == pytest.approx(0.5)
    assert crops.loc["c1", "area_outside"] == pytest.approx(0.5)


def test_without_masks_a_lesion_is_its_frame_and_muscle_is_unknown(study):
    detections, _ = study({"m1": ("detection", [40, 40, 60, 60], WHOLE, pixels(at22_22=1, at28_28=-1))}, masks=())
    assert detections.loc["m1", "on_lesion"] == 1
    assert detections.loc["m1", "area_lesion"] == pytest.approx(0.01)
    assert np.isnan(detections.loc["m1", "on_pectoral"])


def test_what_has_no_map_keeps_its_row_and_its_reason(study):
    detections, _ = study({"m1": ("detection", [40, 40, 60, 60], WHOLE, None)})
    row = detections.loc["m1"]
    assert (row["flag"], row["reason"], row["overlay_png"]) == ("not_explained", "no rule", "")
    assert row[["on_lesion", "on_outside", "blob_on_lesion"]].isna().all()
    assert row["frame_x1"] == 40


def test_no_map_gives_empty_tables(study):
    detections, crops = study({})
    assert len(detections) == len(crops) == 0


def test_maps_of_unknown_images_are_refused(study, monkeypatch):
    maps = {"m1": ("detection", [40, 40, 60, 60], WHOLE, pixels())}
    study(maps)
    read = tables.read_all

    def without(schema, paths):
        table = read(schema, paths)
        return table.iloc[:0] if schema is tables.IMAGES else table

    monkeypatch.setattr(tables, "read_all", without)
    with pytest.raises(DataError, match="image i1 isn't in the images' tables"):
        study(maps)
