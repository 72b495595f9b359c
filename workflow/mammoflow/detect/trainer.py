"""Ultralytics' trainer for grey pictures: black padding, one exact checkpoint of our own, nothing fetched or drawn."""

import logging
import math
import random
import time
from collections import defaultdict
from copy import copy
from pathlib import Path
from types import MethodType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.data.augment import BaseTransform, Compose, Format, LetterBox, RandomFlip, RandomPerspective
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.rtdetr.val import RTDETRValidator
from ultralytics.models.yolo.detect.train import DetectionTrainer
from ultralytics.utils.ops import xywh2xyxy
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

from mammoflow.detect.model import build_model, is_rtdetr, load_pretrained, local_weights
from mammoflow.detect.paste import LESION, LesionPaste, PhantomPaste
from mammoflow.detect.preprocess import BACKGROUND
from mammoflow.errors import DataError, ModelError
from mammoflow.files import whole_file
from mammoflow.tables import FINDINGS

log = logging.getLogger("mammoflow")
IN_MEMORY = 1 << 30  # bytes of pictures kept decoded between epochs


class BlackPerspective(RandomPerspective):
    """Random shift, scale and rotation whose uncovered border is background."""

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Warp ``labels["img"]``, (H, W, 1) uint8, by the affine matrix of `get_params`."""
        assert params is not None
        image = cv2.warpAffine(labels["img"], params["M"][:2], dsize=params["size"], borderValue=BACKGROUND)
        labels["img"] = image[..., None] if image.ndim == 2 else image
        labels["resized_shape"] = labels["img"].shape[:2]
        return labels


class GreyResponse(BaseTransform):
    """Random gamma and gain: machines differ in grey-level response. Background stays background.

    Parameters
    ----------
    gamma : the exponent is drawn log-uniformly from ``1 / (1 + gamma)`` to ``1 + gamma``.
    gain : the factor is drawn uniformly from ``1 - gain`` to ``1 + gain``.
    """

    def __init__(self, gamma: float, gain: float):
        super().__init__()
        self.gamma, self.gain = gamma, gain

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Map the grey levels of ``labels["img"]``, (H, W, 1) uint8."""
        exponent = (1 + self.gamma) ** random.uniform(-1, 1)
        factor = random.uniform(1 - self.gain, 1 + self.gain)
        levels = (np.arange(256) / 255) ** exponent * factor
        table = np.clip(np.rint(levels * 255), 0, 255).astype(np.uint8)
        labels["img"] = table[labels["img"]]
        return labels


class MammogramDataset(YOLODataset):
    """Pictures of a list file with the label files that Ultralytics finds beside them, without its caches."""

    imgsz: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.ni * self.imgsz**2 <= IN_MEMORY:
            self.max_buffer_length = self.ni + 1  # the buffer then never drops a picture

    def get_labels(self) -> list[dict[str, Any]]:
        """Read the label files; Ultralytics' own reader would leave a pickled cache beside them."""
        return [self._label(picture, file) for picture, file in zip(self.im_files, self.get_label_files(), strict=True)]

    def _label(self, picture: str, file: str) -> dict[str, Any]:
        lines = [line.split() for line in Path(file).read_text("utf-8").splitlines() if line.strip()]
        rows = np.asarray(lines, np.float32).reshape(-1, 5)
        if len(rows) and (rows[:, 0].max() >= len(FINDINGS) or rows[:, 1:].min() < 0 or rows[:, 1:].max() > 1):
            raise DataError(f"{file}: expected rows `class x y width height`, class below {len(FINDINGS)}, others 0..1")
        image = cv2.imread(picture, cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise DataError(f"{picture}: can't be read as a picture; remove its shard's table to convert it again")
        return {
            "im_file": picture,
            "shape": image.shape,
            "cls": rows[:, :1],
            "bboxes": rows[:, 1:],
            "segments": [],
            "keypoints": None,
            "normalized": True,
            "bbox_format": "xywh",
        }

    def _picture(self, number: int) -> NDArray[np.uint8]:
        return self.load_image(number)[0]

    def _lesions(self) -> list[tuple[int, NDArray[np.float64]]]:
        """Picture's number and frame ``x1, y1, x2, y2`` (0..1) of every lesion."""
        return [
            (number, xywh2xyxy(row.astype(np.float64)))
            for number, label in enumerate(self.labels)
            for row in label["bboxes"][label["cls"][:, 0] == LESION]
        ]

    def build_transforms(self, hyp: Any) -> Compose:
        """Chain the steps from a picture to a model's input, with augmentation when training."""
        width, height = self.data["input_size"]
        fit = LetterBox(new_shape=(height, width), padding_value=BACKGROUND)
        if self.augment:
            lesions = self._lesions()
            steps = [
                LesionPaste(lesions, self._picture, self.data["copy_paste"]),
                PhantomPaste(
                    [_relative_side(frame, *self.labels[n]["shape"]) for n, frame in lesions],
                    self.data["phantom_paste"],
                ),
                fit,
                BlackPerspective(hyp.degrees, hyp.translate, hyp.scale, size=(width, height)),
                GreyResponse(self.data["augment"]["gamma"], self.data["augment"]["gain"]),
                RandomFlip(direction="horizontal", p=hyp.fliplr),
            ]
        else:
            steps = [fit]
        return Compose([*steps, Format(bbox_format="xywh", normalize=True, batch_idx=True)])


def _relative_side(frame: NDArray[np.float64], height: int, width: int) -> float:
    """Longer side of a frame (0..1) relative to its picture's longer side."""
    return float(((frame[2:] - frame[:2]) * [width, height]).max() / max(height, width))


class FoldTrainer(DetectionTrainer):
    """A fold's training of a YOLO, as Ultralytics does it but for what a fold and a mammogram need.

    An epoch's random numbers depend on the seed and the epoch alone, and the checkpoint holds weights, their average
    and the optimizer in full precision, so a training that was killed ends with the same weights as one that wasn't.
    """

    # Ultralytics types these by their first value, None
    model: Any
    ema: Any
    optimizer: Any
    validator: Any
    best_fitness: Any

    def __init__(self, overrides: dict[str, Any], data: dict[str, Any], architecture: str, weights: dict | None):
        self._fold_data, self._architecture, self._weights = data, architecture, weights
        self.history: list[dict[str, float]] = []
        super().__init__(overrides=overrides)
        self.callbacks = defaultdict(list, on_train_epoch_start=[FoldTrainer.start_epoch_anew])

    def get_dataset(self) -> dict[str, Any]:
        """Return the data set as given; Ultralytics' check would fetch fonts and rewrite paths."""
        return self._fold_data

    def setup_model(self) -> None:
        """Build the network, with pretrained weights where asked."""
        torch.set_num_threads(self._fold_data["threads"])  # results depend on it; Ultralytics sets its own
        _seed(self.args.seed, -1)
        self.model = build_model(self._architecture, self._fold_data["nc"])
        if self._weights:
            taken, total = load_pretrained(self.model, local_weights(self._weights), self._weights["sha256"])
            log.info("%d of %d tensors are pretrained", taken, total)
        self.model = prepared(self.model, self._fold_data["precision"])

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> MammogramDataset:
        """Read a list file; one shape of input in validation as in training."""
        return MammogramDataset(
            img_path=img_path,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=mode == "train",
            hyp=self.args,
            rect=False,
            prefix="",
            data=self.data,
            task="detect",
        )

    def start_epoch_anew(self) -> None:
        """Draw the epoch's random numbers from the seed and its number."""
        _seed(self.args.seed, self.epoch)
        self.train_loader.generator.manual_seed(self.args.seed * 100_003 + self.epoch)
        # a new iterator draws from the generator: make one in every epoch, not only in the first after a start
        self.train_loader.reset()
        self._epoch_started = time.monotonic()

    def validate(self) -> tuple[dict[str, float], float]:
        """Judge the averaged weights: the lesions' AP at IoU 0.5, of equal ones the later; or take the last epoch's."""
        if not self.data["choose_epoch"]:
            self.best_fitness = float(self.epoch)
            return {"lesion_ap50": math.nan}, self.best_fitness
        metrics = self.validator(self)
        metrics.pop("fitness", None)
        box = self.validator.metrics.box
        by_class = dict(zip((int(c) for c in box.ap_class_index), box.ap50, strict=True))
        fitness = round(float(by_class.get(FINDINGS.index("lesion"), 0.0)), 5)
        self.best_fitness = max(fitness, self.best_fitness or 0.0)
        return {"lesion_ap50": fitness, **metrics}, fitness

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Keep the epoch's figures and log them."""
        row = {"epoch": self.epoch + 1, **{name: float(value) for name, value in metrics.items()}}
        self.history.append(row)
        losses = ", ".join(f"{name[6:]} {row[name]:.3f}" for name in row if name.startswith("train/"))
        left = (time.monotonic() - self._epoch_started) * (self.epochs - self.epoch - 1)
        text = "epoch %d/%d: %s, validation lesion AP50 %.3f, %.0f s left"
        log.info(text, self.epoch + 1, self.epochs, losses, row["lesion_ap50"], left)

    def save_model(self) -> bool:
        """Write the best weights, then the checkpoint: a kill between the two repeats the epoch and its result."""
        state = {
            "epoch": self.epoch,
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "best_fitness": self.best_fitness,
            "finished": bool(self.stop),
            "history": self.history,
        }
        if self.fitness == self.best_fitness:
            best = {"epoch": self.epoch, "fitness": self.fitness, "ema": state["ema"]}
            _save(best, self.best)
        _save(state, self.last)
        return True

    def resume_training(self, ckpt: Any) -> None:
        """Go on after the last whole epoch of this work folder, if there is one."""
        if not self.last.exists():
            return
        state = torch.load(self.last, map_location=self.device, weights_only=True)
        model: Any = unwrap_model(self.model)
        model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = ModelEMA(self.model, updates=state["updates"])
        self.ema.ema.load_state_dict(state["ema"])
        self.best_fitness, self.history = state["best_fitness"], state["history"]
        self.start_epoch = state["epoch"] + 1
        for row in self.history:
            self.stopper(row["epoch"], row["lesion_ap50"] if self.data["choose_epoch"] else row["epoch"])
        criterion = model.init_criterion()
        if hasattr(criterion, "update"):  # loss weights that change with the epoch, as in yolo26
            model.criterion = criterion
            criterion.updates = state["epoch"]
            criterion.update()
        log.info("going on after epoch %d of %d", self.start_epoch, self.epochs)

    def final_eval(self) -> None:
        """Leave the checkpoints as they are."""

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if self.loss is not None and not self.loss.isfinite():
            raise ModelError(
                f"{self._architecture}: the loss became {float(self.loss)} in epoch {epoch + 1}; "
                f"lower detect.learning_rate ({self.args.lr0}) in config.yaml"
            )
        return False


class RtdetrFoldTrainer(FoldTrainer):
    """A fold's training of an RT-DETR."""

    def get_validator(self) -> RTDETRValidator:
        """Return the validator that reads an RT-DETR's output."""
        return RTDETRValidator(
            self.test_loader, save_dir=self.save_dir, args=copy(self.args), _callbacks=self.callbacks
        )


def prepared(model: Any, precision: str) -> Any:
    """Return a network ready for training: in the memory layout that is fastest, its loss in `precision`."""
    model.to(memory_format=torch.channels_last)  # convolutions of few channels are faster so
    if precision == "bfloat16":
        model.loss = MethodType(_mixed_precision_loss, model)
    return model


def _mixed_precision_loss(model: Any, batch: dict[str, Any], predictions: Any = None) -> tuple[Any, Any]:
    """Loss of a batch whose convolutions are computed in bfloat16; the loss itself stays float32.

    A place in the picture has more digits than bfloat16 holds. Ultralytics' own switch refuses CPUs.
    """
    if predictions is None:
        with torch.autocast(batch["img"].device.type, torch.bfloat16):
            predictions = model.forward(batch["img"])
    return type(model).loss(model, batch, _in_float32(predictions))


def _in_float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float()
    if isinstance(value, dict):
        return {name: _in_float32(inner) for name, inner in value.items()}
    return type(value)(_in_float32(inner) for inner in value) if isinstance(value, list | tuple) else value


def trainer_class(architecture: str) -> type[FoldTrainer]:
    """Trainer for an architecture."""
    return RtdetrFoldTrainer if is_rtdetr(architecture) else FoldTrainer


def _seed(seed: int, epoch: int) -> None:
    number = (seed * 100_003 + epoch + 1) % 2**32
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _save(state: dict[str, Any], path: Path) -> None:
    with whole_file(path) as partial, partial.open("wb") as stream:
        torch.save(state, stream)
