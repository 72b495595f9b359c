"""Which crops teach, which choose the epoch, and what a training sees of them."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mammoflow import tables
from mammoflow.classify.model import CLASSES, Crop, resize
from mammoflow.errors import DataError, LeakageError
from mammoflow.provenance import text_digest

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Part:
    """Crops of one part of a training.

    Attributes
    ----------
    rows : their rows of the CROPS tables.
    crops : uint8 or uint16 array (N, S, S), full scale.
    labels : int64 array (N,), indices of `model.CLASSES`.
    """

    rows: pd.DataFrame
    crops: Crop
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, chosen: NDArray[np.bool_]) -> "Part":
        """Return the crops of a mask, (N,)."""
        return Part(self.rows[chosen].reset_index(drop=True), self.crops[chosen], self.labels[chosen])


def read_crop(path: str | Path) -> Crop:
    """Read a crop as uint8 or uint16 array (H, W).

    Raises
    ------
    DataError
        The file is missing or no picture.
    """
    crop = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if crop is None:
        raise DataError(f"{path}: can't be read as a picture: delete its shard's crops table, and it is cut again")
    return np.asarray(crop)


def mask_center(crop: Crop) -> Crop:
    """Hide the lesion: the middle square of half the crop's side becomes the mean grey of what is around it.

    A classifier that still tells such crops apart goes by their surroundings. The hidden share is the same in every
    crop, so it says nothing of the frame's size.
    """
    height, width = crop.shape
    rows, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    around = np.ones(crop.shape, bool)
    around[rows, columns] = False
    masked = crop.copy()
    masked[rows, columns] = round(float(crop[around].mean())) if around.any() else 0
    return masked


def load_part(rows: pd.DataFrame, crop_size: int) -> Part:
    """Read the pictures of `rows` at the classifier's size."""
    crops = [resize(read_crop(path), crop_size) for path in rows["png"]]
    labels = np.array([CLASSES.index(label) for label in rows["label"]], dtype=np.int64)
    return Part(rows, stack(crops) if crops else np.zeros((0, crop_size, crop_size), np.uint8), labels)


def stack(crops: Sequence[Crop]) -> Crop:
    """Crops (S, S) as one array (N, S, S), 16 bits deep when one of them is."""
    deep = any(crop.dtype == np.uint16 for crop in crops)
    return np.stack([crop.astype(np.uint16) * 257 if deep and crop.dtype == np.uint8 else crop for crop in crops])


def training_rows(crops: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Rows that the model of `fold` may learn from, in an order that doesn't depend on the shards.

    Raises
    ------
    LeakageError
        A patient has crops on both sides of the fold, or belongs to no fold.
    """
    rows = crops[crops["fold"] != fold].sort_values(["dataset", "crop_id"], ignore_index=True)
    held_out = crops[crops["fold"] == fold]
    check_apart(rows, held_out, f"the training part and the held-out part of fold {fold}")
    outside = rows.loc[rows["fold"] == tables.EXTERNAL_FOLD, "patient_key"]
    if len(outside):
        raise LeakageError(
            f"{outside.nunique()} external patients are among the training crops of fold {fold} "
            f"(first: {outside.iloc[0]}): only internal data sets may teach; check `role` of the data sets"
        )
    return rows


def check_apart(first: pd.DataFrame, second: pd.DataFrame, what: str) -> None:
    """Refuse to go on when a patient is in both tables.

    Raises
    ------
    LeakageError
        Names how many patients and the first one.
    """
    both = sorted(set(first["patient_key"]) & set(second["patient_key"]))
    if both:
        raise LeakageError(
            f"{len(both)} patients are in both {what} (first: {both[0]}): a patient's crops must share one fold; "
            "delete results/labels/patients.tsv and results/crops, and folds and crops are made again"
        )


def lacking_class(rows: pd.DataFrame) -> str:
    """Say which class has no crop to learn from and how to mend it; empty when both have some."""
    counts = {name: int((rows["label"] == name).sum()) for name in CLASSES}
    mends = {
        "benign": "raise crops.false_frames_per_image, or add patients to the negative directory",
        "malignant": "raise crops.false_frames_per_image, lower crops.match_iou, or train the detector longer",
    }
    found = ", ".join(f"{number} {label}" for label, number in counts.items())
    lacking = (f"no {name} crop to learn from ({found}): {mends[name]} in config.yaml" for name in CLASSES)
    return next((text for name, text in zip(CLASSES, lacking, strict=True) if not counts[name]), "")


def inner_parts(whole: Part, folds: int, seed: int) -> list[tuple[Part, Part]]:
    """Deal the patients of a training into parts and pair each part with all others.

    Patients are ranked by a hash of key and seed, within malignant ones (with at least one malignant crop) and the
    others apart, and dealt in turn. Where a part would lack a label, fewer parts are made.

    Parameters
    ----------
    whole : all training crops, both labels present.
    folds : number of parts; with 0 none is made.
    seed : the study's.

    Returns
    -------
    Crops to learn from and crops to judge, for each part; empty when `folds` is 0 or no two parts have both labels.
    """
    for count in range(folds, 1, -1):
        dealt = whole.rows["patient_key"].map(_dealt(whole.rows, count, seed)).to_numpy()
        parts = [(whole.of(dealt != number), whole.of(dealt == number)) for number in range(count)]
        if all(len(set(part.labels.tolist())) == len(CLASSES) for pair in parts for part in pair):
            for pair in parts:
                check_apart(pair[0].rows, pair[1].rows, "an inner training part and its validation part")
            return parts
    if folds:
        log.info("too few patients for validation parts with both labels: all teach, for all epochs")
    return []


def _dealt(rows: pd.DataFrame, folds: int, seed: int) -> dict[str, int]:
    """Part of each patient. Malignant ones are dealt from the first part on, the others from the last one back."""
    malignant = set(rows.loc[rows["label"] == "malignant", "patient_key"])
    ranked = sorted(set(rows["patient_key"]), key=lambda patient: text_digest(str(seed), patient))
    first = {patient: number % folds for number, patient in enumerate(p for p in ranked if p in malignant)}
    others = enumerate(patient for patient in ranked if patient not in malignant)
    return first | {patient: (-1 - number) % folds for number, patient in others}


def class_weights(labels: NDArray[np.int64]) -> Tensor:
    """Weight of each class in the loss, ``N / (classes * N_class)``: both classes weigh the same in all; shape (2,)."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    return torch.tensor(len(labels) / (len(CLASSES) * counts), dtype=torch.float32)


def augment(crops: Tensor, settings: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Vary crops as mammograms vary: mirrored, slightly turned, shifted, scaled, brighter, of another contrast.

    Parameters
    ----------
    crops : float32 tensor (N, 1, S, S), grey levels 0..1.
    settings : ``classify.augment`` of config.yaml.
    generator : the source of all randomness here.

    Returns
    -------
    float32 tensor (N, 1, S, S), 0..1.
    """
    count = len(crops)

    def uniform(reach: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    def sign() -> Tensor:
        return torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0

    angle, zoom = uniform(math.radians(settings["rotation"])), 1 + uniform(settings["scale"])
    mirror_x, mirror_y = sign(), sign()
    # Twice the share: affine_grid's coordinates run from -1 to 1.
    shift_x, shift_y = uniform(2 * settings["translation"]), uniform(2 * settings["translation"])
    theta = torch.stack(
        [
            torch.stack([mirror_x * zoom * angle.cos(), -mirror_x * zoom * angle.sin(), shift_x], dim=1),
            torch.stack([mirror_y * zoom * angle.sin(), mirror_y * zoom * angle.cos(), shift_y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(crops.shape), align_corners=False)
    moved = F.grid_sample(crops, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast, brightness = 1 + uniform(settings["contrast"]), uniform(settings["brightness"])
    middle = moved.mean(dim=(1, 2, 3), keepdim=True)
    varied = (moved - middle) * contrast.view(-1, 1, 1, 1) + middle + brightness.view(-1, 1, 1, 1)
    return varied.clamp(0, 1)


def data_digest(parts: Sequence[Part]) -> str:
    """Digest of crops, labels, patients and pixels: changes when anything that a training sees does."""
    pieces = []
    for part in parts:
        pieces += [*part.rows["crop_id"], *part.rows["label"], *part.rows["patient_key"], part.crops.tobytes().hex()]
    return text_digest(*pieces)
