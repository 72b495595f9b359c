"""Figures of faithfulness: by hand, on models whose answer is known, and against Quantus."""

import copy
import importlib
import warnings

import numpy as np
import pytest
import timm
import torch
from torch import nn

from mammoflow import tables
from mammoflow.config import schema
from mammoflow.errors import ConfigError
from mammoflow.explain.faithfulness import (
    CONTROLS,
    POOL,
    SHARES,
    control_maps,
    likeness,
    measure,
    noisy,
    perturbation_areas,
    points_into_box,
    pooled,
    randomise,
)
from mammoflow.explain.methods import COMPOSITES, METHODS, Cases, blurred, method_maps, near_boxes

SIDE = 32
BOX = np.array([[8.0, 8.0, 16.0, 16.0]])  # four blocks


class Weighted(nn.Module):
    """Sum of the input's pixels times fixed weights, as a convolution over the whole picture."""

    def __init__(self, weights):
        super().__init__()
        self.sum = nn.Conv2d(1, 1, SIDE, bias=False)
        self.sum.weight.data = weights[None, None]

    def forward(self, x):
        return self.sum(x).flatten(1)


def cases_of(model, x, boxes=BOX, cameras=()):
    return Cases(model.eval(), x, lambda output, numbers: output[:, 0] + 0 * numbers, boxes, cameras)


@pytest.fixture
def four():
    """A model that sums the four bright blocks of the frame, the first most; and its picture."""
    weights, x = torch.zeros(SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    for number, (row, column) in enumerate([(2, 2), (2, 3), (3, 2), (3, 3)]):
        block = np.s_[row * POOL : (row + 1) * POOL, column * POOL : (column + 1) * POOL]
        weights[block] = (4 - number) / POOL**2
        x[0, 0][block] = 1.0
    return cases_of(Weighted(weights), x)


def truth(cases):
    return (cases.x * cases.model.sum.weight)[:, 0].detach().double().numpy()


def test_areas_under_the_curves_by_hand(four, monkeypatch):
    monkeypatch.setattr(Cases, "blank", lambda cases: torch.zeros_like(cases.x))
    deletion, insertion = perturbation_areas(truth(four), four)
    # an eighth and a quarter of the frame are one block of worth 4 of 10, a half two (4 + 3), all and twice all four
    left = [6, 6, 3, 0, 0]
    assert SHARES == (0.125, 0.25, 0.5, 1.0, 2.0)
    assert deletion == pytest.approx([np.mean(left) / 10])
    assert insertion == pytest.approx([1 - np.mean(left) / 10])
    worst, _ = perturbation_areas(-truth(four), four)
    assert worst == pytest.approx([1.0])  # eight blocks outside the frame go first


def test_a_number_that_blurring_leaves_gives_no_area(four):
    weak = copy.deepcopy(four.model)
    weak.sum.weight.data *= 1e-3
    deletion, insertion = perturbation_areas(truth(four), cases_of(weak, four.x))
    assert np.isnan([deletion, insertion]).all()


def test_blurring_keeps_the_mean_and_takes_detail():
    x = torch.rand(1, 1, 64, 64)
    low = blurred(x, 4)
    assert low.shape == x.shape
    assert float(low.mean()) == pytest.approx(float(x.mean()), abs=0.02)
    assert float(low.std()) < 0.2 * float(x.std())
    assert torch.allclose(blurred(torch.full((1, 1, 40, 40), 0.3), 9), torch.tensor(0.3))


def test_pooling_and_pointing_by_hand():
    maps = np.zeros((2, SIDE, SIDE))
    maps[0, 8:12, 12:16] = 1  # a whole block inside the frame
    maps[0, 0, 0] = 10  # its sum is less
    maps[1, 20:24, 20:24] = 1
    assert pooled(maps)[0, 2, 3] == 16
    assert pooled(maps)[0, 0, 0] == 10
    assert points_into_box(maps, np.repeat(BOX, 2, axis=0)).tolist() == [1, 0]


def test_likeness_is_of_the_neighbourhood_and_has_no_sign():
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((1, SIDE, SIDE))
    assert likeness(maps, -2 * maps + 1, BOX) == pytest.approx([1])
    far = maps.copy()
    far[:, 24:] = 50  # beyond twice the frame
    assert near_boxes(BOX, SIDE).tolist() == [[4, 4, 20, 20]]
    assert likeness(maps, far, BOX) == pytest.approx([1])
    other = rng.standard_normal((1, SIDE, SIDE))
    expected = abs(np.corrcoef(maps[0, 4:20, 4:20].ravel(), other[0, 4:20, 4:20].ravel())[0, 1])
    assert likeness(maps, other, BOX) == pytest.approx([expected])
    assert np.isnan(likeness(maps, np.zeros_like(maps), BOX)[0])


@pytest.mark.parametrize("name", [*COMPOSITES[:1], "input_x_gradient", "integrated_gradients"])
def test_a_linear_model_is_explained_exactly(four, name):
    torch.manual_seed(0)
    cases = cases_of(four.model, torch.rand(1, 1, SIDE, SIDE))
    found = method_maps(name, cases, 0.1)
    np.testing.assert_allclose(found, truth(cases), atol=2e-2 * np.abs(truth(cases)).max())


def test_occlusion_of_a_linear_model_is_what_the_blurred_cell_loses(four):
    found = method_maps("occlusion", four, 0.1)
    lost = ((four.x - blurred(four.x, 4)) * four.model.sum.weight)[0, 0].detach().numpy()
    assert found.sum() == pytest.approx(lost.sum(), rel=1e-4)
    # the grid reaches 1.5 frames: cells of three pixels from the sixth on
    assert found[0, 6:9, 6:9] == pytest.approx(np.full((3, 3), lost[6:9, 6:9].mean()), rel=1e-4)


def test_methods_that_dont_fit_or_dont_exist(four):
    assert method_maps("grad_cam", four, 0.1) is None
    with pytest.raises(ConfigError, match="'saliency' isn't known; choose of epsilon"):
        method_maps("saliency", four, 0.1)
    assert [*CONTROLS, *METHODS] == tables.MAP_METHODS
    offered = schema()["properties"]["explain"]["properties"]["faithfulness"]["properties"]["methods"]
    assert set(offered["items"]["enum"]) == set(METHODS)


def test_grad_cam_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 64, 1))
    x = torch.rand(1, 1, SIDE, SIDE)
    found = method_maps("grad_cam", cases_of(model, x, cameras=("0",)), 0.1)
    seen = model[0](x)
    (gradient,) = torch.autograd.grad(model[1:](seen)[0, 0], seen)
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * seen).sum(1, keepdim=True))
    expected = nn.functional.interpolate(expected, (SIDE, SIDE), mode="bilinear")
    np.testing.assert_allclose(found[0], expected[0, 0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(("stage", "changed"), [("head", 1), ("upper_half", 2), ("all", 4)])
def test_randomising_goes_from_the_head_down(stage, changed):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4))).eval()
    before = [layer.weight.detach().clone() for layer in model]
    x = torch.rand(2, 1, 8, 8)
    randomise(model, stage, x, seed=1)
    differs = [not torch.equal(layer.weight, kept) for layer, kept in zip(model, before, strict=True)]
    assert differs == [False] * (4 - changed) + [True] * changed
    again = copy.deepcopy(model)
    randomise(again, stage, x, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_randomised_normalisations_get_statistics_and_the_model_stays_in_evaluation():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    x = 5 + torch.rand(3, 1, 8, 8)
    randomise(model, "all", x, seed=0)
    assert not model[1].training
    assert model[1].momentum == 0.1
    out = model(x)
    assert out.mean((0, 2, 3)).detach().numpy() == pytest.approx([0, 0], abs=1e-4)


def test_every_method_and_control_gets_its_row():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", in_chans=1, num_classes=2, img_size=SIDE, patch_size=8).eval()
    x = torch.rand(2, 1, SIDE, SIDE)
    cases = Cases(model, x, lambda out, n: out[:, 1] - out[:, 0] + 0 * n, np.repeat(BOX, 2, axis=0), ())
    other = copy.deepcopy(model)
    randomise(other, "all", x, seed=3)
    others = Cases(other, x, cases.select, cases.boxes, ())
    quiet = Cases(model, noisy(cases, 0), cases.select, cases.boxes, ())
    rows = measure(cases, quiet, {"all": others}, others, ["epsilon", "grad_cam", "input_x_gradient"], 0.1, 0)
    assert [(row["method"], row["case"]) for row in rows] == [
        (name, case) for name in ("control_blob", "control_random", "epsilon", "input_x_gradient") for case in (0, 1)
    ]
    blob, epsilon = rows[0], rows[4]
    assert blob["mass_in_box"] == pytest.approx(0.911, abs=0.01)
    assert blob["pointing"] == 1
    assert "stability" not in blob
    assert epsilon["randomised_all"] == epsilon["fold_agreement"] < 0.9
    assert epsilon["stability"] > epsilon["fold_agreement"]


def test_mass_and_pointing_agree_with_quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its docstrings hold invalid escapes
        quantus = importlib.import_module("quantus")
    rng = np.random.default_rng(1)
    blocks = rng.random((4, SIDE // POOL, SIDE // POOL))
    maps = np.kron(blocks, np.ones((POOL, POOL)))
    maps[0, 8:12, 8:12] = maps[1, 12:16, 8:12] = 2
    masks = np.zeros((4, 1, SIDE, SIDE), bool)
    masks[:, :, 8:16, 8:16] = True
    given = {
        "model": None,
        "x_batch": maps[:, None],
        "y_batch": np.zeros(4, int),
        "a_batch": maps[:, None],
        "s_batch": masks,
    }
    options = {"abs": False, "normalise": False, "disable_warnings": True}
    own = [maps[n, 8:16, 8:16].sum() / maps[n].sum() for n in range(4)]
    assert quantus.RelevanceMassAccuracy(**options)(**given) == pytest.approx(own)
    points = quantus.PointingGame(**options)(**given)
    assert points_into_box(maps, np.repeat(BOX, 4, axis=0)).tolist() == [float(one) for one in points]
    assert set(points) == {True, False}


def test_random_controls_are_the_same_again(four):
    assert (control_maps("control_random", four, 1) == control_maps("control_random", four, 1)).all()
    assert (control_maps("control_random", four, 1) != control_maps("control_random", four, 2)).any()
