import hashlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from ultralytics.cfg import get_cfg

from mammoflow.detect.infer import detect_images
from mammoflow.detect.model import build_model, load_detector, load_pretrained, local_weights, save_detector
from mammoflow.errors import ModelError

HEADER = {"architecture": "yolov5n", "classes": ["lesion", "nipple"], "image_size": 64, "fold": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model("yolov5n")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_detector(path, model.state_dict(), HEADER)
    return model.eval(), path


def test_detector_comes_back_the_same(saved):
    model, path = saved
    detector = load_detector(path)
    picture = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(detector.model(picture)[0], model(picture)[0])
    assert (detector.architecture, detector.classes, detector.image_size) == ("yolov5n", ("lesion", "nipple"), 64)
    assert detector.fold == 1
    assert detector.digest == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert not detector.model.training


def test_same_weights_give_the_same_bytes(saved, tmp_path):
    model, path = saved
    save_detector(tmp_path / "again.safetensors", model.state_dict(), dict(reversed(HEADER.items())))
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["yolov6n", "yolo11n", "yolov10n", "yolo26n"])
def test_any_detection_architecture_reads_one_grey_channel(architecture, tmp_path):
    path = tmp_path / "model.safetensors"
    save_detector(path, build_model(architecture).state_dict(), {**HEADER, "architecture": architecture})
    output = load_detector(path).model(torch.zeros(1, 1, 64, 64))
    prediction = output[0] if isinstance(output, tuple) else output
    assert prediction.shape == (1, 4 + 2, 8 * 8 + 4 * 4 + 2 * 2)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["yolov5n", "yolov5s", "yolov6n", "yolo11n", "yolo26n", "rtdetr-l"])
def test_an_architecture_learns_and_comes_back(architecture, tmp_path):
    """Forward, loss, gradient, and the weights through a file."""
    torch.manual_seed(0)
    size = 128 if architecture == "rtdetr-l" else 64
    model = build_model(architecture).train()
    model.args, model.nc = get_cfg(), 2
    batch = {
        "img": torch.rand(2, 1, size, size), "cls": torch.tensor([[0.0], [1.0]]), "batch_idx": torch.tensor([0.0, 1.0]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.3, 0.3], [0.4, 0.4, 0.2, 0.2]]),
    }  # fmt: skip
    loss = model.loss(batch)[0].sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0
    path = tmp_path / "model.safetensors"
    save_detector(path, model.state_dict(), {**HEADER, "architecture": architecture, "image_size": size})
    back = load_detector(path)
    for name, tensor in model.eval().state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name
    found = detect_images(back, [np.zeros((size, size // 2), np.uint8)], 0.0, 0.4)
    assert len(found) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5m", "yolov6s", "yolov6m", "yolo11s", "yolo12n", "yolov8n"])
def test_larger_ones_and_other_families_are_built_by_name(name):
    assert build_model(name).model[0].conv.in_channels == 1


@pytest.mark.parametrize(
    "name", ["yolov5", "yolov5n-seg", "yolov8n-seg", "yolo11n-cls", "resnet50", "https://x/y", "../a"]
)
def test_what_is_no_detector_is_refused_with_examples(name):
    if name == "yolov5":  # without a size Ultralytics takes the smallest
        assert build_model(name) is not None
        return
    with pytest.raises(ModelError, match=r"detect\.architectures") as caught:
        build_model(name)
    assert "yolov6n" in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"model": 1})])
def test_a_file_that_is_no_detector_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="train it again"):
        load_detector(path)


def test_missing_detector_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        load_detector(tmp_path / "none.safetensors")


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pretrained_tensors_go_by_name_and_shape_and_colour_is_summed(tmp_path):
    model = build_model("yolov5n")
    own = model.state_dict()
    colour = torch.rand(16, 3, 6, 6)
    given = {
        "model.0.conv.weight": colour.half(),
        "model.1.bn.bias": torch.full((32,), 7.0),
        "model.1.bn.weight": torch.zeros(5),
        "elsewhere": torch.zeros(3),
    }
    path = tmp_path / "weights.safetensors"
    save_file(given, path)
    assert load_pretrained(model, str(path), sha256(path)) == (2, len(own))
    assert model.state_dict()["model.0.conv.weight"].allclose(colour.half().float().sum(1, keepdim=True))
    assert (model.state_dict()["model.1.bn.bias"] == 7).all()
    assert (model.state_dict()["model.1.bn.weight"] == 1).all()


def test_weights_by_address_are_fetched_once_and_checked(tmp_path):
    source, kept = tmp_path / "w.safetensors", tmp_path / "kept"
    save_file({"a": torch.zeros(1)}, source)
    weights = {"url": source.as_uri(), "sha256": sha256(source)}
    fetched = local_weights(weights, kept)
    assert fetched == str(kept / f"{weights['sha256']}.safetensors")
    source.unlink()
    assert local_weights(weights, kept) == fetched
    with pytest.raises(ModelError, match="can't be fetched"):
        local_weights({**weights, "sha256": "1" * 64}, kept)
    save_file({"a": torch.ones(1)}, source)
    with pytest.raises(ModelError, match="expected 1111"):
        local_weights({**weights, "sha256": "1" * 64}, kept)
    assert [path.name for path in kept.iterdir()] == [f"{weights['sha256']}.safetensors"]


def test_state_dict_inside_a_checkpoint_of_tensors(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {"model.1.bn.bias": torch.full((32,), 7.0)}, "epoch": 3}, path)
    assert load_pretrained(build_model("yolov5n"), str(path), sha256(path))[0] == 1


class Harmful:
    def __reduce__(self):
        return (open, ("/dev/null",))


def test_a_pickled_object_is_never_run(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"model": Harmful()}, path)
    with pytest.raises(ModelError, match="more than tensors"):
        load_pretrained(build_model("yolov5n"), str(path), sha256(path))


def test_wrong_digest_missing_file_and_no_fit_are_errors(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    model = build_model("yolov5n")
    with pytest.raises(ModelError, match="expected 00"):
        load_pretrained(model, str(path), "00")
    with pytest.raises(ModelError, match=r"detect\.weights\.path"):
        load_pretrained(model, str(tmp_path / "none.pt"), "00")
    with pytest.raises(ModelError, match="none of its 1 tensors"):
        load_pretrained(model, str(path), sha256(path))
