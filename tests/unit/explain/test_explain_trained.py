"""What only a trained detector can show: a map depends on its weights and on which lesion is asked about."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from mammoflow.detect.model import build_model
from mammoflow.explain.engine import relevance

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

PIXELS, STRIDE, STEPS, BATCH = 96, 8, 70, 8
RANDOMISATIONS = 4
CELLS = PIXELS // STRIDE
NECK = {"yolov5n": 10, "yolov6n": 10, "yolo11n": 11}  # layers from here on are neck and head
NEAR = 14  # pixels around a lesion


def texture(rng):
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(PIXELS), np.fft.fftfreq(PIXELS)))
    frequency[0, 0] = 1
    field = np.real(np.fft.ifft2(np.fft.fft2(rng.standard_normal((PIXELS, PIXELS))) / frequency**1.2))
    return (field - field.min()) / (field.max() - field.min())


def scenes(rng, count):
    """Two rayed spots (lesions) and one disc (none) on 1/f texture; lesions' centres as y, x, (count, 2, 2)."""
    y, x = np.mgrid[:PIXELS, :PIXELS]
    pictures = np.stack([0.6 * texture(rng) for _ in range(count)])
    lesions = np.zeros((count, 2, 2), int)
    for picture, centres in zip(pictures, lesions, strict=True):
        for number, quadrant in enumerate(rng.permutation(4)[:3]):
            cy, cx = rng.uniform(0.15, 0.35, 2) * PIXELS + PIXELS / 2 * np.array(divmod(quadrant, 2))
            distance, angle = np.hypot(y - cy, x - cx), np.arctan2(y - cy, x - cx) + rng.uniform(0, np.pi)
            if number < 2:
                rays = (np.cos(5 * angle) > 0.7) * np.exp(-(distance**2) / 60)
                picture += 0.5 * np.exp(-(distance**2) / 18) + 0.5 * rays
                centres[number] = int(cy), int(cx)
            else:
                picture += 0.5 / (1 + np.exp((distance - 5) * 2))
    return torch.from_numpy(pictures[:, None]).clip(0, 1).float(), lesions


def anchors(lesions):
    return lesions[..., 0] // STRIDE * CELLS + lesions[..., 1] // STRIDE


def calibrate(model, rng):
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(scenes(rng, BATCH)[0])
    return model.eval()


def randomised(model, neck, seed, rng):
    """Copy of the model whose neck and head have new random weights."""
    copied = copy.deepcopy(model)
    torch.manual_seed(seed)
    for layer in copied.model[neck:]:
        for module in layer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    kept = copy.deepcopy(copied.model[:neck].state_dict())
    calibrate(copied, rng)
    copied.model[:neck].load_state_dict(kept)
    return copied


@pytest.fixture(scope="module", params=NECK)
def trained(request):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build_model(request.param).train()
    for branch in model.model[-1].cv3:
        nn.init.constant_(branch[-1].bias, -3.0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    weight = torch.tensor(5.0)
    for _ in range(STEPS):
        x, lesions = scenes(rng, BATCH)
        logits = model(x)["scores"][:, 0, : CELLS**2]
        truth = torch.zeros_like(logits).scatter_(1, torch.from_numpy(anchors(lesions)), 1.0)
        loss = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="sum") / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    calibrate(model, rng)
    return [model, *(randomised(model, NECK[request.param], seed, rng) for seed in range(RANDOMISATIONS))]


only_yolov5 = pytest.mark.parametrize("trained", ["yolov5n"], indirect=True)


@pytest.fixture(scope="module")
def seen():
    return scenes(np.random.default_rng(9), 6)


def lesion_maps(model, seen, number, composite="epsilon_gamma_flat"):
    """Maps (N, H, W) of the lesion with this number in each picture."""
    x, lesions = seen
    index = torch.from_numpy(anchors(lesions)[:, number])[:, None]
    return relevance(model, x, lambda out: out[1]["scores"][:, 0].gather(1, index)[:, 0], composite)[:, 0]


def near(relevance_map, centre):
    y, x = centre
    return relevance_map[max(y - NEAR, 0) : y + NEAR, max(x - NEAR, 0) : x + NEAR]


def likeness(trained, seen, composite):
    """Mean |Pearson| of the maps near the lesion before and after the neck and head are randomised."""
    before, *after = (lesion_maps(model, seen, 0, composite) for model in trained)
    pairs = [
        torch.stack([near(one, lesion[0]).flatten(), near(other, lesion[0]).flatten()])
        for maps in after
        for one, other, lesion in zip(before, maps, seen[1], strict=True)
    ]
    return float(np.mean([abs(float(torch.corrcoef(pair)[0, 1])) for pair in pairs]))


def test_a_map_depends_on_the_weights_of_neck_and_head(trained, seen):
    assert likeness(trained, seen, "zplus") > 0.95  # the control: a map that hardly depends on them
    assert likeness(trained, seen, "epsilon") < 0.75


def test_the_studys_composite_is_the_one_that_depends_on_the_weights():
    assert yaml.safe_load((ROOT / "config.yaml").read_text())["explain"]["composite"] == "epsilon"


@only_yolov5
def test_the_smooth_composite_fails_though_less_than_the_control(trained, seen):
    smooth = likeness(trained, seen, "epsilon_gamma_flat")
    assert 0.75 < smooth < likeness(trained, seen, "zplus") - 0.05


def test_a_map_depends_on_the_weights_of_an_untrained_net(seen):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    fresh = calibrate(build_model("yolov5n"), rng)
    nets = [fresh, *(randomised(fresh, NECK["yolov5n"], seed, rng) for seed in range(RANDOMISATIONS))]
    assert likeness(nets, seen, "zplus") > 0.95
    assert likeness(nets, seen, "epsilon") < 0.5
    assert likeness(nets, seen, "epsilon_gamma_flat") < 0.9


def from_other_pictures(maps, lesions):
    """Mean |Pearson| of the surroundings of lesions in different pictures: what is the method's own blob."""
    cuts = [near(one, lesion) for one, lesion in zip(maps, lesions, strict=True)]
    pairs = [(one, other) for one, other in itertools.combinations(cuts, 2) if one.shape == other.shape]
    return float(np.mean([abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) for one, other in pairs]))


@only_yolov5
def test_flat_and_gamma_draw_blobs_of_one_sign_on_a_trained_net(trained, seen):
    """Why their maps survive randomisation: any net has the blob, only its sign and strength tell nets apart."""
    gamma = lesion_maps(trained[0], seen, 0)
    epsilon = lesion_maps(trained[0], seen, 0, "epsilon")
    assert min((gamma * sign).clamp(max=0).abs().sum() / gamma.abs().sum() for sign in (1, -1)) < 0.02
    assert epsilon.clamp(max=0).abs().sum() / epsilon.abs().sum() > 0.2
    assert from_other_pictures(gamma, seen[1][:, 0]) > 0.6
    assert from_other_pictures(epsilon, seen[1][:, 0]) < 0.3


def test_explaining_one_lesion_points_at_it_and_not_at_the_other(trained, seen):
    for composite, number in itertools.product(("epsilon", "epsilon_gamma_flat"), (0, 1)):
        for relevance_map, lesions in zip(lesion_maps(trained[0], seen, number, composite), seen[1], strict=True):
            own, other = (near(relevance_map, lesions[one]).abs().sum() for one in (number, 1 - number))
            assert own > 2 * other
