import hashlib
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

from mammoflow import tables
from mammoflow.detect.model import load_detector
from mammoflow.detect.train import check_leakage, split_folds, thin_background, train_detector
from mammoflow.detect.trainer import FoldTrainer
from mammoflow.errors import DataError, LeakageError, ModelError

ROWS = {"dataset": "hospital", "nipples": 0, "unframed": 0, "train_png": "p.png", "label_file": "p.txt"}


def training_table(patients: int, folds: int = 3, views: int = 2) -> pd.DataFrame:
    rows = [
        {
            **ROWS,
            "image_id": f"image{patient}-{view}",
            "patient_key": f"patient{patient}",
            "fold": patient % folds,
            "lesions": view % 2,
            "pixel_digest": f"{patient}-{view}",
        }
        for patient in range(patients)
        for view in range(views)
    ]
    return tables.from_rows(tables.TRAINING, rows)


def train(study, where: Path, seed: int = 1, fold: int = 0, without: int | None = None, **changed) -> Path:
    folder = where / f"fold{fold}"
    settings = {**study.settings, **changed}
    files = folder / "model.safetensors", folder / "history.csv"
    train_detector([study.table], "yolov5n", fold, settings, seed, "cpu", *files, without=without)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_no_patient_is_on_two_sides(fold):
    table = training_table(24)
    split = split_folds(table, (fold,), 0.25, 7)
    sides = [set(split.training["patient_key"]), set(split.validation["patient_key"])]
    held_out = set(table.loc[table["fold"] == fold, "patient_key"])
    assert not sides[0] & sides[1]
    assert not held_out & (sides[0] | sides[1])
    assert len(sides[1]) == 4
    assert len(split.training) + len(split.validation) == (table["fold"] != fold).sum()
    assert split.validation["lesions"].sum() > 0


def test_validation_part_depends_on_the_seed_and_not_on_the_order():
    table = training_table(24)
    first = split_folds(table, (0,), 0.25, 7)
    assert split_folds(table.sample(frac=1, random_state=1), (0,), 0.25, 7).validation.equals(first.validation)
    others = [set(split_folds(table, (0,), 0.25, seed).validation["patient_key"]) for seed in range(5)]
    assert any(other != set(first.validation["patient_key"]) for other in others)


def test_share_of_zero_puts_nobody_apart_and_a_small_one_somebody():
    assert len(split_folds(training_table(9), (0,), 0.0, 7).validation) == 0
    assert split_folds(training_table(9), (0,), 0.01, 7).validation["patient_key"].nunique() == 1


def test_a_known_lesion_without_frame_is_no_background():
    table = training_table(9)
    table["unframed"] = 1  # beside a frame in every second image
    split = split_folds(table, (0,), 0.0, 7)
    assert len(split.training) == 6
    assert (split.training["lesions"] == 1).all()


@pytest.mark.parametrize(("ratio", "negatives"), [(None, 24), (0, 0), (0.5, 12), (0.25, 6), (10, 24)])
def test_background_comes_at_a_set_ratio(ratio, negatives):
    table = training_table(24)
    thinned = thin_background(table, ratio, 7)
    assert (thinned["lesions"] > 0).sum() == 24
    assert (thinned["lesions"] == 0).sum() == negatives
    shuffled = thin_background(table.sample(frac=1, random_state=1), ratio, 7)
    assert set(shuffled["image_id"]) == set(thinned["image_id"])


def test_too_few_patients_is_said():
    with pytest.raises(DataError, match="expected at least 2"):
        split_folds(training_table(2, folds=2), (0,), 0.2, 7)


@pytest.mark.parametrize("column", ["patient_key", "pixel_digest"])
def test_leaks_are_refused(column):
    table = training_table(6)
    inside, outside = table[table["fold"] != 0].copy(), table[table["fold"] == 0]
    check_leakage(inside, outside, (0,))
    inside.loc[inside.index[0], column] = outside[column].iloc[0]
    with pytest.raises(LeakageError, match="fold 0"):
        check_leakage(inside, outside, (0,))
    with pytest.raises(LeakageError, match="folds 0 and 2: 1 "):
        check_leakage(inside, outside, (0, 2))


def test_two_folds_are_left_out_together():
    table = training_table(24)
    split = split_folds(table, (0, 2), 0.25, 7)
    assert set(split.training["fold"]) == set(split.validation["fold"]) == {1}
    with pytest.raises(DataError, match=r"folds 0 and 2: 1 patients of other folds.*expected at least 2"):
        split_folds(training_table(4), (0, 2), 0.25, 7)


def test_misplaced_label_file_is_named(tiny_study, tmp_path):
    rows = [{**row, "label_file": row["label_file"].replace("labels", "elsewhere")} for row in tiny_study.rows]
    for row in rows:
        Path(row["label_file"]).parent.mkdir(parents=True, exist_ok=True)
        Path(row["label_file"]).touch()
    tables.write(tables.TRAINING, tables.from_rows(tables.TRAINING, rows), tiny_study.table)
    with pytest.raises(DataError, match="Ultralytics looks for the labels"):
        train(tiny_study, tmp_path)


@pytest.mark.slow
def test_same_seed_same_file_and_nothing_written_elsewhere(tiny_study, tmp_path, monkeypatch, socket_disabled):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    inputs = {path: sha256(path) for path in tiny_study.root.rglob("*") if path.is_file()}
    first, second = train(tiny_study, tmp_path / "a"), train(tiny_study, tmp_path / "b")
    assert sha256(first / "model.safetensors") == sha256(second / "model.safetensors")
    assert (first / "history.csv").read_text() == (second / "history.csv").read_text()
    other = train(tiny_study, tmp_path / "c", seed=2)
    assert sha256(other / "model.safetensors") != sha256(first / "model.safetensors")
    outputs = [tmp_path / name for name in "abc"]
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and not any(o in p.parents for o in outputs)]
    assert {path: sha256(path) for path in outside} == inputs


@pytest.mark.slow
def test_what_is_left_is_the_data_set_and_a_detector(tiny_study, tmp_path):
    folder = train(tiny_study, tmp_path / "out", validation_share=0.3)
    detector = load_detector(folder / "model.safetensors")
    assert (detector.architecture, detector.image_size, detector.fold) == ("yolov5n", 64, 0)
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert {"lesion_ap50", "train/box_loss", "val/cls_loss"} <= set(history)
    (work,) = (tmp_path / "out" / "fold0.work").iterdir()
    data = yaml.safe_load((work / "data.yaml").read_text())
    assert data["names"] == {0: "lesion", 1: "nipple"}
    listed = [(work / f"{part}.txt").read_text().split() for part in ("train", "val")]
    assert sorted(listed[0] + listed[1]) == [row["train_png"] for row in tiny_study.rows if row["fold"] == 1]
    assert len(listed[1]) == 1
    assert not list(work.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.cache"))


@pytest.mark.slow
def test_a_detector_of_a_pair_learns_from_neither_fold_and_says_so(tiny_study, tmp_path):
    rows = tables.read(tables.TRAINING, tiny_study.table)
    patients = sorted(set(rows.loc[rows["fold"] == 1, "patient_key"]))
    rows.loc[rows["patient_key"] == patients[0], "fold"] = 2
    tables.write(tables.TRAINING, rows, tiny_study.table)
    folder = train(tiny_study, tmp_path / "out", without=2, validation_share=0, epochs=1)
    assert load_detector(folder / "model.safetensors").left_out == {0, 2}
    (work,) = (tmp_path / "out" / "fold0.work").iterdir()
    assert sorted((work / "train.txt").read_text().split()) == sorted(rows.loc[rows["fold"] == 1, "train_png"])


class Killed(BaseException):
    """Stands for a signal: nothing in the training catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["in an epoch", "while saving", "at the very end"])
def test_a_killed_training_ends_with_the_same_weights(tiny_study, tmp_path, monkeypatch, when):
    tiny_study.settings = tiny_study.settings | {"batch": 1, "validation_share": 0}  # the order of the pictures counts
    whole = train(tiny_study, tmp_path / "whole", epochs=4)
    method = {"in an epoch": "optimizer_step", "while saving": "save_model", "at the very end": "final_eval"}[when]
    original = getattr(FoldTrainer, method)
    calls = []

    def killing(self):
        calls.append(self.epoch)
        if when == "at the very end" or self.epoch == 2:
            raise Killed
        return original(self)

    monkeypatch.setattr(FoldTrainer, method, killing)
    with pytest.raises(Killed):
        train(tiny_study, tmp_path / "killed", epochs=4)
    assert not (tmp_path / "killed" / "fold0" / "model.safetensors").exists()
    epochs = []
    monkeypatch.setattr(FoldTrainer, method, original)
    counted = FoldTrainer.start_epoch_anew
    monkeypatch.setattr(FoldTrainer, "start_epoch_anew", lambda self: (epochs.append(self.epoch), counted(self)))
    resumed = train(tiny_study, tmp_path / "killed", epochs=4)
    assert epochs == ([] if when == "at the very end" else [2, 3])
    assert sha256(resumed / "model.safetensors") == sha256(whole / "model.safetensors")
    assert (resumed / "history.csv").read_text() == (whole / "history.csv").read_text()


@pytest.mark.slow
def test_a_training_that_no_longer_improves_stops(tiny_study, tmp_path, monkeypatch):
    def always_as_good(self):
        self.best_fitness = 0.5
        return {"lesion_ap50": 0.5}, 0.5

    monkeypatch.setattr(FoldTrainer, "validate", always_as_good)
    folder = train(tiny_study, tmp_path / "out", epochs=6, patience=2)
    assert list(pd.read_csv(folder / "history.csv")["epoch"]) == [1, 2, 3]


@pytest.mark.slow
def test_changed_settings_start_anew_and_clear_the_old_work(tiny_study, tmp_path):
    train(tiny_study, tmp_path / "out", epochs=1)
    (before,) = (tmp_path / "out" / "fold0.work").iterdir()
    train(tiny_study, tmp_path / "out", epochs=1, learning_rate=0.001)
    (after,) = (tmp_path / "out" / "fold0.work").iterdir()
    assert before != after


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_explodes_is_one_message(loss):
    trainer = SimpleNamespace(loss=torch.tensor(loss), _architecture="yolov5n", args=SimpleNamespace(lr0=0.9))
    with pytest.raises(ModelError, match=r"epoch 4; lower detect\.learning_rate \(0\.9\)"):
        FoldTrainer._handle_nan_recovery(trainer, 3)
    trainer.loss = torch.tensor(1.0)
    assert not FoldTrainer._handle_nan_recovery(trainer, 3)


@pytest.mark.slow
def test_ultralytics_is_offline_and_leaves_the_home_alone(tmp_path):
    code = (
        "import mammoflow.detect.model, ultralytics.utils as u\n"
        "from mammoflow.detect.offline import integrations_off\n"
        "from ultralytics.utils.events import events\n"
        "integrations_off()\n"
        "assert not u.ONLINE and not u.AUTOINSTALL and not events.enabled\n"
        "assert not any(u.SETTINGS[k] for k in ('sync', 'clearml', 'comet', 'dvc', 'mlflow', 'raytune', 'wandb'))\n"
        "print(u.USER_CONFIG_DIR)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("YOLO_")}
    run = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.iterdir())
    assert not Path(run.stdout.strip()).exists()


def test_pictures_of_one_shape_are_trained_without_empty_columns(tiny_study, tmp_path, monkeypatch):
    shapes = set()
    original = FoldTrainer.preprocess_batch

    def seen(self, batch):
        shapes.add(tuple(batch["img"].shape[1:]))
        return original(self, batch)

    monkeypatch.setattr(FoldTrainer, "preprocess_batch", seen)
    train(tiny_study, tmp_path, image_size=96, epochs=1)
    assert shapes == {(1, 96, 96)}  # pictures of 48 x 64 pixels: 72 of 96 columns, and the next multiple of 32
    shapes.clear()
    train(tiny_study, tmp_path / "wider", image_size=128, epochs=1)
    assert shapes == {(1, 128, 96)}


def test_a_data_set_can_be_sent_to_loaders_that_are_no_forks(tiny_study, tmp_path, monkeypatch):
    sent = []
    original = FoldTrainer.build_dataset

    def built(self, *arguments, **named):
        sent.append(pickle.loads(pickle.dumps(original(self, *arguments, **named))))
        return sent[-1]

    monkeypatch.setattr(FoldTrainer, "build_dataset", built)
    assert train(tiny_study, tmp_path, epochs=1, copy_paste=1.0).is_dir()
    assert sent


def test_bfloat16_trains_to_almost_the_same_weights_which_stay_float32(tiny_study, tmp_path):
    exact = load_detector(train(tiny_study, tmp_path / "exact", epochs=1) / "model.safetensors").model.state_dict()
    rounded = load_detector(
        train(tiny_study, tmp_path / "rounded", epochs=1, precision="bfloat16") / "model.safetensors"
    ).model.state_dict()
    assert {tensor.dtype for tensor in rounded.values()} <= {torch.float32, torch.int64}
    weights = [name for name in exact if name.endswith("conv.weight")]
    apart = torch.cat([(exact[name] - rounded[name]).flatten() for name in weights])
    scale = torch.cat([exact[name].flatten() for name in weights])
    assert 0 < apart.norm() < 0.1 * scale.norm()


def test_weights_of_other_architectures_are_not_even_read(tiny_study, tmp_path):
    elsewhere = {"path": str(tmp_path / "none.safetensors"), "sha256": "0" * 64}
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        train(tiny_study, tmp_path, epochs=1, weights=elsewhere)
    own = train(tiny_study, tmp_path / "own", epochs=1, weights=elsewhere | {"architectures": ["yolov6n"]})
    scratch = train(tiny_study, tmp_path / "scratch", epochs=1)
    assert sha256(own / "model.safetensors") == sha256(scratch / "model.safetensors")
