import json
from types import SimpleNamespace

import numpy as np
import pytest

from mammoflow import tables
from mammoflow.classify import sweep, train
from mammoflow.classify.data import load_part
from mammoflow.errors import DataError

SWEEP = {"folds": [0, 1], "seeds": 1, "grid": [{"ema": [0, 0.5]}, {"epochs": [9]}]}


def inner_of(labels, *margins):
    """A training whose model said `margins` of crops with `labels`, a list an epoch."""
    history = [{"learning_rate": 0.1, "training_loss": 1.0, "seconds": 2.0, "margins": list(said)} for said in margins]
    return SimpleNamespace(
        state=SimpleNamespace(history=history), validation=SimpleNamespace(labels=np.array(labels)), done=len(margins)
    )


def test_a_part_is_judged_at_the_epoch_that_the_others_choose():
    right, wrong = (2, 1), (1, 2)
    # smoothed over neighbours the first's curve is highest at epochs 0 and 1, the second's at 3 and 4
    early, other = (inner_of([1, 0], right, right, right, wrong, wrong) for _ in range(2))
    late = inner_of([1, 0], wrong, wrong, right, right, right)
    assert sweep.held_out_auc([early, late]) == 0.0
    assert sweep.held_out_auc([early, other]) == 1.0
    # four pairs, all in order, weigh four times as much as one in the wrong order
    many = inner_of([1, 1, 0, 0], *[(3, 3, 1, 1)] * 5)
    assert sweep.held_out_auc([many, inner_of([1, 0], *[wrong] * 5)]) == pytest.approx(4 / 5)


def judge(paths, file, settings, fold=0, seed=3):
    sweep.try_settings(paths, fold, "resnet10t", settings, seed, "cpu", file)
    return json.loads(file.read_text())


def test_no_crop_of_the_fold_is_read(make_crops, settings, tmp_path, monkeypatch):
    paths, shown = make_crops(), []
    crops = tables.read_all(tables.CROPS, paths)
    monkeypatch.setattr(sweep, "load_part", lambda rows, size: shown.append(rows) or load_part(rows, size))
    found = judge(paths, tmp_path / "seed0.json", settings)
    own = crops[crops["fold"] != 0]
    assert set(shown[0]["crop_id"]) == set(own["crop_id"])
    assert (found["crops"], found["malignant"]) == (len(own), (own["label"] == "malignant").sum())
    assert 0 <= found["auc"] <= 1
    assert sorted(path.name for path in tmp_path.glob("seed0*")) == ["seed0.json"]


def test_rings_and_discs_are_told_apart(make_crops, settings, tmp_path):
    assert judge(make_crops(), tmp_path / "seed0.json", settings | {"epochs": 12, "ema": 0})["auc"] > 0.8


def test_the_same_seed_gives_the_same_figure_and_a_killed_trial_goes_on_to_it(
    make_crops, settings, tmp_path, monkeypatch
):
    paths = make_crops()
    monkeypatch.setattr(train, "KEEP_EVERY_S", 0.0)
    whole = judge(paths, tmp_path / "whole.json", settings)
    real, calls = train._train_epoch, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        judge(paths, tmp_path / "killed.json", settings)
    monkeypatch.setattr(train, "_train_epoch", lambda *given: calls.append(1) or real(*given))
    assert judge(paths, tmp_path / "killed.json", settings) == whole
    assert len(calls) == 1 + 2 * settings["epochs"]  # the killed one is the only one begun twice


def test_what_cannot_be_compared_is_refused(make_crops, settings, tmp_path):
    paths = make_crops()
    with pytest.raises(DataError, match=r"fewer than two parts.*validation_folds to 2"):
        judge(paths, tmp_path / "few.json", settings | {"validation_folds": 0})
    for path in paths:
        table = tables.read(tables.CROPS, path)
        tables.write(tables.CROPS, table[table["label"] == "benign"], path)
    with pytest.raises(DataError, match="no malignant crop to learn from"):
        judge(paths, tmp_path / "benign.json", settings)


def test_points_are_ranked_by_their_mean_auc(tmp_path):
    judged = {}
    for point, figures in enumerate([(0.5, 0.7), (0.6, 0.7), (0.6, 0.6)]):
        judged[point] = [tmp_path / f"{point}-{fold}.json" for fold in (0, 1)]
        for path, auc in zip(judged[point], figures, strict=True):
            path.write_text(json.dumps({"auc": auc, "crops": 10, "malignant": 4}))
    sweep.rank(judged, SWEEP, tmp_path / "table.tsv")
    table = tables.read(tables.SWEEP_CLASSIFIERS, tmp_path / "table.tsv")
    assert table["settings"].tolist() == ["ema=0.5", "ema=0", "epochs=9"]
    assert table["auc"].tolist() == pytest.approx([0.65, 0.6, 0.6])
    assert (table["lowest"][1], table["highest"][1], table["crops"][1], table["malignant"][1]) == (0.5, 0.7, 20, 8)
