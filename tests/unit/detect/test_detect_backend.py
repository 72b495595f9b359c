import copy
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from mammoflow.detect import backend, shard
from mammoflow.detect.backend import OnnxNetwork, for_inference, with_backend
from mammoflow.detect.infer import detect_images, forward
from mammoflow.detect.model import Detector, build_model

SETTINGS = {"min_score": 0.05, "nms_iou": 0.4}


@pytest.fixture(scope="module")
def detector():
    """A YOLO whose random weights answer to the picture: normalisation is calibrated, scores are spread."""
    torch.manual_seed(0)
    model = build_model("yolov5n").train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(torch.rand(2, 1, 96, 96))
    for branch in model.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, std=0.05)
        torch.nn.init.constant_(branch[-1].bias, -1.0)
    return Detector(model.eval().requires_grad_(False), "yolov5n", ("lesion", "nipple"), 96, 0, "0" * 16)


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((90, 40), (96, 96), (30, 80), (90, 45))]


def digest(model: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def test_folded_layers_give_the_same_and_the_detector_stays_as_it_is(detector, pictures):
    before = digest(detector.model)
    folded = for_inference(detector)
    canvas = [pictures[1]]
    ours, theirs = forward(folded, canvas), forward(detector, canvas)
    assert torch.allclose(ours[:, 4:], theirs[:, 4:], atol=1e-3)
    assert torch.allclose(ours[:, :4], theirs[:, :4], atol=0.1)  # pixels of 96
    assert len(list(folded.model.modules())) < len(list(detector.model.modules()))
    assert digest(detector.model) == before


def test_half_precision_keeps_fractions_of_a_pixel(detector):
    canvas = [np.random.default_rng(0).integers(0, 256, (1280, 64), dtype=np.uint8)]
    half = replace(detector, model=backend.in_half_precision(copy.deepcopy(detector.model)))
    plain = replace(detector, model=copy.deepcopy(detector.model).half())
    ours, theirs = (forward(one, canvas) for one in (half, plain))
    low = ours[:, 1] > 1024
    assert (theirs[:, 1][low].frac() == 0).all()  # from there on float16 has whole pixels only
    assert (ours[:, 1][low].frac() != 0).float().mean() > 0.9
    assert torch.allclose(ours[:, :4], theirs[:, :4], atol=2)
    again = replace(half, model=copy.deepcopy(half.model))
    assert torch.equal(forward(again, canvas), ours)


def test_onnx_runtime_gives_torchs_frames_for_any_size_and_batch(detector, pictures):
    fast = with_backend(detector, "onnxruntime", 1, pictures[:2], SETTINGS)
    assert isinstance(fast.model, OnnxNetwork)
    ours, theirs = (detect_images(one, pictures, **SETTINGS) for one in (fast, detector))
    assert sum(len(frames.scores) for frames in theirs) > 4
    for a, b in zip(ours, theirs, strict=True):
        assert a.boxes == pytest.approx(b.boxes, abs=0.1)
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_other_frames_fall_back_to_torch_with_a_warning(detector, pictures, monkeypatch, caplog):
    monkeypatch.setattr(OnnxNetwork, "forward", lambda self, inputs: self.model(inputs)[0] * 1.1)
    used = with_backend(detector, "onnxruntime", 1, pictures[:2], SETTINGS)
    assert not isinstance(used.model, OnnxNetwork)
    assert "frames differ from torch's" in caplog.text


def test_what_cant_be_exported_falls_back_too(detector, pictures, monkeypatch, caplog):
    def refuse(model):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(backend, "export", refuse)
    assert not isinstance(with_backend(detector, "onnxruntime", 1, pictures[:1], SETTINGS).model, OnnxNetwork)
    assert "no such operator" in caplog.text


class Fixed(torch.nn.Module):
    """A YOLO of three anchors with a given output."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.tensor(rows))

    def forward(self, inputs):
        return self.rows.T[None]


def test_equal_outputs_by_hand():
    picture = np.zeros((64, 64), np.uint8)

    def same(*rows):
        first = [[5.0, 5, 9, 9, 0.5, 0], [20, 5, 9, 9, 0.2, 0], [30, 30, 9, 9, 0.01, 0]]
        pair = [Detector(Fixed(*one), "yolov5n", ("lesion", "nipple"), 64, 0, "0" * 16) for one in (first, rows)]
        return backend.same_output(*pair, picture, 0.05)

    one, two, low = [5.0, 5, 9, 9, 0.5, 0], [20.0, 5, 9, 9, 0.2, 0], [0.0, 0, 1, 1, 0.04, 0]
    assert same(one, two, low)  # an anchor below the lowest score may be anywhere
    assert not same(one, [20.0, 5.6, 9, 9, 0.2, 0], low)
    assert same(one, [20.0, 5.4, 9, 9, 0.2005, 0], low)
    assert not same([5.0, 5, 9, 9, 0.502, 0], two, low)
    assert not same([5.0, 5, 9, 9, 0.5, 0.1], two, low)
    assert not same(one, two, [30.0, 30, 9, 9, 0.06, 0])


def test_prefetching_keeps_the_order_and_its_bound():
    begun, given = [], []

    def read(number):
        begun.append(number)
        return number * 10

    for value in shard.prefetched(read, range(50), 4):
        assert len(begun) <= len(given) + 5 + 1
        given.append(value)
    assert given == [number * 10 for number in range(50)]
    assert list(shard.prefetched(lambda number: number, range(50), 8, readers=3)) == list(range(50))
    stream = shard.prefetched(read, range(1000), 4)
    next(stream)
    stream.close()
    assert len(begun) < 50 + 10
