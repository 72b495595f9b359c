from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mammoflow import boxes, tables
from mammoflow.detect.model import load_detector
from mammoflow.detect.pretrain import NO_FOLD, draw_training, pretrain_detector
from mammoflow.detect.train import train_detector
from mammoflow.detect.trainer import FoldTrainer
from mammoflow.phantom import pictures as phantom_pictures
from mammoflow.phantom.pictures import draw_pictures

PICTURES = {"train_size": 128, "breast_crop": True, "breast_margin": 0.02, "same_side": True}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Directory and table of eight phantom pictures."""
    directory = tmp_path_factory.mktemp("drawn")
    draw_training(3, 8, PICTURES, directory, directory / "training.tsv")
    return directory, tables.read(tables.TRAINING, directory / "training.tsv")


def pretraining(settings):
    return settings | {"pretrain": {"phantom": {"images": 8, "epochs": 2}}}


def run(settings, directory):
    model = directory / "yolov5n" / "model.safetensors"
    pretrain_detector("yolov5n", pretraining(settings), PICTURES, 3, "cpu", model, model.with_name("history.csv"))
    return model


def test_a_picture_is_the_same_whatever_the_count():
    few, many = list(draw_pictures(3, 2, 64)), list(draw_pictures(3, 3, 64))
    for (picture, truths), (other, others) in zip(few, many[:2], strict=True):
        assert np.array_equal(picture, other)
        assert truths == others
    assert not np.array_equal(few[0][0], next(iter(draw_pictures(4, 1, 64)))[0])


def test_pictures_are_cut_and_turned_as_patients_are(drawn):
    _, table = drawn
    assert table["lesions"].sum() >= 4
    for row in table.itertuples():
        picture = cv2.imread(row.train_png, cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint8
        assert max(picture.shape) == PICTURES["train_size"]
        half = picture.shape[1] // 2
        assert picture[:, :half].mean() > picture[:, half:].mean()  # a breast is widest at its chest wall


def test_frames_are_where_the_lesions_were_drawn(drawn, tmp_path, monkeypatch):
    """Against the same pictures with lesions too faint to be seen: what differs lies in the frames."""
    monkeypatch.setattr(phantom_pictures, "FAINTNESS", (1e-6, 1e-6))
    draw_training(3, 8, PICTURES, tmp_path, tmp_path / "training.tsv")
    _, table = drawn
    for row in table.itertuples():
        seen = cv2.imread(row.train_png, cv2.IMREAD_UNCHANGED).astype(int)
        unseen = cv2.imread(str(tmp_path / "images" / f"{row.image_id}.png"), cv2.IMREAD_UNCHANGED).astype(int)
        assert seen.shape == unseen.shape
        outside = abs(seen - unseen) > 2
        lesions = lesions_in(row.label_file, seen.shape)
        assert len(lesions) == row.lesions
        for x1, y1, x2, y2 in lesions:
            region = np.s_[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
            assert outside[region].any()
            outside[region] = False
        assert not outside.any()


def lesions_in(label_file, shape):
    lines = [line.split() for line in Path(label_file).read_text().splitlines()]
    rows = np.array([line[1:] for line in lines if line[0] == "0"], float).reshape(-1, 4)
    return boxes.from_yolo(rows, shape[1], shape[0]).tolist()


def test_a_killed_pretraining_ends_with_the_same_weights_and_leaves_no_picture(tiny_study, tmp_path, monkeypatch):
    whole = run(tiny_study.settings, tmp_path / "whole")
    save = FoldTrainer.save_model

    def killed(self):
        save(self)
        if self.epoch == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(FoldTrainer, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_study.settings, tmp_path / "killed")
    monkeypatch.undo()
    resumed = run(tiny_study.settings, tmp_path / "killed")
    assert resumed.read_bytes() == whole.read_bytes()
    assert load_detector(resumed).fold == NO_FOLD
    assert not list((tmp_path / "killed").rglob("*.png"))


def test_folds_start_from_the_pretrained_weights(tiny_study, tmp_path, monkeypatch):
    start = run(tiny_study.settings, tmp_path)
    begun = []
    monkeypatch.setattr(FoldTrainer, "start_epoch_anew", note_weights(begun, FoldTrainer.start_epoch_anew))
    settings = pretraining(tiny_study.settings) | {"epochs": 1}
    fold = tmp_path / "fold0"
    model = fold / "model.safetensors"
    train_detector([tiny_study.table], "yolov5n", 0, settings, 1, "cpu", model, fold / "history.csv", start)
    learned = load_file(start)
    assert all(torch.equal(begun[0][name], learned[name]) for name in learned)
    assert not all(torch.equal(value, learned[name]) for name, value in load_file(model).items())


def note_weights(begun, real):
    def start_epoch_anew(self):
        begun.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return real(self)

    return start_epoch_anew
