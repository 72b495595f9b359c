import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mammoflow.classify import load_classifier, pretrain_classifier
from mammoflow.classify import train as training
from mammoflow.classify.model import read_record
from mammoflow.classify.pretrain import draw_part
from mammoflow.provenance import file_sha256


@pytest.fixture
def pretraining(settings):
    phantom = {"crops": 24, "epochs": 2, "tissue_share": 0.5}
    return settings | {"pretrain": {"phantom": phantom}, "margin": 1.5, "side_mm": None}


def run(settings, directory, seed=3):
    model, history = directory / "model" / "model.safetensors", directory / "model" / "history.tsv"
    pretrain_classifier("resnet10t", settings, seed, "cpu", model, history)
    return model, history


def test_tissue_counts_as_benign(pretraining):
    part = draw_part(pretraining, 3, 24)
    assert set(part.rows["shows"]) == {"malignant", "benign", "tissue"}
    assert ((part.labels == 1) == (part.rows["shows"] == "malignant")).all()
    assert part.crops.shape == (24, 32, 32)


def test_killed_pretraining_goes_on_to_the_same_weights(pretraining, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "KEEP_EVERY_S", 0.0)
    whole, history = run(pretraining, tmp_path / "whole")
    rows = pd.read_csv(history, sep="\t")
    assert rows["epoch"].tolist() == [0, 1]
    assert rows["auc"].between(0, 1).all()
    real = training._train_epoch
    calls = []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(pretraining, tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "model", ignore_errors=True)
    resumed, _ = run(pretraining, tmp_path / "killed")
    assert len(calls) == 3
    assert resumed.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "killed" / "model.work").exists()


def test_folds_start_from_the_pretrained_weights(pretraining, make_crops, settings, tmp_path, monkeypatch):
    start, _ = run(pretraining, tmp_path)
    begun = []
    real = training._train_epoch

    def train_epoch(state, *arguments):
        begun.append({name: value.clone() for name, value in state.model.state_dict().items()})
        return real(state, *arguments)

    monkeypatch.setattr(training, "_train_epoch", train_epoch)
    model, history = tmp_path / "fold0" / "model.safetensors", tmp_path / "fold0" / "history.tsv"
    still = settings | {"epochs": 1}
    training.train_classifier(make_crops(), 0, "resnet10t", still, 3, "cpu", model, history, start)
    assert len(begun) == 3
    learned = load_file(start)
    assert all(torch.equal(state[name], learned[name]) for state in begun for name in learned)
    assert read_record(model)["start_digest"] == file_sha256(start)[:16]
    assert load_classifier(model).fold == 0
