"""Crops are chosen from both labels and both outcomes, explained in batches, in their own geometry."""

import cv2
import numpy as np
import pytest
import torch

from mammoflow import tables
from mammoflow.classify.model import CLASSES, build, load_classifier, predict, save_classifier
from mammoflow.errors import DataError
from mammoflow.explain import operations
from mammoflow.explain.crops import choose_crops, explain_batch, explain_crop, explain_crops
from mammoflow.explain.engine import Explainer

ARCHITECTURE, PIXELS = "vit_tiny_patch16_224", 32
SETTINGS = {"composite": "epsilon", "gamma": 0.1, "crops_per_fold": 3}


@pytest.fixture
def models(tmp_path):
    paths = []
    for fold in range(2):
        torch.manual_seed(fold)
        record = {"architecture": ARCHITECTURE, "crop_size": PIXELS, "classes": list(CLASSES), "fold": fold}
        paths.append(tmp_path / f"fold{fold}.safetensors")
        save_classifier(paths[-1], build(ARCHITECTURE, PIXELS), record)
    return paths


def crop_picture(seed, side=50):
    return np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)


def prediction(number, label, probability, fold=0, model_fold=0, digest="a"):
    return {
        "dataset": "hospital",
        "crop_id": f"c{number}",
        "image_id": "i1",
        "patient_key": "p1",
        "fold": fold,
        "protocol": "out_of_fold",
        "classifier": ARCHITECTURE,
        "label": label,
        "probability": probability,
        "calibrated": probability,
        "masked": 0.5,
        "model_fold": model_fold,
        "model_digest": digest,
    }


def crop(tmp_path, number, label, fold=0):
    path = tmp_path / f"c{number}.png"
    cv2.imwrite(str(path), crop_picture(number))
    edges = dict(zip(("x1", "y1", "x2", "y2"), (20.0, 30.0, 45.0, 55.0), strict=True))
    region = {"crop_x1": 10.0, "crop_y1": 20.0, "crop_x2": 60.0, "crop_y2": 70.0}
    return {
        "dataset": "hospital",
        "crop_id": f"c{number}",
        "image_id": "i1",
        "patient_key": "p1",
        "fold": fold,
        "protocol": "out_of_fold",
        "label": label,
        "origin": "detection",
        "detection_id": "d1",
        "lesion_id": "",
        "iou": float("nan"),
        "score": 0.5,
        "threshold": 0.1,
        **edges,
        **region,
        "png": str(path),
        "model_digest": "a",
        "config_digest": "b",
    }


def image():
    columns = tables.IMAGES.columns
    row = {name: "" if str(column.dtype).startswith("str") else float("nan") for name, column in columns.items()}
    return row | {"dataset": "hospital", "image_id": "i1", "status": "ok", "width": 60, "height": 65}


def run(tmp_path, models, predictions, crops):
    tables.write(tables.PREDICTIONS, tables.from_rows(tables.PREDICTIONS, predictions), tmp_path / "p.tsv")
    tables.write(tables.CROPS, tables.from_rows(tables.CROPS, crops), tmp_path / "c.tsv")
    tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, [image()]), tmp_path / "i.tsv")
    outputs = {"table": tmp_path / "r.tsv", "maps": tmp_path / "r.npz"}
    inputs = models, tmp_path / "p.tsv", [tmp_path / "c.tsv"], [tmp_path / "i.tsv"]
    explain_crops(*inputs, SETTINGS, "cpu", 1, **outputs)
    with np.load(outputs["maps"]) as container:
        return tables.read(tables.MAPS, outputs["table"]), {name: container[name] for name in container}


def test_a_crops_map_is_of_the_logit_difference_in_the_crops_pixels(models):
    classifier = load_classifier(models[0])
    picture = crop_picture(0, 77)
    explained = explain_crop(classifier, picture)
    probability = predict(classifier, [picture])[0]
    assert explained.probability == pytest.approx(probability, abs=1e-5)
    assert explained.value == pytest.approx(np.log(probability / (1 - probability)), abs=1e-4)
    assert explained.relevance.shape == (77, 77)
    assert explained.conservation_error < 1e-4  # messages are float32


def test_a_crop_of_one_grey_level_is_explained(models):
    explained = explain_crop(load_classifier(models[0]), np.full((40, 40), 90, np.uint8))
    assert np.isfinite(explained.relevance).all()
    assert explained.conservation_error < 1e-4  # messages are float32


def test_crops_of_a_batch_get_the_maps_they_get_alone(models):
    classifier = load_classifier(models[0])
    pictures = [crop_picture(seed, 30 + seed) for seed in range(4)]
    together = explain_batch(classifier, Explainer(classifier.model), pictures)
    for picture, explained in zip(pictures, together, strict=True):
        alone = explain_crop(classifier, picture)
        np.testing.assert_allclose(explained.relevance, alone.relevance, atol=1e-3 * np.abs(alone.relevance).max())


def test_choice_of_a_fold_by_hand():
    rows = [
        prediction(0, "malignant", 0.9),
        prediction(1, "malignant", 0.8),
        prediction(2, "benign", 0.3),
        prediction(3, "benign", 0.1),
        prediction(4, "malignant", 0.2),  # the surest error
        prediction(5, "benign", 0.6),
        prediction(6, "benign", 0.7, fold=1),
    ]
    table = tables.from_rows(tables.PREDICTIONS, rows)
    assert choose_crops(table, 3)["crop_id"].tolist() == ["c4", "c3", "c0", "c6"]
    assert choose_crops(table, 6)["crop_id"].tolist() == ["c4", "c5", "c3", "c0", "c2", "c1", "c6"]
    assert len(choose_crops(table, 0)) == 7


def test_crops_of_a_data_set_are_explained_by_their_folds_model(tmp_path, models):
    first, second = (load_classifier(path) for path in models)
    each = {number: [predict(one, [crop_picture(number)])[0] for one in (first, second)] for number in range(3)}
    predictions = [
        prediction(0, "malignant", each[0][0], 0, 0, first.digest),
        prediction(1, "benign", each[1][1], 1, 1, second.digest),
        prediction(2, "benign", 0.9 * each[2][1] + 0.1 * each[2][0], -1, -1, f"{first.digest}+{second.digest}"),
    ]
    folds = [0, 1, -1]
    crops = [crop(tmp_path, n, row["label"], folds[n]) for n, row in enumerate(predictions)]

    found, maps = run(tmp_path, models, predictions, crops)

    assert found["explained_id"].tolist() == ["c0", "c1", "c2"]
    assert found["model_fold"].tolist() == [0, 1, 1]
    assert found["score"].tolist() == pytest.approx([each[0][0], each[1][1], each[2][1]], abs=1e-5)
    for row in found.itertuples():
        relevance = maps[row.map_id]
        assert relevance.shape == (50, 50)
        assert row.relevance_in_box == pytest.approx(
            np.abs(relevance[10:35, 10:35]).sum() / np.abs(relevance).sum(), rel=1e-4
        )
        assert row.box_area_share == pytest.approx(0.25)
        assert [row.x1, row.y1, row.x2, row.y2] == [10, 20, 60, 70]
        # the image ends five pixels above the crop's lower edge
        beyond = np.abs(relevance[45:]).sum() / np.abs(relevance).sum()
        assert row.relevance_on_padding == pytest.approx(beyond, rel=1e-4)
        assert beyond > 0


def test_crops_of_an_architecture_without_rules_keep_their_rows(tmp_path, models, monkeypatch):
    digest = load_classifier(models[0]).digest
    monkeypatch.delitem(operations._HANDLERS, "layer_norm")
    found, maps = run(tmp_path, models, [prediction(0, "benign", 0.25, digest=digest)], [crop(tmp_path, 0, "benign")])
    (row,) = found.itertuples()
    assert maps == {}
    assert "operation 'layer_norm' in norm (LayerNorm)" in row.reason
    assert row.score == 0.25
    assert [row.x1, row.y1, row.x2, row.y2, row.frame_x1, row.frame_y2] == [10, 20, 60, 70, 20, 55]
    assert np.isnan(row.relevance_in_box)


def test_no_crop_gives_empty_outputs(tmp_path, models):
    found, maps = run(tmp_path, models, [], [])
    assert len(found) == 0
    assert maps == {}


def test_predictions_that_belong_to_nothing_are_refused(tmp_path, models):
    with pytest.raises(DataError, match="crop c0 was judged by model a"):
        run(tmp_path, models, [prediction(0, "benign", 0.5)], [crop(tmp_path, 0, "benign")])
    with pytest.raises(DataError, match="crop c0 isn't in the tables of crops"):
        run(tmp_path, models, [prediction(0, "benign", 0.5)], [])
