"""A detection's anchor is found again and explained in the picture's geometry, by shard."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from mammoflow import tables
from mammoflow.detect.infer import detect_images
from mammoflow.detect.model import Detector, load_detector, save_detector
from mammoflow.detect.preprocess import letterbox
from mammoflow.detect.tiles import tile_grid, tile_of
from mammoflow.errors import DataError, ModelError
from mammoflow.explain import operations, trials
from mammoflow.explain.detections import (
    ExplainedPicture,
    choose_detections,
    explain_detection,
    explain_detections_shard,
)
from mammoflow.explain.engine import Explainer, Replay
from mammoflow.explain.maps import relevance_in_box
from mammoflow.geometry import Transform

SETTINGS = {"composite": "epsilon", "gamma": 0.1, "detections_per_shard": 3, "box_edges": False}
HEIGHT, WIDTH, STORED = 96, 60, 4  # picture, and stored pixels a picture pixel


@pytest.fixture
def models(tmp_path, network):
    """Two fold models of yolov6n; the frames of the first are four cells wide, those of the second two."""
    paths = []
    for fold in range(2):
        model = network("yolov6n", torch.float32)[0]
        torch.manual_seed(fold)
        for branch in model.model[-1].cv3:
            torch.nn.init.normal_(branch[-1].weight, std=0.3)
            torch.nn.init.constant_(branch[-1].bias, -1.0)
        for branch in model.model[-1].cv2:
            torch.nn.init.normal_(branch[-1].weight, std=0.1)
            branch[-1].bias.data.view(4, -1)[:, 2 - fold] = 9.0  # of the distances 0..15 cells to each edge
        header = {"architecture": "yolov6n", "classes": ["lesion", "nipple"], "image_size": 64, "fold": fold}
        paths.append(tmp_path / f"fold{fold}.safetensors")
        save_detector(paths[-1], model.state_dict(), header)
    return paths


@pytest.fixture
def picture():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    grey = 40 * np.random.default_rng(3).random((HEIGHT, WIDTH)) + 180 * np.exp(-((y - 60) ** 2 + (x - 25) ** 2) / 60)
    return grey.astype(np.uint8)


def image_row(path, image_id="i1"):
    transform = Transform.resize(WIDTH * STORED, HEIGHT * STORED, WIDTH, HEIGHT)
    nothing = {name: float("nan") for name in ("breast_x1", "breast_y1", "breast_x2", "breast_y2")}
    return {
        "dataset": "hospital",
        "image_id": image_id,
        "patient_key": "p1",
        "status": "ok",
        "reason": "",
        "png": str(path),
        "train_png": str(path),
        "width": WIDTH * STORED,
        "height": HEIGHT * STORED,
        "transform": transform.to_json(),
        **nothing,
        "window": "none",
        "pixel_digest": "0" * 16,
        **{f"grey_p{percentile}": 1.0 for percentile in ("05", "50", "95")},
        "flag": "",
        "labels_masked": False,
    }


def detection_row(number, box, score, digest, finding="lesion", fold=1, image_id="i1"):
    return {
        "dataset": "hospital",
        "image_id": image_id,
        "patient_key": "p1",
        "detection_id": f"{image_id}-yolov6n-{number:03d}",
        "detector": "yolov6n",
        "model_fold": fold,
        "held_out": True,
        "finding": finding,
        "confidence": score,
        "score": score / 10,  # weighed: what the network said is the confidence
        **dict(zip(("x1", "y1", "x2", "y2"), np.asarray(box) * STORED, strict=True)),
        "model_digest": digest,
    }


def header_of(detector):
    names = ("architecture", "image_size", "fold", "tiles")
    return {name: getattr(detector, name) for name in names} | {"classes": list(detector.classes)}


def run(tmp_path, models, detections, picture, **changes):
    cv2.imwrite(str(tmp_path / "i1.png"), picture)
    row = image_row(tmp_path / "i1.png") | changes
    tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, [row]), tmp_path / "i.tsv")
    tables.write(tables.DETECTIONS, tables.from_rows(tables.DETECTIONS, detections), tmp_path / "d.tsv")
    outputs = {"table": tmp_path / "r.tsv", "maps": tmp_path / "r.npz"}
    settings = SETTINGS | changes
    explain_detections_shard(models, tmp_path / "d.tsv", tmp_path / "i.tsv", settings, "cpu", 1, **outputs)
    with np.load(outputs["maps"]) as container:
        return tables.read(tables.MAPS, outputs["table"]), {name: container[name] for name in container}


def test_a_shards_best_lesions_are_explained(tmp_path, models, picture, monkeypatch):
    passes, original = [], Replay._explanations
    monkeypatch.setattr(
        Replay, "_explanations", lambda self, values, *rest: passes.append(len(values)) or original(self, values, *rest)
    )
    detector = load_detector(models[1])
    frames = detect_images(detector, [picture], 0.05, 0.4)[0]
    rows = [
        detection_row(number, box, score, detector.digest, detector.classes[category])
        for number, (box, score, category) in enumerate(zip(frames.boxes, frames.scores, frames.classes, strict=True))
    ]
    assert sum(row["finding"] == "lesion" for row in rows) > 3

    found, maps = run(tmp_path, models, rows, picture)

    assert passes == [3]  # all detections of the image at once
    best = sorted((row for row in rows if row["finding"] == "lesion"), key=lambda row: -row["score"])[:3]
    assert sorted(found["explained_id"]) == sorted(row["detection_id"] for row in best)
    assert sorted(maps) == sorted(found["map_id"])
    scores = {row["detection_id"]: row["confidence"] for row in rows}
    for row in found.itertuples():
        relevance = maps[row.map_id]
        assert relevance.shape == (HEIGHT, WIDTH)
        assert relevance.dtype == np.float32
        assert row.model_fold == 1
        assert row.score == pytest.approx(scores[row.explained_id], abs=1e-4)
        # the class bias is -1 on every level: logit = what is explained - 1
        assert row.explained_value == pytest.approx(np.log(row.score / (1 - row.score)) + 1, abs=1e-3)
        assert row.conservation_error < 1e-4  # messages are float32
        assert 0 <= row.relevance_on_padding < 1
        assert [row.x1, row.y1, row.x2, row.y2] == [0, 0, WIDTH * STORED, HEIGHT * STORED]
        assert 0 < row.box_area_share < 1
        assert 0.85 < row.blob_in_box <= 1


def test_the_map_of_a_mirrored_picture_lies_as_the_stored_image(tmp_path, models, picture):
    detector = load_detector(models[1])
    frames = detect_images(detector, [picture], 0.05, 0.4)[0]
    best = next(number for number, category in enumerate(frames.classes) if category == 0)
    box, score = frames.boxes[best], frames.scores[best]
    straight, maps = run(tmp_path, models, [detection_row(0, box, score, detector.digest)], picture)
    transform = Transform.resize(WIDTH * STORED, HEIGHT * STORED, WIDTH, HEIGHT).mirrored()
    turned = [WIDTH - box[2], box[1], WIDTH - box[0], box[3]]
    again, mirrored = run(
        tmp_path, models, [detection_row(0, turned, score, detector.digest)], picture, transform=transform.to_json()
    )
    (name,) = maps
    assert np.array_equal(mirrored[name], maps[name][:, ::-1])
    for column in ("score", "relevance_in_box", "box_area_share", "x1", "x2"):
        assert again[column].tolist() == pytest.approx(straight[column].tolist(), abs=1e-6)


def test_an_ensembles_detection_is_explained_by_the_model_that_agrees_best(tmp_path, models, picture):
    first, second = (load_detector(path) for path in models)
    frames = detect_images(second, [picture], 0.01, 0.4)[0]
    box = frames.boxes[frames.classes == 0][0]
    near = detect_images(first, [picture], 1e-4, 1.0)[0]
    assert box.tolist() not in near.boxes.tolist()
    row = detection_row(0, box, 0.5, f"{first.digest}+{second.digest}", fold=-1)
    found, _ = run(tmp_path, models, [row], picture)
    assert found["model_fold"].tolist() == [1]


def test_a_detection_of_members_is_explained_by_one_of_them_and_keeps_their_fold(tmp_path, models, picture):
    second = load_detector(models[1])
    member = tmp_path / "fold0-1.safetensors"
    save_detector(member, second.model.state_dict(), header_of(second) | {"fold": 0})
    frames = detect_images(second, [picture], 0.01, 0.4)[0]
    box = frames.boxes[frames.classes == 0][0]
    digest = f"{load_detector(models[0]).digest}+{load_detector(member).digest}"
    found, _ = run(tmp_path, [models[0], member], [detection_row(0, box, 0.5, digest, fold=0)], picture)
    assert found["model_fold"].tolist() == [0]
    assert "-fold0" in found["map_id"].item()


def test_trials_find_anchors_by_what_the_network_said(tmp_path, models, picture, monkeypatch):
    detector, asked, original = load_detector(models[1]), [], ExplainedPicture.find
    monkeypatch.setattr(ExplainedPicture, "find", lambda self, *what: asked.append(what[-1]) or original(self, *what))
    cv2.imwrite(str(tmp_path / "i1.png"), picture)
    row = detection_row(0, [10, 20, 40, 60], 0.5, detector.digest) | image_row(tmp_path / "i1.png")
    other = row | {"model_digest": "0" * 16, "detection_id": "other"}
    trials._detector_cases(detector, pd.DataFrame([row, other]))
    assert asked == [0.5, None]


def test_no_detection_gives_empty_outputs(tmp_path, models, picture):
    found, maps = run(tmp_path, models, [], picture)
    assert len(found) == 0
    assert maps == {}


def test_edges_of_a_frame_are_explained_when_asked(tmp_path, models, picture):
    detector = load_detector(models[1])
    frames = detect_images(detector, [picture], 0.05, 0.4)[0]
    row = detection_row(0, frames.boxes[0], frames.scores[0], detector.digest)
    found, maps = run(tmp_path, models, [row], picture, box_edges=True)
    assert sorted(found["part"]) == ["bottom", "left", "right", "score", "top"]
    assert sorted(maps) == sorted(found["map_id"])
    assert (found["conservation_error"] < 1e-3).all()


def test_an_edge_that_cant_be_explained_takes_nothing_from_the_other_maps(tmp_path, models, picture, monkeypatch):
    def edge(self, anchor, part):
        raise ModelError("no distributions")

    detector = load_detector(models[1])
    frames = detect_images(detector, [picture], 0.05, 0.4)[0]
    row = detection_row(0, frames.boxes[0], frames.scores[0], detector.digest)
    monkeypatch.setattr(ExplainedPicture, "_edge", edge)
    found, maps = run(tmp_path, models, [row], picture, box_edges=True)
    assert list(maps) == found["map_id"][found["part"] == "score"].tolist()
    assert (found["reason"][found["part"] != "score"] == "no distributions").all()
    assert len(found) == 5


@pytest.mark.parametrize(("edge", "number"), [("left", 0), ("top", 1), ("right", 2), ("bottom", 3)])
def test_an_edges_map_is_the_first_order_change_of_its_distance(models, picture, edge, number):
    detector = load_detector(models[1])
    x, _ = letterbox(picture, 64)
    explainer = Explainer(detector.model, "gradient_input")
    seen = ExplainedPicture(detector, explainer, picture)
    anchor = seen.find([10, 40, 40, 80], "lesion")
    explained = seen.explain(anchor, edge)
    raw = detector.model(x)[1]["boxes"][0, 16 * number : 16 * (number + 1), anchor.index].detach().requires_grad_()
    (raw.softmax(0) * torch.arange(16)).sum().backward()
    level = int(np.searchsorted(np.cumsum([64, 16, 4]), anchor.index, side="right"))
    bias = detector.model.model[-1].cv2[level][-1].bias[16 * number : 16 * (number + 1)]
    assert explained.value == pytest.approx(float((raw.grad * (raw.detach() - bias)).sum()), rel=1e-3, abs=1e-4)


def test_detections_of_another_model_are_refused(tmp_path, models, picture):
    with pytest.raises(DataError, match=r"i1-yolov6n-000 was made by model 0{16}"):
        run(tmp_path, models, [detection_row(0, [5, 5, 20, 20], 0.5, "0" * 16)], picture)


def test_weights_that_dont_fit_their_architecture_are_refused(tmp_path, models, picture, network):
    header = {"architecture": "yolov5n", "classes": ["lesion", "nipple"], "image_size": 64, "fold": 1}
    save_detector(models[1], network("yolov6n", torch.float32)[0].state_dict(), header)
    with pytest.raises(ModelError, match=r"fold1\.safetensors: not a detector"):
        run(tmp_path, models, [detection_row(0, [5, 5, 20, 20], 0.5, "0" * 16)], picture)


def test_a_detection_outside_its_picture_is_refused(models, picture):
    with pytest.raises(DataError, match="outside its picture of 60 x 96"):
        explain_detection(load_detector(models[0]), picture, [70, 10, 90, 30])
    with pytest.raises(DataError, match="finding 'mass' is no class"):
        explain_detection(load_detector(models[0]), picture, [7, 10, 30, 30], "mass")


def test_a_picture_of_one_grey_level_is_explained(models):
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    explained = explain_detection(load_detector(models[0]), flat, [10, 10, 40, 50])
    assert np.isfinite(explained.relevance).all()


def test_anchors_of_every_level_lose_their_own_bias(models, picture):
    detector = load_detector(models[0])
    for level, branch in enumerate(detector.model.model[-1].cv3):
        torch.nn.init.constant_(branch[-1].bias, -1.0 - level)
    for side, level in ((6, 0), (30, 1), (60, 2)):
        explained = explain_detection(detector, picture, [0, 0, side, side])
        anchor = explained.anchor
        counts = np.cumsum([64, 16, 4])
        level = int(np.searchsorted(counts, anchor.index, side="right"))
        assert explained.value == pytest.approx(np.log(anchor.score / (1 - anchor.score)) + 1 + level, abs=1e-3)


def test_only_lesions_are_chosen_and_0_means_all():
    rows = [detection_row(n, [1, 1, 5, 5], 0.1 * n, "a", "nipple" if n == 4 else "lesion") for n in range(6)]
    table = tables.from_rows(tables.DETECTIONS, rows)
    assert choose_detections(table, 2)["confidence"].tolist() == pytest.approx([0.3, 0.5])
    assert len(choose_detections(table, 0)) == 5


def test_a_detector_of_another_family_is_refused_before_it_runs(picture, monkeypatch):
    detector = Detector(torch.nn.Conv2d(1, 6, 16, 16).eval(), "frcnn", ("lesion", "nipple"), 128, 0, "0" * 16)
    monkeypatch.setattr(Explainer, "replay", None)
    with pytest.raises(ModelError, match=r"frcnn can't be explained.*yolov5"):
        explain_detection(detector, picture, [1, 1, 9, 9])


def test_what_has_no_rule_gets_its_row_with_the_reason(tmp_path, models, picture, monkeypatch):
    detector = load_detector(models[1])
    frames = detect_images(detector, [picture], 0.05, 0.4)[0]
    lesions = [
        (box, score) for box, score, kind in zip(frames.boxes, frames.scores, frames.classes, strict=True) if not kind
    ]
    rows = [detection_row(number, *lesion, detector.digest) for number, lesion in enumerate(lesions[:2])]
    monkeypatch.delitem(operations._HANDLERS, "relu")
    found, maps = run(tmp_path, models, rows, picture)
    assert maps == {}
    assert sorted(found["explained_id"]) == [row["detection_id"] for row in rows]
    assert found["reason"].str.match(r"relevance can't pass operation 'relu_?' in model\.\S+ \(ReLU\)").all()
    assert found["explained_value"].isna().all()
    assert sorted(found["score"]) == pytest.approx(sorted(row["score"] for row in rows))
    assert found[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[0, 0, WIDTH * STORED, HEIGHT * STORED]] * 2
    assert found["frame_x1"].tolist() == pytest.approx([row["x1"] for row in rows])


def test_the_options_reach_the_engine(models, picture):
    detector = load_detector(models[0])
    maps = [explain_detection(detector, picture, [10, 40, 40, 80], composite=name) for name in ("epsilon", "zplus")]
    assert maps[0].value == pytest.approx(maps[1].value)
    assert not np.allclose(maps[0].relevance, maps[1].relevance)
    assert json.dumps(maps[0].anchor.__dict__) == json.dumps(maps[1].anchor.__dict__)


def test_a_detection_in_a_tile_is_explained_there_and_lies_in_the_whole_picture(models, picture):
    detector = load_detector(models[1])
    explainer = Explainer(detector.model)
    left, top, right, bottom = tile = (0, 32, 60, 96)
    part = np.ascontiguousarray(picture[top:bottom, left:right])
    frames = detect_images(detector, [part], 0.05, 0.4)[0]
    box, score = frames.boxes[0], frames.scores[0]
    finding = detector.classes[frames.classes[0]]
    alone = ExplainedPicture(detector, explainer, part)
    inside = ExplainedPicture(detector, explainer, picture, tile=tile)
    expected = alone.explain(alone.find(box, finding, score))
    found = inside.explain(inside.find(box + np.array([left, top, left, top]), finding, score))
    assert found.relevance.shape == picture.shape
    assert found.relevance[top:bottom, left:right] == pytest.approx(expected.relevance, abs=1e-7)
    assert np.abs(found.relevance[:top]).sum() == 0
    assert found.value == expected.value


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("tiles", [None, {"size": 64, "overlap": 0.2}])
def test_the_map_of_a_cropped_mirrored_tiled_picture_lies_in_the_stored_image(
    tmp_path, models, picture, tiles, mirrored
):
    """A stored image of which the training picture shows a part from (100, 40) on, turned around, seen in tiles."""
    detector = replace(load_detector(models[1]), tiles=tiles)
    save_detector(models[1], detector.model.state_dict(), header_of(detector))
    detector = load_detector(models[1])
    part = (100, 40, 100 + WIDTH * STORED, 40 + HEIGHT * STORED)
    place = Transform.window(*part, WIDTH, HEIGHT)
    place = place.mirrored() if mirrored else place
    frames = detect_images(detector, [picture], 0.05, 0.4)[0]
    box, score = next(pair for *pair, kind in zip(frames.boxes, frames.scores, frames.classes, strict=True) if not kind)
    row = detection_row(0, [0, 0, 1, 1], score, detector.digest)
    row |= dict(zip(("x1", "y1", "x2", "y2"), place.backward(box)[0], strict=True))

    found, maps = run(tmp_path, models, [row], picture, transform=place.to_json())

    (record,) = found.itertuples()
    assert [record.x1, record.y1, record.x2, record.y2] == pytest.approx(part)
    (left, top, right, bottom) = tile_of(box, tile_grid(WIDTH, HEIGHT, tiles))
    alone = explain_detection(
        replace(detector, tiles=None), np.ascontiguousarray(picture[top:bottom, left:right]),
        box - np.array([left, top, left, top]), score=score, composite="epsilon",
    )  # fmt: skip
    expected = np.zeros((HEIGHT, WIDTH))
    expected[top:bottom, left:right] = alone.relevance
    expected = expected[:, ::-1] if mirrored else expected
    assert record.explained_value == pytest.approx(alone.value)
    np.testing.assert_allclose(maps[record.map_id], expected, atol=1e-6 * np.abs(expected).max())
    # the share in the frame, by hand from the stored image's pixels
    inside = (place.mirrored() if mirrored else place).forward(place.backward(box))
    assert record.relevance_in_box == pytest.approx(relevance_in_box(maps[record.map_id], inside)[0], rel=1e-5)
