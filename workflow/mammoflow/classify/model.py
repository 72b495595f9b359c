"""Classifiers of crops: built by timm's names, kept as safetensors, read back without unpickling anything."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from scipy.special import expit
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn

from mammoflow.classify.calibration import Calibration
from mammoflow.errors import ModelError
from mammoflow.files import whole_file
from mammoflow.provenance import DIGEST_LENGTH, file_sha256

CLASSES = ("benign", "malignant")
MALIGNANT = CLASSES.index("malignant")
MEAN, STD = 0.449, 0.226  # grey level of ImageNet (mean over its channels): timm's pretrained weights expect it
METADATA = "mammoflow"  # one key: safetensors keeps several in no fixed order, and equal models must be equal files

Crop = NDArray[Any]  # uint8 or uint16, full scale

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Classifier:
    """A trained classifier of crops.

    Attributes
    ----------
    model : module in eval mode, float32; (N, 1, S, S) from `preprocess` -> (N, 2) logits in the order of `classes`.
    architecture : timm's name.
    crop_size : side S of its input, pixels.
    classes : names of the logits.
    digest : first 16 hexadecimal digits of the file's SHA-256.
    fold : fold whose patients it never saw.
    calibration : what makes its probabilities those of the study (`mammoflow.classify.calibration`).
    """

    model: nn.Module
    architecture: str
    crop_size: int
    classes: tuple[str, ...]
    digest: str
    fold: int
    calibration: Calibration = field(default_factory=Calibration)


@dataclass(frozen=True)
class Scores:
    """What classifiers say of crops; float64 arrays, (N,), probability of malignant, 0..1.

    Attributes
    ----------
    probability : as the network says it.
    calibrated : the same, calibrated.
    """

    probability: NDArray[np.float64]
    calibrated: NDArray[np.float64]


def build(architecture: str, crop_size: int) -> nn.Module:
    """Make an untrained grey classifier with two logits.

    Raises
    ------
    ModelError
        timm doesn't know the name, or the architecture can't take crops of that size.
    """
    if not timm.is_model(architecture):
        raise ModelError(
            f"classify.architectures: timm has no model {architecture!r}; examples: resnet50, resnet18, "
            "vit_tiny_patch16_224, vit_base_patch16_224, convnext_tiny (timm.list_models() names all)"
        )
    configuration = timm.get_pretrained_cfg(architecture)
    # Transformers have one position embedding a patch, so they are built for one size; others take any.
    sized: dict[str, Any] = (
        {"img_size": crop_size} if configuration is not None and configuration.fixed_input_size else {}
    )
    try:
        model = timm.create_model(architecture, pretrained=False, in_chans=1, num_classes=len(CLASSES), **sized)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 1, crop_size, crop_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ModelError(
            f"{architecture} can't judge crops of {crop_size} px ({error}): change classify.crop_size "
            "or classify.architectures in config.yaml"
        ) from error
    return model


def start_from(model: nn.Module, weights: dict[str, str] | None) -> None:
    """Fill `model` with pretrained weights where name and shape agree, and log how many did.

    A three-channel first convolution is summed to one channel and position embeddings are interpolated to the
    crop's size, as timm does.

    Parameters
    ----------
    model : a module made by `build`.
    weights : ``{path, sha256}`` of a .safetensors file or a state dict written by ``torch.save``; None keeps the
        random start.

    Raises
    ------
    ModelError
        The file is missing, has another digest, can't be read without unpickling code, or fits nothing.
    """
    if weights is None:
        return
    given = _read_weights(Path(weights["path"]), weights["sha256"])
    own = model.state_dict()
    fitted = {name: _fit(name, tensor, own[name]) for name, tensor in given.items() if name in own}
    taken = {name: tensor for name, tensor in fitted.items() if tensor.shape == own[name].shape}
    left = sorted(set(own) - set(taken))
    log.info(
        "weights %s: %d of the model's %d tensors taken; from the random start: %s",
        weights["path"], len(taken), len(own), ", ".join(left[:8]) + (" ..." if len(left) > 8 else "") or "none",
    )  # fmt: skip
    if not taken:
        raise ModelError(f"{weights['path']}: none of its {len(given)} tensors fits the architecture by name and shape")
    model.load_state_dict(taken, strict=False)


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        if (found := file_sha256(path)) != sha256.lower():
            raise ModelError(f"{path}: SHA-256 is {found}, classify.weights.sha256 says {sha256}: not the same file")
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error}): see classify.weights.path") from error
    except Exception as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: neither safetensors nor a plain state dict: {error}") from error
    state = state.get("state_dict", state.get("model", state))
    return {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}


def _fit(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """Bring a colour stem or another grid of position embeddings to the shape of `own`, where that is possible."""
    if tensor.ndim == 4 and tensor.shape[1] == 3 and own.shape[1:2] == (1,):
        return adapt_input_conv(1, tensor)
    if name == "pos_embed" and tensor.ndim == 3 and tensor.shape != own.shape and tensor.shape[2] == own.shape[2]:
        side = int((own.shape[1] - 1) ** 0.5)
        return resample_abs_pos_embed(tensor, [side, side]) if side * side + 1 == own.shape[1] else tensor
    return tensor


def save_classifier(path: str | Path, model: nn.Module, record: dict[str, Any]) -> None:
    """Write float32 weights and `record` (architecture, crop_size, classes, fold, ...) as one safetensors file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as partial:
        save_file(state, partial, metadata={METADATA: json.dumps(record, sort_keys=True)})


def read_record(path: str | Path) -> dict[str, Any]:
    """Return what `save_classifier` wrote beside the weights.

    Raises
    ------
    ModelError
        The file is missing, isn't safetensors or holds no record.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            return json.loads((stream.metadata() or {})[METADATA])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: not a classifier of this workflow ({error!r}): delete it, and it is trained again"
        ) from error


def load_classifier(path: str | Path, device: str = "cpu") -> Classifier:
    """Read a classifier; nothing is unpickled.

    Raises
    ------
    ModelError
        The file isn't one that `train_classifier` wrote, or its weights don't fit its architecture.
    """
    record = read_record(path)
    model = build(record["architecture"], record["crop_size"])
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ModelError(f"{path}: weights don't fit {record['architecture']}: {error}") from error
    return Classifier(
        model=model.float().eval().to(device),
        architecture=record["architecture"],
        crop_size=record["crop_size"],
        classes=tuple(record["classes"]),
        digest=file_sha256(path)[:DIGEST_LENGTH],
        fold=record["fold"],
        calibration=Calibration(**record.get("calibration", {})),
    )


def resize(crop: Crop, crop_size: int) -> Crop:
    """Stretch a crop (H, W) to (S, S): by area when it shrinks, so that calcifications are averaged and not skipped."""
    shrinks = max(crop.shape) > crop_size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (crop_size, crop_size), interpolation=interpolation), dtype=crop.dtype)


def grey_levels(crops: Crop) -> Tensor:
    """Share of the full scale of their depth (8 or 16 bits), 0..1, of crops (N, S, S), as float32 (N, 1, S, S)."""
    return torch.from_numpy(crops.astype(np.float32) / np.iinfo(crops.dtype).max)[:, None]


def normalise(crops: Tensor) -> Tensor:
    """Grey levels 0..1 -> what the models see: mean 0 and spread 1 on natural pictures."""
    return (crops - MEAN) / STD


def preprocess(crops: Sequence[Crop], crop_size: int) -> Tensor:
    """Resize and normalise crops.

    Parameters
    ----------
    crops : uint8 or uint16 arrays (H, W), full scale, of any sizes; possibly none.
    crop_size : side S that the classifier expects, pixels.

    Returns
    -------
    float32 tensor (N, 1, S, S).
    """
    if not len(crops):
        return torch.zeros(0, 1, crop_size, crop_size)
    return normalise(torch.cat([grey_levels(resize(crop, crop_size)[None]) for crop in crops]))


@torch.inference_mode()
def logits(model: nn.Module, inputs: Tensor, batch: int = 64) -> Tensor:
    """Logits (N, 2) of preprocessed crops, on the CPU; `model` is put into eval mode."""
    model.eval()
    device = next(model.parameters()).device
    parts = [model(part.to(device)).float().cpu() for part in inputs.split(batch)] if len(inputs) else []
    return torch.cat(parts) if parts else torch.zeros(0, len(CLASSES))


def scores(classifier: Classifier, crops: Sequence[Crop]) -> Scores:
    """Probability of malignant, raw and calibrated, of each crop (uint8 or uint16 arrays (H, W) of any sizes)."""
    said = logits(classifier.model, preprocess(crops, classifier.crop_size)).double().numpy()
    malignant = classifier.classes.index("malignant")
    margin = said[:, malignant] - said[:, 1 - malignant]
    return Scores(expit(margin), classifier.calibration.apply(margin))


def predict(classifier: Classifier, crops: Sequence[Crop]) -> NDArray[np.float64]:
    """Probability of malignant as the network says it, 0..1; shape (N,)."""
    return scores(classifier, crops).probability


def mean_scores(classifiers: Sequence[Classifier], crops: Sequence[Crop]) -> Scores:
    """Mean of what several classifiers say: for crops of patients whom none of them saw."""
    each = [scores(classifier, crops) for classifier in classifiers]
    probability = np.mean([one.probability for one in each], axis=0)
    return Scores(probability, np.mean([one.calibrated for one in each], axis=0))
