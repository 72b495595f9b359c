"""A detector's network: built from an Ultralytics architecture by name, kept as safetensors, never unpickled."""

import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from ultralytics.nn.modules.head import OBB, Classify, Detect, Pose, RTDETRDecoder, Segment
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel
from ultralytics.utils import ROOT

from mammoflow.errors import ModelError
from mammoflow.files import whole_file
from mammoflow.provenance import DIGEST_LENGTH, file_sha256
from mammoflow.tables import FINDINGS

CHANNELS = 1  # a mammogram is grey
HEADER = "mammoflow"  # one header entry: safetensors writes several in an order that changes from run to run
EXAMPLES = "yolov5n, yolov6n, yolov8s, yolo11n, yolo26n, rtdetr-l"


@dataclass(frozen=True)
class Detector:
    """A trained detector.

    Attributes
    ----------
    model : network in float32 and evaluation mode; input (N, 1, image_size, image_size), grey levels 0..1.
    architecture : Ultralytics name, for example ``yolov6n``.
    classes : names by class number, ``("lesion", "nipple")``.
    image_size : side of the input, pixels.
    fold : fold whose patients it never saw.
    without : another such fold, or None.
    digest : first 16 hexadecimal digits of the file's SHA-256.
    tiles : how pictures are cut up for it; see `mammoflow.detect.tiles.tile_grid`.
    """

    model: torch.nn.Module
    architecture: str
    classes: tuple[str, ...]
    image_size: int
    fold: int
    digest: str
    tiles: dict[str, Any] | None = None
    without: int | None = None

    @property
    def left_out(self) -> set[int]:
        """Folds whose patients it never saw."""
        return {self.fold} if self.without is None else {self.fold, self.without}


def is_rtdetr(architecture: str) -> bool:
    """Whether the architecture is an RT-DETR, which Ultralytics trains and decodes in another way than a YOLO."""
    return "rtdetr" in architecture


def build_model(architecture: str, classes: int = len(FINDINGS)) -> torch.nn.Module:
    """Build a detection network with random weights and one input channel.

    Raises
    ------
    ModelError
        Ultralytics has no detection architecture of that name.
    """
    network = RTDETRDetectionModel if is_rtdetr(architecture) else DetectionModel
    model: Any = network(_architecture_file(architecture), ch=CHANNELS, nc=classes, verbose=False)
    head = model.model[-1]
    if not isinstance(head, Detect | RTDETRDecoder) or isinstance(head, Segment | Pose | OBB | Classify):
        raise ModelError(_unknown(architecture, "its output isn't boxes"))
    return model


def save_detector(path: str | Path, state: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Write weights (float32) and what is known of them to `path`, whole; the same input gives the same bytes."""
    tensors = {name: tensor.detach().cpu().float().contiguous().clone() for name, tensor in state.items()}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={HEADER: json.dumps(header, sort_keys=True)})


def load_detector(path: str | Path, device: str = "cpu") -> Detector:
    """Rebuild a detector from what `save_detector` wrote.

    Raises
    ------
    ModelError
        The file isn't a detector of this project.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[HEADER])
        state = load_file(path)
        architecture, classes = header["architecture"], tuple(header["classes"])
        model: Any = build_model(architecture, len(classes))
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a detector written by detect_train: {error}; train it again") from error
    if hasattr(model, "end2end"):
        model.end2end = False  # the dense output, as in validation; overlaps go by non-maximum suppression
    model = model.float().eval().to(device).requires_grad_(False)
    digest = file_sha256(path)[:DIGEST_LENGTH]
    tiles, without = header.get("tiles"), header.get("without")
    return Detector(model, architecture, classes, header["image_size"], header["fold"], digest, tiles, without)


def load_pretrained(model: torch.nn.Module, path: str, sha256: str) -> tuple[int, int]:
    """Copy into `model` the tensors of a weights file that fit by name and shape.

    A first layer made for colour is summed over its three channels: a grey picture is three equal ones.

    Parameters
    ----------
    path : ``.safetensors`` file, or a PyTorch file that holds nothing but tensors (a state dict).
    sha256 : expected digest of the file, 64 hexadecimal digits.

    Returns
    -------
    Number of tensors taken and of tensors in the model.

    Raises
    ------
    ModelError
        The file is missing, has another digest, holds more than tensors, or no tensor fits.
    """
    own = model.state_dict()
    given = _read_weights(path, sha256)
    fitting = {}
    for name, tensor in given.items():
        if name in own and tensor.ndim == 4 and tensor.shape[1] == 3 and own[name].shape[1] == CHANNELS:
            tensor = tensor.float().sum(1, keepdim=True)
        if name in own and own[name].shape == tensor.shape:
            fitting[name] = tensor.to(own[name].dtype)
    if not fitting:
        raise ModelError(
            f"{path}: none of its {len(given)} tensors fits the model by name and shape: detect.weights in config.yaml"
        )
    model.load_state_dict(fitting, strict=False)
    return len(fitting), len(own)


def local_weights(weights: dict[str, Any], directory: str | Path = "results/weights") -> str:
    """Path of a weights file; one given by address is fetched, once, and checked before it gets its name.

    Parameters
    ----------
    weights : `path` or `url`, and `sha256`.
    directory : where fetched files are kept, named after their digest.

    Raises
    ------
    ModelError
        The address can't be read, or gives another file.
    """
    if "path" in weights:
        return weights["path"]
    file = Path(directory, weights["sha256"] + Path(urllib.parse.urlparse(weights["url"]).path).suffix)
    if not file.is_file():
        try:
            with whole_file(file) as partial, urllib.request.urlopen(weights["url"]) as answer:
                Path(partial).write_bytes(answer.read())
                _check_digest(str(partial), weights["sha256"])
        except OSError as error:
            raise ModelError(
                f"{weights['url']}: can't be fetched: {error}; detect.weights.url in config.yaml"
            ) from error
    return str(file)


def _check_digest(path: str, sha256: str) -> None:
    found = file_sha256(path)
    if found != sha256:
        raise ModelError(
            f"{path}: SHA-256 is {found}, expected {sha256}: detect.weights.sha256 in config.yaml, or another file"
        )


def _read_weights(path: str, sha256: str) -> dict[str, torch.Tensor]:
    try:
        _check_digest(path, sha256)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error}; detect.weights.path in config.yaml") from error
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds, pickle's included
        raise ModelError(f"{path}: holds more than tensors or isn't a weights file: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def _architecture_file(architecture: str) -> str:
    """Ultralytics' own name of the architecture's YAML; refuses what it would look for elsewhere or download."""
    known = {path.stem for path in (ROOT / "cfg" / "models").rglob("*.yaml")}
    without_scale = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", architecture)
    if not {architecture, without_scale} & known:
        raise ModelError(_unknown(architecture, "Ultralytics has no such architecture"))
    return f"{architecture}.yaml"


def _unknown(architecture: str, why: str) -> str:
    return (
        f"detector '{architecture}' can't be built: {why}; expected a detection architecture such as {EXAMPLES}: "
        "detect.architectures in config.yaml"
    )
