import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from mammoflow.classify import Classifier, load_classifier, mean_scores, predict, preprocess
from mammoflow.classify.calibration import Calibration
from mammoflow.classify.model import MEAN, STD, build, resize, save_classifier, start_from
from mammoflow.errors import ModelError

RECORD = {"architecture": "resnet10t", "crop_size": 32, "classes": ["benign", "malignant"], "fold": 1, "note": "µ"}


class Mean(torch.nn.Module):
    """Logits (0, factor * mean of the input)."""

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(float(factor)))

    def forward(self, inputs):
        mean = inputs.mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(mean), self.factor * mean], dim=1)


def classifier_of(model, fold=0, size=8):
    return Classifier(model.eval(), "mean", size, ("benign", "malignant"), "0" * 16, fold)


@pytest.mark.parametrize("architecture", ["resnet50", "vit_tiny_patch16_224", "resnet10t"])
def test_architectures_take_grey_crops_and_give_two_logits(architecture):
    model = build(architecture, 48).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 48, 48)).shape == (2, 2)


@pytest.mark.parametrize("architecture", ["resnet5000", "hf_hub:timm/resnet50"])
def test_unknown_architecture_names_examples(architecture):
    with pytest.raises(ModelError, match="vit_tiny_patch16_224"):
        build(architecture, 64)


def test_architecture_of_another_size_names_the_setting():
    with pytest.raises(ModelError, match=r"classify\.crop_size"):
        build("vit_tiny_patch16_224", 12)


def test_saved_and_loaded_is_the_same_model_in_the_same_bytes(tmp_path):
    model = build("resnet10t", 32)
    for name in ("a", "b"):
        save_classifier(tmp_path / name, model, RECORD)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    loaded = load_classifier(tmp_path / "a")
    assert loaded.digest == hashlib.sha256(content).hexdigest()[:16]
    assert (loaded.architecture, loaded.crop_size, loaded.fold) == ("resnet10t", 32, 1)
    assert loaded.classes == ("benign", "malignant")
    assert not loaded.model.training
    inputs = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.model(inputs), model.eval()(inputs))


def test_foreign_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\0" * 40)
    for name in ("plain", "broken", "missing"):
        with pytest.raises(ModelError, match=name):
            load_classifier(tmp_path / f"{name}.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"mammoflow": json.dumps(RECORD)})
    with pytest.raises(ModelError, match="don't fit resnet10t"):
        load_classifier(tmp_path / "other.safetensors")


def test_preprocess_by_hand():
    crops = [np.full((5, 9), 0, np.uint8), np.full((64, 64), 255, np.uint8)]
    inputs = preprocess(crops, 16)
    assert inputs.shape == (2, 1, 16, 16)
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs[0], torch.tensor(-MEAN / STD))
    assert torch.allclose(inputs[1], torch.tensor((1 - MEAN) / STD))
    assert preprocess([], 16).shape == (0, 1, 16, 16)


def test_shrinking_averages_every_pixel():
    crop = np.zeros((64, 64), np.uint8)
    crop[13, 22] = 255  # a single calcification must not fall between two samples
    small = resize(crop, 16)
    assert small.sum() == 16  # 255 / (4 * 4), rounded
    assert small[13 // 4, 22 // 4] == 16


def test_predict_by_hand():
    crops = [np.full((8, 8), grey, np.uint8) for grey in (0, 200)]
    expected = [1 / (1 + np.exp(-3 * (grey / 255 - MEAN) / STD)) for grey in (0, 200)]
    assert predict(classifier_of(Mean(3)), crops) == pytest.approx(expected, rel=1e-5)
    assert predict(classifier_of(Mean(3)), []).shape == (0,)


def test_mean_of_several_is_that_of_probabilities():
    crops = [np.full((8, 8), grey, np.uint8) for grey in (30, 220)]
    judges = [classifier_of(Mean(factor), fold) for fold, factor in enumerate((1, -2, 5))]
    expected = sum(predict(judge, crops) for judge in judges) / 3
    assert mean_scores(judges, crops).probability == pytest.approx(expected)


def test_calibrated_score_by_hand():
    judge = replace(classifier_of(Mean(3)), calibration=Calibration(temperature=2.0, offset=-1.0))
    said = mean_scores([judge], [np.full((8, 8), 200, np.uint8)])
    margin = 3 * (200 / 255 - MEAN) / STD
    assert said.probability[0] == pytest.approx(1 / (1 + np.exp(-margin)), rel=1e-5)
    assert said.calibrated[0] == pytest.approx(1 / (1 + np.exp(-(margin - 1) / 2)), rel=1e-5)


def test_sixteen_bits_say_what_eight_say():
    crop = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    deep = crop.astype(np.uint16) * 257
    assert torch.equal(preprocess([crop], 16), preprocess([deep], 16))
    assert not torch.equal(preprocess([deep], 16), preprocess([deep - deep % 512], 16))


def pretrained(path, architecture, **options):
    model = timm.create_model(architecture, pretrained=False, in_chans=3, num_classes=10, **options)
    save_file(model.state_dict(), path)
    return model, {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_pretrained_colour_weights_start_a_grey_model(tmp_path):
    source, weights = pretrained(tmp_path / "w.safetensors", "resnet10t")
    model = build("resnet10t", 32)
    head = model.fc.weight.clone()
    start_from(model, weights)
    assert torch.allclose(model.conv1[0].weight, source.conv1[0].weight.sum(dim=1, keepdim=True), atol=1e-6)
    assert torch.equal(model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert torch.equal(model.fc.weight, head)


def test_pretrained_position_embeddings_fit_another_size(tmp_path):
    _, weights = pretrained(tmp_path / "w.safetensors", "vit_tiny_patch16_224", depth=1)
    model = build("vit_tiny_patch16_224", 64)
    before = model.pos_embed.clone()
    start_from(model, weights)
    assert model.pos_embed.shape == (1, 17, 192)
    assert not torch.equal(model.pos_embed, before)


def test_wrong_digest_missing_file_and_misfit_are_refused(tmp_path):
    _, weights = pretrained(tmp_path / "w.safetensors", "resnet10t")
    model = build("resnet10t", 32)
    with pytest.raises(ModelError, match="SHA-256"):
        start_from(model, weights | {"sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"classify\.weights\.path"):
        start_from(model, {"path": str(tmp_path / "none.safetensors"), "sha256": ""})
    with pytest.raises(ModelError, match="none of its"):
        start_from(build("vit_tiny_patch16_224", 64), weights)


def test_pickled_code_is_not_run(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": print}, path)
    with pytest.raises(ModelError, match="plain state dict"):
        start_from(build("resnet10t", 32), {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
