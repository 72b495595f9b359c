import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mammoflow import tables
from mammoflow.classify import calibration, load_classifier, predict, predict_table, train_classifier
from mammoflow.classify import train as training
from mammoflow.classify.data import mask_center, read_crop
from mammoflow.classify.model import read_record, scores
from mammoflow.errors import DataError, LeakageError, ModelError


def curve_of(*values):
    return pd.DataFrame(values, columns=["smoothed_auc", "smoothed_loss"]).assign(epoch=range(len(values)))


def test_best_epoch_has_the_highest_auc_then_the_lowest_loss_then_comes_first():
    assert training.best_epoch(curve_of((0.6, 0.1), (0.9, 0.5), (0.8, 0.2))) == 1
    assert training.best_epoch(curve_of((0.9, 0.5), (0.9, 0.4), (0.9, 0.4), (0.7, 0.1))) == 1
    assert training.best_epoch(curve_of((np.nan, np.nan), (np.nan, np.nan))) == 1


def test_training_stops_when_patience_is_over():
    curve = curve_of((0.6, 0.1), (0.9, 0.5), (0.8, 0.2), (0.85, 0.2))
    assert not training.finished(curve[:0], 10, 2)
    assert not training.finished(curve[:3], 10, 2)
    assert training.finished(curve, 10, 2)
    assert not training.finished(curve, 10, 3)
    assert training.finished(curve, 4, 3)


def inner_of(labels, *margins):
    """A training whose model said `margins` of crops with `labels`, a list an epoch."""
    history = [{"learning_rate": 0.1, "training_loss": 1.0, "seconds": 2.0, "margins": list(said)} for said in margins]
    return SimpleNamespace(
        state=SimpleNamespace(history=history), validation=SimpleNamespace(labels=np.array(labels)), done=len(margins)
    )


def test_curve_by_hand():
    # pairs in order: 2 of 2, then 0, then 2 of the first part; 1, 3, 3 of 4 of the second
    first = inner_of([1, 0, 0], (3, 1, 2), (0, 1, 2), (3, 1, 2))
    second = inner_of([1, 1, 0, 0], (1, 2, 1.5, 3), (1, 4, 0, 3), (1, 4, 0, 3))
    curve = training.curve_of([first, second], 3)
    assert curve["validation_auc"].tolist() == pytest.approx([3 / 6, 3 / 6, 5 / 6])
    assert curve["smoothed_auc"].tolist() == pytest.approx([3 / 6, 11 / 18, 4 / 6])
    assert curve["seconds"].tolist() == [4.0, 4.0, 4.0]
    # logits of nothing: both classes cost log(2), however many crops each has
    unsure = training.curve_of([inner_of([1, 0, 0], (0, 0, 0))], 1)
    assert unsure["validation_loss"][0] == pytest.approx(np.log(2))
    assert unsure["validation_auc"][0] == 0.5


def test_calibration_is_of_what_inner_models_said_at_the_epoch():
    whole = SimpleNamespace(labels=np.array([1, 0, 0, 0]))
    inner = [inner_of([1, 0], (0, 0), (4, 2)), inner_of([1, 0], (0, 0), (1, 3))]
    expected = calibration.fit(np.array([4.0, 2, 1, 3]), np.array([1, 0, 1, 0]), whole.labels)
    assert training._calibrate(inner, 1, whole) == expected
    assert expected.temperature != 1
    assert training._calibrate([], 1, whole).temperature == 1


def test_batches_hold_every_crop_once_and_are_never_small():
    for count in (2, 7, 8, 9, 17, 31):
        batches = training._batches(count, 8, torch.Generator().manual_seed(0))
        assert sorted(np.concatenate(batches)) == list(range(count))
        assert min(len(batch) for batch in batches) >= min(count, 8)


def run(paths, directory, settings, fold=0, seed=3):
    model, history = directory / f"fold{fold}" / "model.safetensors", directory / f"fold{fold}" / "history.tsv"
    train_classifier(paths, fold, settings["architectures"][0], settings, seed, "cpu", model, history)
    return model, history


def test_same_seed_same_file_other_seed_other_file(make_crops, settings, tmp_path):
    paths = make_crops()
    settings["epochs"] = 2
    first, history = run(paths, tmp_path / "a", settings)
    assert first.read_bytes() == run(paths, tmp_path / "b", settings)[0].read_bytes()
    assert first.read_bytes() != run(paths, tmp_path / "c", settings, seed=4)[0].read_bytes()
    assert not (tmp_path / "a" / "fold0.work").exists()
    rows = pd.read_csv(history, sep="\t")
    assert rows["epoch"].tolist() == [0, 1]
    record = read_record(first)
    assert record["epoch"] == training.best_epoch(rows)
    assert record["validation_auc"] == pytest.approx(rows["smoothed_auc"].max())


def test_weights_of_other_architectures_are_not_even_read(make_crops, settings, tmp_path):
    paths, elsewhere = make_crops(), {"path": str(tmp_path / "none.safetensors"), "sha256": "0" * 64}
    settings |= {"epochs": 1, "weights": elsewhere}
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        run(paths, tmp_path / "own", settings)
    settings["weights"] = elsewhere | {"architectures": ["resnet18"]}
    assert run(paths, tmp_path / "other", settings)[0].exists()


# two inner trainings of three epochs in turn, then as many epochs of the whole as were best
@pytest.mark.parametrize("call", [3, 8])
@pytest.mark.parametrize("killed_in", ["epoch", "checkpoint"])
def test_killed_training_goes_on_to_the_same_weights(
    make_crops, settings, tmp_path, monkeypatch, caplog, killed_in, call
):
    paths = make_crops()
    monkeypatch.setattr(training, "best_epoch", lambda curve: len(curve) - 1)
    monkeypatch.setattr(training, "KEEP_EVERY_S", 0.0)
    whole, _ = run(paths, tmp_path / "whole", settings)
    name = {"epoch": "_train_epoch", "checkpoint": "_report"}[killed_in]
    real, calls = getattr(training, name), []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, name, killed)
    with pytest.raises(KeyboardInterrupt):
        run(paths, tmp_path / "killed", settings)
    # Snakemake deletes a failed job's declared outputs; the work folder is not one of them.
    shutil.rmtree(tmp_path / "killed" / "fold0", ignore_errors=True)
    monkeypatch.setattr(training, name, real)
    with caplog.at_level(logging.INFO, logger="mammoflow"):
        resumed, history = run(paths, tmp_path / "killed", settings)
    kept = call - (killed_in == "epoch")
    assert caplog.text.count("going on after epoch") == min(kept, 2) + (kept > 6)
    assert resumed.read_bytes() == whole.read_bytes()
    assert pd.read_csv(history, sep="\t")["epoch"].tolist() == [0, 1, 2]


def test_checkpoint_of_other_settings_is_not_taken(make_crops, settings, tmp_path, monkeypatch, caplog):
    paths = make_crops()
    monkeypatch.setattr(training, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(training, "_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(paths, tmp_path, settings)
    assert [path.name for path in (tmp_path / "fold0.work").rglob("*.pt")] == ["inner1.pt"]
    monkeypatch.undo()
    with caplog.at_level(logging.INFO, logger="mammoflow"):
        run(paths, tmp_path, settings | {"learning_rate": 0.001, "epochs": 1})
    assert "going on" not in caplog.text


def test_classifier_learns_from_all_crops_for_the_epochs_that_were_best(make_crops, settings, tmp_path, monkeypatch):
    paths = make_crops()
    seen = []
    real = training._train_epoch

    def train_epoch(state, part, weights, settings, epoch, stream):
        seen.append((len(part), epoch))
        return real(state, part, weights, settings, epoch, stream)

    monkeypatch.setattr(training, "_train_epoch", train_epoch)
    monkeypatch.setattr(training, "best_epoch", lambda curve: min(1, len(curve) - 1))
    model, history = run(paths, tmp_path, settings)
    assert seen == [(8, 0), (8, 0), (8, 1), (8, 1), (8, 2), (8, 2), (16, 0), (16, 1)]
    assert read_record(model)["epoch"] == 1
    rows = pd.read_csv(history, sep="\t")
    assert rows["whole_training_loss"].notna().tolist() == [True, True, False]


def test_few_patients_train_for_all_epochs_without_validation(make_crops, settings, tmp_path):
    model, history = run(make_crops(patients=5), tmp_path, settings | {"patience": 1})
    rows = pd.read_csv(history, sep="\t")
    assert len(rows) == 3
    assert rows["validation_auc"].isna().all()
    assert read_record(model)["validation_auc"] is None
    assert read_record(model)["epoch"] == 2
    assert read_record(model)["calibration"]["temperature"] == 1


def test_leaking_table_trains_nothing(make_crops, settings, tmp_path):
    paths = make_crops()
    table = tables.read(tables.CROPS, paths[0])
    table.loc[0, "fold"] = 1  # its patient's other crop stays in fold 0
    tables.write(tables.CROPS, table, paths[0])
    with pytest.raises(LeakageError):
        run(paths, tmp_path, settings)
    assert not (tmp_path / "fold0").exists()


@pytest.mark.parametrize("folds", [0, 2])
def test_diverging_loss_is_an_error_with_a_mend(make_crops, settings, tmp_path, folds):
    with pytest.raises(DataError, match="learning_rate"):
        run(make_crops(), tmp_path, settings | {"learning_rate": 1e30, "validation_folds": folds})


@pytest.fixture
def models(make_crops, settings, tmp_path):
    paths = make_crops(patients=12, external=2)
    internal = [tmp_path / f"internal-{n}.tsv" for n in range(2)]
    for source, target in zip(paths, internal, strict=True):
        table = tables.read(tables.CROPS, source)
        tables.write(tables.CROPS, table[table["fold"] >= 0], target)
    settings["epochs"] = 1
    return paths, [run(internal, tmp_path / "models", settings, fold)[0] for fold in range(3)]


def test_predictions_are_out_of_fold_and_external_ones_the_mean(models, tmp_path):
    paths, model_paths = models
    predict_table(paths, model_paths[::-1], 1, "cpu", tmp_path / "predictions.tsv")
    crops = tables.read_all(tables.CROPS, paths).set_index("crop_id")
    predictions = tables.read(tables.PREDICTIONS, tmp_path / "predictions.tsv")
    assert sorted(predictions["crop_id"]) == sorted(crops.index)
    judges = [load_classifier(path) for path in model_paths]
    for row in predictions.itertuples():
        single = [predict(judge, [read_crop(crops.loc[row.crop_id, "png"])])[0] for judge in judges]
        expected = single[row.fold] if row.fold >= 0 else np.mean(single)
        assert row.probability == pytest.approx(expected, abs=1e-6)
        assert row.model_fold == row.fold
        assert row.model_digest == "+".join(j.digest for j in (judges if row.fold < 0 else [judges[row.fold]]))
        assert row.label == crops.loc[row.crop_id, "label"]
    assert {-1, 0, 1, 2} == set(predictions["fold"])


def test_calibrated_and_masked_scores_are_those_of_the_model(models, tmp_path):
    paths, model_paths = models
    predict_table(paths, model_paths, 1, "cpu", tmp_path / "predictions.tsv")
    crops = tables.read_all(tables.CROPS, paths).set_index("crop_id")
    row = tables.read(tables.PREDICTIONS, tmp_path / "predictions.tsv").query("fold == 1").iloc[0]
    crop, judge = read_crop(crops.loc[row["crop_id"], "png"]), load_classifier(model_paths[1])
    assert row["calibrated"] == pytest.approx(scores(judge, [crop]).calibrated[0], abs=1e-6)
    assert row["masked"] == pytest.approx(scores(judge, [mask_center(crop)]).calibrated[0], abs=1e-6)
    logit = np.log(row["probability"] / (1 - row["probability"]))
    expected = 1 / (1 + np.exp(-(logit + judge.calibration.offset) / judge.calibration.temperature))
    assert row["calibrated"] == pytest.approx(expected, abs=1e-5)
    assert read_record(model_paths[1])["calibration"]["temperature"] == judge.calibration.temperature


def test_weights_are_averaged_over_the_steps(make_crops, settings, tmp_path, monkeypatch):
    """The kept weights are ``decay * average + (1 - decay) * weights`` step by step, by hand."""
    seen = []
    real = training.ModelEmaV3.update

    def update(self, model, step):
        before = {name: value.clone() for name, value in self.module.state_dict().items()}
        real(self, model, step=step)
        decay = min(0.5, 1 - step ** (-2 / 3)) if step > 1 else 0.0
        seen.append((step, before, {name: value.clone() for name, value in model.state_dict().items()}, decay))

    monkeypatch.setattr(training.ModelEmaV3, "update", update)
    model, _ = run(make_crops(), tmp_path, settings | {"epochs": 2, "validation_folds": 0})
    assert [step for step, *_ in seen] == list(range(1, len(seen) + 1))
    _, before, current, decay = seen[-1]
    assert decay == 0.5
    kept = load_classifier(model).model.state_dict()
    for name, value in kept.items():
        if value.is_floating_point():
            assert torch.allclose(value, decay * before[name] + (1 - decay) * current[name], atol=1e-6), name
    plain, _ = run(
        make_crops(name="again"), tmp_path / "plain", settings | {"epochs": 2, "ema": 0, "validation_folds": 0}
    )
    assert len(seen) == seen[-1][0]
    assert not torch.equal(load_classifier(plain).model.state_dict()["fc.weight"], kept["fc.weight"])


def test_fold_without_a_model_is_named(models, tmp_path):
    paths, model_paths = models
    with pytest.raises(DataError, match=r"fold 2 have no model \(there are those of folds 0, 1\)"):
        predict_table(paths, model_paths[:2], 1, "cpu", tmp_path / "predictions.tsv")


def test_no_crops_give_no_predictions(models, tmp_path):
    tables.write(tables.CROPS, tables.empty(tables.CROPS), tmp_path / "empty.tsv")
    predict_table([tmp_path / "empty.tsv"], models[1], 1, "cpu", tmp_path / "predictions.tsv")
    assert len(tables.read(tables.PREDICTIONS, tmp_path / "predictions.tsv")) == 0


def test_ring_and_disc_are_learned(make_crops, settings, tmp_path):
    paths = make_crops(patients=36)
    model, _ = run(paths, tmp_path, settings | {"epochs": 8})
    crops = tables.read_all(tables.CROPS, paths)
    held_out = crops[crops["fold"] == 0]
    probability = predict(load_classifier(model), [read_crop(png) for png in held_out["png"]])
    assert roc_auc_score(held_out["label"] == "malignant", probability) > 0.9


@pytest.mark.parametrize("architecture", ["resnet10t", "vit_tiny_patch16_224"])
def test_without_crops_of_a_class_every_probability_is_one_half(make_crops, settings, tmp_path, caplog, architecture):
    table = tables.read_all(tables.CROPS, make_crops())
    benign = tmp_path / "benign.tsv"
    tables.write(tables.CROPS, table[table.label == "benign"], benign)
    logging.getLogger("mammoflow").propagate = True
    with caplog.at_level(logging.WARNING, logger="mammoflow"):
        model, history = run([benign], tmp_path, settings | {"architectures": [architecture]})
    assert "no malignant crop to learn from" in caplog.text
    assert history.exists()
    assert not read_record(model)["trained"]
    probabilities = predict(load_classifier(model), [read_crop(path) for path in table.png])
    assert probabilities.tolist() == [0.5] * len(table)
