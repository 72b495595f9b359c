import hashlib

import numpy as np
import pytest
import torch

from mammoflow.detect import backend, shard
from mammoflow.detect.backend import OnnxNetwork, for_inference, same_frames, with_backend
from mammoflow.detect.infer import Frames, detect_images, forward
from mammoflow.detect.model import Detector, build_model

SETTINGS = {"min_score": 0.05, "nms_iou": 0.4}


@pytest.fixture(scope="module")
def detector():
    """A YOLO whose random weights answer to the picture: normalisation is calibrated, scores are spread."""
    torch.manual_seed(0)
    model = build_model("yolov5n").train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(2, 1, 64, 64))
    for branch in model.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, std=0.3)
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
    assert torch.allclose(forward(folded, canvas), forward(detector, canvas), atol=1e-3)
    assert len(list(folded.model.modules())) < len(list(detector.model.modules()))
    assert digest(detector.model) == before


def test_onnx_runtime_gives_torchs_frames_for_any_size_and_batch(detector, pictures):
    fast = with_backend(detector, "onnxruntime", 1, pictures[:2], SETTINGS)
    assert isinstance(fast.model, OnnxNetwork)
    ours, theirs = (detect_images(one, pictures, **SETTINGS) for one in (fast, detector))
    assert sum(len(frames.scores) for frames in theirs) > 4
    assert all(same_frames(a, b) for a, b in zip(ours, theirs, strict=True))


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


def frames(*rows: tuple[float, ...]) -> Frames:
    table = np.array(rows, float).reshape(-1, 6)
    return Frames(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_equal_frames_by_hand():
    one, two = (1, 1, 9, 9, 0.5, 0), (20, 1, 29, 9, 0.4999, 0)
    assert same_frames(frames(one, two), frames(two, one))
    assert same_frames(frames(), frames())
    assert not same_frames(frames(one), frames(one, two))
    assert not same_frames(frames(one, two), frames(one, one))
    assert not same_frames(frames(one), frames((1, 1, 9.6, 9, 0.5, 0)))
    assert not same_frames(frames(one), frames((1, 1, 9, 9, 0.502, 0)))
    assert not same_frames(frames(one), frames((1, 1, 9, 9, 0.5, 1)))


def test_prefetching_keeps_the_order_and_its_bound():
    begun, given = [], []

    def read(number):
        begun.append(number)
        return number * 10

    for value in shard.prefetched(read, range(50), 4):
        assert len(begun) <= len(given) + 5 + 1
        given.append(value)
    assert given == [number * 10 for number in range(50)]
    stream = shard.prefetched(read, range(1000), 4)
    next(stream)
    stream.close()
    assert len(begun) < 50 + 10
