"""RT-DETR: attention in heads and deformable attention against explicit sums, and a whole network's account."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_explain_detections import detection_row, image_row
from torch import nn

from mammoflow import tables
from mammoflow.detect.infer import detect_images
from mammoflow.detect.model import Detector, build_model
from mammoflow.errors import ModelError
from mammoflow.explain import trials
from mammoflow.explain.composites import head_of
from mammoflow.explain.detections import explain_detection
from mammoflow.explain.engine import Explainer, relevance
from mammoflow.explain.faithfulness import randomise
from mammoflow.explain.rules import Epsilon
from mammoflow.explain.trials import _detector_cases

HEIGHT, WIDTH = 150, 90


def lrp_0(layer):
    return Epsilon(0)


class Attending(nn.Module):
    """torch's attention in heads, or the same sums written out."""

    def __init__(self, plain):
        super().__init__()
        self.heads, self.plain = nn.MultiheadAttention(6, 2), plain

    def forward(self, x):  # (N, L, C)
        if not self.plain:
            z = x.transpose(0, 1)
            return self.heads((x + 0.3).transpose(0, 1), z, z)[0].transpose(0, 1)
        parts = []
        for own, weight, bias in zip(
            (x + 0.3, x, x), self.heads.in_proj_weight.chunk(3), self.heads.in_proj_bias.chunk(3), strict=True
        ):
            parts.append(F.linear(own, weight, bias).unflatten(2, (2, 3)).transpose(1, 2))
        query, key, value = parts
        mixed = (query * 3**-0.5 @ key.transpose(-2, -1)).softmax(-1) @ value
        return F.linear(mixed.transpose(1, 2).flatten(2), self.heads.out_proj.weight, self.heads.out_proj.bias)


@pytest.mark.parametrize("attention", ["cp", "attn"])
def test_attention_in_heads_is_explained_as_its_sums(attention):
    model = Attending(plain=False).double().eval()
    nn.init.uniform_(model.heads.in_proj_bias, -0.5, 0.5)
    nn.init.uniform_(model.heads.out_proj.bias, -0.5, 0.5)
    x, seed = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    found = Explainer(model, "epsilon", attention=attention).explain(x, lambda out: (out * seed).flatten(1).sum(1))
    model.plain = True
    expected = Explainer(model, "epsilon", attention=attention).explain(x, lambda out: (out * seed).flatten(1).sum(1))
    torch.testing.assert_close(found.relevance, expected.relevance, atol=1e-12, rtol=1e-9)
    if attention == "cp":
        assert float(found.conservation_error.max()) < 1e-10


def test_masks_are_refused():
    class Masked(Attending):
        def forward(self, x):
            return self.heads(x, x, x, attn_mask=torch.zeros(2, 2, dtype=x.dtype))[0]

    with pytest.raises(ModelError, match=r"masks.*heads \(MultiheadAttention\)"):
        relevance(Masked(False).double().eval(), torch.randn(2, 2, 6, dtype=torch.float64), lambda out: out[:, 0, 0])


class Sampling(nn.Module):
    """Samples a picture where another layer says."""

    def __init__(self):
        super().__init__()
        self.where = nn.Linear(36, 8)

    def forward(self, x):
        return F.grid_sample(x, self.where(x.flatten(1)).view(-1, 2, 2, 2), align_corners=False)


def bilinear(picture, x, y):
    """Share of each pixel in a sample at x, y of -1..1, zeros beyond the border, written out."""
    size = len(picture)
    column, row = ((x + 1) * size - 1) / 2, ((y + 1) * size - 1) / 2
    shares = np.zeros_like(picture)
    for r, c in np.ndindex(*picture.shape):
        shares[r, c] = max(0, 1 - abs(c - column)) * max(0, 1 - abs(r - row))
    return shares


def test_sampling_is_linear_in_the_picture_and_its_places_are_constants():
    model = Sampling().double().eval()
    x, seed = torch.rand(1, 1, 6, 6, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    found = relevance(model, x, lambda out: (out[:, 0] * seed).flatten(1).sum(1), lrp_0)
    places = model.where(x.flatten(1)).detach().view(2, 2, 2).numpy()
    picture = x[0, 0].numpy()
    expected = sum(picture * bilinear(picture, *places[r, c]) * float(seed[r, c]) for r, c in np.ndindex(2, 2))
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-12)
    with pytest.raises(ModelError, match="grid_sample"):
        relevance(model, x, lambda out: out.flatten(1).sum(1), lrp_0, attention="attn")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = build_model("rtdetr-l").eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
            norm.train()
    with torch.no_grad():
        model(torch.rand(2, 1, 128, 128))
        for head in model.model[-1].dec_score_head:
            nn.init.normal_(head.weight, std=0.3)
            nn.init.constant_(head.bias, -1.0)
    return Detector(model.eval(), "rtdetr-l", ("lesion", "nipple"), 128, 0, "0" * 16)


@pytest.mark.slow
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_gamma_flat"])
def test_a_detection_of_an_rtdetr_is_explained_and_its_account_closes(detector, composite):
    picture = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    frames = detect_images(detector, [picture], 0.1, 0.5)[0]
    best = int(np.argmax(frames.scores * (frames.classes == 0)))
    asked = picture, frames.boxes[best], "lesion", frames.scores[best]
    double = replace(detector, model=copy.deepcopy(detector.model).double())
    explained = explain_detection(double, *asked, composite=composite)
    assert explained.anchor.iou > 0.99
    score = frames.scores[best]
    assert explained.anchor.score == pytest.approx(score, abs=1e-4)
    assert explained.value == pytest.approx(np.log(score / (1 - score)) + 1, abs=1e-3)
    assert explained.conservation_error < 1e-10
    assert explained.relevance.shape == (HEIGHT, WIDTH)
    assert np.abs(explained.relevance).sum() > 0
    found = explain_detection(detector, *asked, composite=composite)
    assert np.abs(found.relevance - explained.relevance).max() < 2e-5 * np.abs(explained.relevance).max()
    with pytest.raises(ModelError, match="edges of rtdetr-l's frames"):
        explain_detection(detector, picture, frames.boxes[best], "lesion", part="left")


def test_no_trial_follows_a_query_from_picture_to_picture(detector):
    with pytest.raises(ModelError, match="numbers its queries anew"):
        _detector_cases(detector, None)


def test_a_trial_that_cant_be_made_leaves_an_empty_table(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "load_detector", lambda path, device: detector)
    row = detection_row(0, [1, 1, 9, 9], 0.5, "0" * 16, fold=0)
    tables.write(tables.DETECTIONS, tables.from_rows(tables.DETECTIONS, [row]), tmp_path / "d.tsv")
    tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, [image_row(tmp_path / "i1.png")]), tmp_path / "i.tsv")
    settings = {"gamma": 0.1, "faithfulness": {"images": 1, "methods": ["epsilon"]}}
    inputs = ["model"], [tmp_path / "d.tsv"], [tmp_path / "i.tsv"]
    trials.try_detector(*inputs, settings, "cpu", 1, tmp_path / "f.tsv")
    assert len(tables.read(tables.FAITHFULNESS, tmp_path / "f.tsv")) == 0


@pytest.mark.slow
def test_the_head_of_an_rtdetr_is_its_decoder_and_can_be_randomised(detector):
    assert head_of(detector.model) == f"model.{len(detector.model.model) - 1}"
    attention = detector.model.model[-1].decoder.layers[0].self_attn
    before = attention.in_proj_weight.clone()
    randomise(detector.model, "head", torch.rand(2, 1, 128, 128), seed=0)
    assert not torch.equal(attention.in_proj_weight, before)
