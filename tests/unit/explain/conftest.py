import copy
from functools import cache

import numpy as np
import pytest
import timm
import torch
from torch import nn

from mammoflow.detect.model import build_model

YOLO_PIXELS, CROP_PIXELS = 64, 32


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def _pictures(count, pixels, seed=0):
    """Random blobs on noise, float32 (count, 1, pixels, pixels), 0..1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:pixels, :pixels]
    pictures = 0.2 * rng.random((count, pixels, pixels))
    for picture in pictures:
        centre = rng.uniform(0.2, 0.8, 2) * pixels
        picture += 0.7 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * (pixels / 12) ** 2))
    return torch.from_numpy(pictures[:, None]).float()


def _calibrate(model, pixels):
    """Give batch normalisations statistics of real activations; without them a fresh net hardly looks at its input."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model(_pictures(6, pixels, seed))
    return model.eval()


@cache
def _built(name):
    torch.manual_seed(1)
    if name.startswith("yolo"):
        model = build_model(name)
        model.end2end = False
        return _calibrate(model, YOLO_PIXELS)
    vit = {"img_size": CROP_PIXELS, "patch_size": 8}
    options = vit if name.startswith("vit") else {"zero_init_last": False}  # else all residual branches are silent
    model = timm.create_model(name, in_chans=1, num_classes=2, **options)
    return model.eval() if name.startswith("vit") else _calibrate(model, 64)


def dense(output):
    """Class scores before the sigmoid, (N, classes, anchors); newer families have a second head for single answers."""
    return output[1].get("one2many", output[1])["scores"]


@pytest.fixture
def network():
    """Function from an architecture's name to a calibrated net in float64, a batch of two for it, and a target."""

    def make(name, dtype=torch.float64):
        model = copy.deepcopy(_built(name)).to(dtype)
        if name.startswith("yolo"):
            x = _pictures(2, YOLO_PIXELS, seed=9).to(dtype)
            return model, x, lambda output: dense(output)[:, 0, 27] + dense(output)[:, 1, 82]
        x = _pictures(2, CROP_PIXELS, seed=9).to(dtype)
        return model, x, lambda logits: logits[:, 1] - logits[:, 0]

    return make


@pytest.fixture
def pictures():
    return _pictures
