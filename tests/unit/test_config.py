import copy

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config

from mammoflow import config
from mammoflow.errors import ConfigError


@pytest.fixture
def shipped(root):
    return yaml.safe_load((root / "config.yaml").read_text())


def test_the_shipped_config_is_right(shipped):
    assert config.check_config(shipped)["datasets"][0]["name"] == "hospital"


def test_the_documentation_follows_the_schema(root):
    assert (root / "docs" / "configuration.md").read_text() == config.documentation(), (
        "run: python -m mammoflow.config > docs/configuration.md"
    )


def test_every_key_is_described():
    assert [key for key, _, meaning in config._keys(config.schema(), "") if not meaning] == []


def test_nothing_given_is_changed(shipped):
    before = copy.deepcopy(shipped)
    config.check_config(shipped)
    assert shipped == before


def test_a_mapping_on_the_command_line_is_read_as_in_a_file(shipped):
    given = [
        "labels={folds: 4, expert_classes: [malignant, benign]}",
        "detect={learning_rate: 1e-3, rivals: true, test_time: null}",
        "explain={faithfulness: {images: 20}}",
    ]
    update_config(shipped, parse_config(given))
    study = config.check_config(shipped)
    assert study["labels"] == {"folds": 4, "expert_classes": ["malignant", "benign"]}
    assert [study["detect"][key] for key in ("learning_rate", "rivals", "test_time")] == [0.001, True, None]
    assert study["explain"]["faithfulness"]["images"] == 20


@pytest.mark.parametrize("text", ["many", "nan", "inf", "3.5", "{", "[3]", ""])
def test_a_text_that_is_no_number_is_refused_as_one(shipped, text):
    shipped["labels"]["folds"] = text
    with pytest.raises(ConfigError, match=r"labels\.folds is .*, expected type integer"):
        config.check_config(shipped)


WRONG = [
    ("detect.epoch", 3, r"unknown key `epoch` in detect; did you mean `epochs`"),
    ("detect.epochs", "many", r"detect\.epochs is 'many', expected type integer"),
    ("detect.epochs", 0, r"detect\.epochs is 0, expected at least 1"),
    ("detect.image_size", 300, r"multiple of 32"),
    ("detect.weights", {"path": "w.safetensors"}, r"detect\.weights.*sha256"),
    ("detect.weights", {"path": "none.safetensors", "sha256": "0" * 64}, r"none\.safetensors is no file"),
    ("sweep.grid", [{"epoch": [1]}], r"`epoch` is no setting of section detect; known: .*epochs"),
    ("sweep.grid", [{"augment.fliplr": [0, 2]}], r"sweep\.grid\.augment\.fliplr: .*is 2, expected at most 1"),
    ("sweep.grid", [{"pretrain": [None]}], r"`pretrain`, which counts in the pretraining, once for all points"),
    ("sweep.grid", {"epochs": [1]}, r"sweep\.grid"),
    ("sweep_classifiers.grid", [{"epochs": [1], "epoch": [1]}], r"`epoch` is no setting of section classify"),
    ("sweep_classifiers.grid", [{"ema": [0, 1]}], r"sweep_classifiers\.grid\.ema: "),
    ("sweep_classifiers.folds", [3], r"sweep_classifiers\.folds holds 3, but labels\.folds is 3"),
    ("sweep_classifiers.protocol", "paper", r"protocol is `paper`, expected one of crops\.protocols: out_of_fold"),
    ("sweep.folds", [3], r"sweep\.folds holds 3, but labels\.folds is 3"),
    (
        "detect.weights",
        {"url": "https://example.org/w", "sha256": "0" * 64, "architectures": ["yolov5m"]},
        r"names yolov5m, which is not trained; known: yolov5n, yolov6n",
    ),
    ("classify.weights", {"url": "https://example.org/w", "sha256": "0" * 64}, r"only detect\.weights may be a url"),
    ("detect.weights", {"path": "$MAMMOFLOW_NOT_SET", "sha256": "0" * 64}, r"MAMMOFLOW_NOT_SET isn't set"),
    ("detect.patience", 3, r"validation_share is 0: nothing says whether an epoch was better"),
    ("crops.precision", 0, r"crops\.precision"),
    ("device", "gpu", r"device is 'gpu', expected one of cpu, cuda"),
    ("crops.detector", "yolo11n", r"crops\.detector is `yolo11n`.*detect\.architectures"),
    ("crops.protocols", [], r"crops\.protocols"),
    ("datasets.0.role", "external", r"none has `role: internal`"),
    ("datasets.1.name", "hospital", r"`hospital` occurs twice"),
    ("datasets.0.name", "paper", r"`paper` is a name the results use"),
    ("datasets.0.name", "My Hospital", r"datasets\[0\]\.name is 'My Hospital'"),
    ("datasets.0.shards.annotated", 0, r"shards\.annotated is 0"),
    ("datasets.0.phantom.malignant", 2, r"malignant is 2, fewer patients than labels\.folds 3"),
    ("datasets.0.phantom.benign", 1000, r"more than patients"),
    ("datasets.0.phantom", None, r"phantom"),
    ("datasets.0.source", "dicom", r"`phantom` section fits source phantom only"),
    ("datasets.0.root", "$MAMMOFLOW_NOT_SET/x", r"environment variable MAMMOFLOW_NOT_SET isn't set"),
    ("datasets.0.window", {"mode": "lung"}, r"window\.mode is 'lung', expected one of dicom, fixed, none, percentile"),
    ("datasets.0.window", {"mode": "fixed"}, r"mode fixed needs center, width"),
    ("datasets.0.window", {"mode": "none", "index": 1}, r"mode none doesn't take index"),
    ("datasets.0.window", {"mode": "percentile", "low": 9, "high": 2}, r"low 9 must be below high 2"),
    ("roots", {"nowhere": "/data"}, r"roots\.nowhere: no data set has this name"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_a_wrong_setting_gives_one_message_that_names_it(shipped, key, value, message):
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    node = shipped
    for part in path:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    with pytest.raises(ConfigError, match=message):
        config.check_config(shipped)


def test_a_sweep_of_weights_that_pretraining_replaces_is_refused(shipped):
    shipped["sweep"]["grid"] = [{"weights": [None]}]
    shipped["sweep_classifiers"]["grid"] = [{"ema": [0.5]}, {"crop_size": [64, 96]}]
    config.check_config(shipped)
    shipped["classify"]["pretrain"] = {"phantom": {"crops": 8, "epochs": 1, "tissue_share": 0.4}}
    with pytest.raises(ConfigError, match=r"sweep_classifiers\.grid holds `crop_size`"):
        config.check_config(shipped)
    shipped["detect"]["pretrain"] = {"phantom": {"images": 8, "epochs": 1}}
    with pytest.raises(ConfigError, match=r"sweep\.grid holds `weights`"):
        config.check_config(shipped)


def test_a_studys_own_grid_replaces_the_shipped_one(shipped, root):
    own = yaml.safe_load((root / "workflow/studies/mias.yaml").read_text("utf-8"))["sweep"]
    update_config(shipped, {"sweep": own})  # as snakemake lays one config file over another
    assert config.sweep_points(shipped["sweep"]) == config.sweep_points(own)
    assert len(config.sweep_points(own)) == 4


def test_a_missing_directory_is_named(shipped, tmp_path):
    hospital = shipped["datasets"][0]
    del hospital["phantom"]
    hospital |= {"source": "dicom", "root": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match="which is no directory"):
        config.check_config(shipped)
    hospital["root"] = str(tmp_path)
    with pytest.raises(ConfigError, match="positive `raw/positive` doesn't exist"):
        config.check_config(shipped)


def test_roots_and_variables_are_resolved(shipped, tmp_path, monkeypatch):
    monkeypatch.setenv("MAMMO_TEST_ROOT", str(tmp_path))
    (tmp_path / "mine").mkdir()
    hospital = shipped["datasets"][0]
    del hospital["phantom"], hospital["truth"], hospital["masks"]
    hospital |= {"source": "dicom", "root": "nowhere", "directories": {}, "annotations": []}
    shipped["roots"] = {"hospital": "$MAMMO_TEST_ROOT/mine"}
    assert config.check_config(shipped)["datasets"][0]["root"] == f"{tmp_path}/mine"


@pytest.mark.parametrize("name", ["mias"])
def test_studies_fit_the_schema(root, shipped, monkeypatch, tmp_path, name):
    """A study's file laid over config.yaml as Snakemake lays it: maps merge, lists replace."""
    study = yaml.safe_load((root / "workflow" / "studies" / f"{name}.yaml").read_text())
    update_config(shipped, study)
    for path in ("dicom/positive", "dicom/negative"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "Info.txt").touch()
    monkeypatch.setenv(f"MAMMOFLOW_{name.upper()}_ROOT", str(tmp_path))
    assert [dataset["name"] for dataset in config.check_config(shipped)["datasets"]] == [name]


def test_an_rtdetr_on_small_pictures_is_refused(shipped):
    shipped["detect"].update(architectures=["yolov6n", "rtdetr-l"], image_size=96)
    with pytest.raises(ConfigError, match="rtdetr-l chooses 300 of the picture's cells and needs at least 128"):
        config.check_config(shipped)


@pytest.mark.parametrize(
    ("crops", "rounds", "refused"),
    [
        ({}, 1, True),
        ({"nested": False}, 2, False),
        ({"protocols": ["paper"]}, 1, False),
        ({"protocols": ["paper"]}, 2, True),
    ],
)
def test_two_folds_left_out_at_a_time_need_three(shipped, crops, rounds, refused):
    shipped["labels"]["folds"] = 2
    shipped["crops"] |= crops
    shipped["sweep_classifiers"]["protocol"] = shipped["crops"]["protocols"][0]
    shipped["mining"]["rounds"] = rounds
    if refused:
        with pytest.raises(ConfigError, match=r"labels\.folds is 2, but crops\.nested .* at least 3"):
            config.check_config(shipped)
    else:
        config.check_config(shipped)


def test_rivals_without_a_way_to_tell_the_breasts_apart_are_refused(shipped):
    shipped["detect"]["rivals"] = True
    config.check_config(shipped)
    shipped["images"]["same_side"] = False
    with pytest.raises(ConfigError, match=r"detect\.rivals is true, but images\.same_side is false"):
        config.check_config(shipped)


def test_weights_are_for_all_architectures_or_for_those_they_name():
    weights = {"path": "w", "sha256": "0" * 64}
    assert config.weights_for(weights, "yolov6n") == weights
    assert config.weights_for(weights | {"architectures": ["yolov5n"]}, "yolov6n") is None
    assert config.weights_for(weights | {"architectures": ["yolov5n"]}, "yolov5n") is not None
    assert config.weights_for(None, "yolov5n") is None


def test_optional_weights_without_their_variable_are_none(shipped, tmp_path, monkeypatch):
    shipped["detect"]["weights"] = {"path": "$MAMMO_TEST_WEIGHTS", "sha256": "0" * 64, "optional": True}
    assert config.check_config(shipped)["detect"]["weights"] is None
    (tmp_path / "w.pt").touch()
    monkeypatch.setenv("MAMMO_TEST_WEIGHTS", str(tmp_path / "w.pt"))
    assert config.check_config(shipped)["detect"]["weights"]["path"] == str(tmp_path / "w.pt")
