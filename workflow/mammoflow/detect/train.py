"""Training of one detector: an architecture, a fold, the expert's frames of all other folds' patients."""

import csv
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import ultralytics
import yaml
from PIL import Image
from ultralytics.data.utils import img2label_paths

from mammoflow import tables
from mammoflow.config import TRAINING_KEYS, weights_for
from mammoflow.detect.model import CHANNELS, is_rtdetr, save_detector
from mammoflow.detect.offline import integrations_off
from mammoflow.detect.preprocess import common_size
from mammoflow.detect.tiles import write_tiles
from mammoflow.detect.trainer import trainer_class
from mammoflow.errors import DataError, LeakageError
from mammoflow.files import whole_file, write_text
from mammoflow.provenance import code_digest, file_sha256, settings_digest, text_digest
from mammoflow.tables import FINDINGS

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Split:
    """Rows of the training table that a fold's detector learns from, and those that choose its epoch."""

    training: pd.DataFrame
    validation: pd.DataFrame


def train_detector(
    training: list[str] | list[Path],
    architecture: str,
    fold: int,
    settings: dict[str, Any],
    seed: int,
    device: str,
    model: str | Path,
    history: str | Path,
    start: str | Path | None = None,
    without: int | None = None,
) -> None:
    """Train `architecture` on the patients of every fold but `fold`; write its best weights and its history.

    The work folder beside the outputs (``fold0.work/<digest of settings and data>``) holds the data set as Ultralytics
    reads it (``train.txt``, ``val.txt``, ``data.yaml``) and, until the end, the checkpoint: a job that was killed goes
    on after its last whole epoch and ends with the same weights.

    Parameters
    ----------
    training : tables of `mammoflow.tables.TRAINING`.
    architecture : Ultralytics name, for example ``yolov6n``.
    fold : fold whose patients the detector must not see.
    settings : section `detect` of the config.
    seed : of the split, the weights and the augmentation.
    device : ``cpu`` or ``cuda``.
    model : safetensors file to write; see `mammoflow.detect.model.load_detector`.
    history : CSV file to write, one row an epoch: losses and validation figures.
    start : detector of `mammoflow.detect.pretrain.pretrain_detector`; training starts from its weights, not `weights`.
    without : another fold whose patients the detector must not see.

    Raises
    ------
    DataError
        Too few patients with a lesion, or label files where Ultralytics doesn't look.
    LeakageError
        A patient or a picture of `fold` or `without` is also in another fold.
    """
    integrations_off()
    chosen = {key: settings.get(key) for key in TRAINING_KEYS}
    chosen["weights"] = weights_for(settings["weights"], architecture)
    if start:
        chosen["weights"] = {"path": str(start), "sha256": file_sha256(start)}
    table = tables.read_all(tables.TRAINING, training)
    left_out = (fold,) if without is None else (fold, without)
    split = split_folds(table, left_out, settings["validation_share"], seed)
    config = settings_digest([architecture, left_out, seed, device, chosen])
    work = Path(model).parent.with_suffix(".work") / _work_name(config, split)
    state = work / "weights" / "last.pt"
    header = _header(architecture, left_out, split, chosen, config)
    if settings["tiles"]:
        split = Split(*(write_tiles(rows, settings["tiles"], work) for rows in (split.training, split.validation)))
    split = Split(thin_background(split.training, settings["background_per_positive"], seed), split.validation)
    _write_data_set(split, work)
    if not _finished(state):
        _train(architecture, work, chosen, seed, device)
    _write_outputs(work, header, model, history)
    for kind in ("images", "labels"):  # of tiles
        shutil.rmtree(work / kind, ignore_errors=True)
    shutil.rmtree(state.parent)  # with what a kill left half written in it
    for stale in set(work.parent.iterdir()) - {work}:
        shutil.rmtree(stale)


def split_folds(table: pd.DataFrame, left_out: tuple[int, ...], validation_share: float, seed: int) -> Split:
    """Leave out the folds; of the other patients, put some apart to choose the epoch.

    A picture with a known lesion that has no frame, and none that has, is left out: as background it would teach the
    detector to overlook lesions. Patients are put apart in the order of a hash of seed and patient, so another patient
    in the study changes little.

    Parameters
    ----------
    table : rows of `mammoflow.tables.TRAINING`.
    left_out : folds to leave out.
    validation_share : share of the patients to put apart, 0..1; at least one when above 0, none at 0.
    seed : of the choice.
    """
    held_out = table["fold"].isin(left_out)
    rows = table[~held_out].sort_values("image_id")
    rows = rows[(rows["lesions"] > 0) | (rows["unframed"] == 0)]
    check_leakage(rows, table[held_out], left_out)
    keys = sorted(set(rows.loc[rows["lesions"] > 0, "patient_key"]), key=lambda key: text_digest(str(seed), key))
    count = max(1, round(validation_share * len(keys))) if validation_share else 0
    if len(keys) <= count:
        raise DataError(
            f"{_named(left_out)}: {len(keys)} patients of other folds have a framed lesion, "
            f"expected at least {count + 1}: annotate more patients, raise labels.folds or lower "
            "detect.validation_share in config.yaml"
        )
    apart = rows["patient_key"].isin(keys[:count])
    return Split(rows[~apart], rows[apart])


def thin_background(rows: pd.DataFrame, per_positive: float | None, seed: int) -> pd.DataFrame:
    """Keep all pictures with a lesion and so many without for each of them, or all when `per_positive` is None.

    Pictures without a lesion are taken in the order of a hash of seed and picture.
    """
    if per_positive is None:
        return rows
    positive = rows["lesions"] > 0
    order = sorted(rows.loc[~positive, "image_id"], key=lambda image_id: text_digest(str(seed), image_id))
    kept = order[: round(per_positive * positive.sum())]
    return rows[positive | rows["image_id"].isin(kept)]


def check_leakage(rows: pd.DataFrame, held_out: pd.DataFrame, left_out: tuple[int, ...]) -> None:
    """Refuse training rows that share a patient or pixel content with the folds left out."""
    for column, what in (("patient_key", "patients"), ("pixel_digest", "pictures")):
        shared = sorted((set(rows[column]) & set(held_out[column])) - {""})
        if shared:
            raise LeakageError(
                f"{_named(left_out)}: {len(shared)} {what} are also in the folds it is trained on, first {shared[0]}; "
                "expected none: remove the duplicates or give both patients one id, then run again"
            )


def _named(folds: tuple[int, ...]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {' and '.join(map(str, folds))}"


def _write_data_set(split: Split, work: Path) -> None:
    """Write the data set as Ultralytics reads it: lists of pictures, and a YAML file that names them."""
    for picture, file in _files(split.training) + _files(split.validation):
        expected = img2label_paths([picture])[0]
        if os.path.normpath(expected) != os.path.normpath(file):
            raise DataError(f"{file}: Ultralytics looks for the labels of {picture} in {expected}")
    work.mkdir(parents=True, exist_ok=True)
    validation = split.validation if len(split.validation) else split.training
    for name, rows in (("train", split.training), ("val", validation)):
        write_text(work / f"{name}.txt", "".join(f"{path}\n" for path in rows["train_png"]))
    data = {
        "train": str(work / "train.txt"),
        "val": str(work / "val.txt"),
        "names": dict(enumerate(FINDINGS)),
        "channels": CHANNELS,
    }
    write_text(work / "data.yaml", yaml.safe_dump(data, sort_keys=False))


def _train(architecture: str, work: Path, settings: dict[str, Any], seed: int, device: str) -> None:
    augment = settings["augment"]
    data = {
        **yaml.safe_load((work / "data.yaml").read_text("utf-8")),
        "nc": len(FINDINGS),
        "augment": augment,
        "threads": settings["threads"],
        "choose_epoch": settings["validation_share"] > 0,
        "copy_paste": settings["copy_paste"],
        "phantom_paste": settings["phantom_paste"],
        "precision": settings["precision"],
        "input_size": _input_size(
            architecture, (work / "train.txt").read_text("utf-8").splitlines(), settings["image_size"]
        ),
    }
    overrides = {
        "model": f"{architecture}.yaml",
        "data": str(work / "data.yaml"),
        "save_dir": str(work),
        "imgsz": settings["image_size"],
        "epochs": settings["epochs"],
        "batch": settings["batch"],
        "nbs": settings["batch"],  # a step a batch; Ultralytics would gather 64 pictures
        "optimizer": "AdamW",
        "lr0": settings["learning_rate"],
        "lrf": 0.02,
        "cos_lr": True,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "warmup_epochs": 2,
        "warmup_bias_lr": 0.0,
        "patience": settings["patience"],
        "seed": seed,
        "deterministic": True,
        "device": "0" if device == "cuda" else device,
        "workers": settings["threads"] if device == "cuda" else 0,
        "amp": False,  # its check downloads a model
        "plots": False,
        "pretrained": False,
        "degrees": augment["degrees"],
        "translate": augment["translate"],
        "scale": augment["scale"],
        "fliplr": augment["fliplr"],
        "mosaic": 0.0,
        "close_mosaic": 0,
    }
    trainer = trainer_class(architecture)(overrides, data, architecture, settings["weights"])
    trainer.train()


def _input_size(architecture: str, pictures: list[str], size: int) -> tuple[int, int]:
    """Width and height of the input that all training pictures are brought to, pixels; RT-DETRs read squares only."""
    if is_rtdetr(architecture):
        return size, size
    sizes = []
    for path in pictures:
        with Image.open(path) as picture:
            sizes.append(picture.size)
    return common_size(sizes, size)


def _work_name(config: str, split: Split) -> str:
    """Digest of everything that the weights depend on."""
    contents = [
        f"{part} {file_sha256(picture)} {file_sha256(file)}"
        for part, rows in (("train", split.training), ("val", split.validation))
        for picture, file in _files(rows)
    ]
    versions = [torch.__version__, ultralytics.__version__, code_digest("detect")]
    return text_digest(config, *versions, *contents)


def _files(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Picture and label file of each row."""
    return list(zip(rows["train_png"], rows["label_file"], strict=True))


def _finished(state: Path) -> bool:
    return state.exists() and torch.load(state, map_location="cpu", weights_only=True)["finished"]


def _header(
    architecture: str, left_out: tuple[int, ...], split: Split, settings: dict[str, Any], config: str
) -> dict[str, Any]:
    patients = sorted(set(split.training["patient_key"]) | set(split.validation["patient_key"]))
    return {
        "architecture": architecture,
        "classes": FINDINGS,
        "channels": CHANNELS,
        "image_size": settings["image_size"],
        "fold": left_out[0],
        "without": left_out[1] if len(left_out) > 1 else None,
        "tiles": settings["tiles"],
        "training_patients": text_digest(*patients),
        "config_digest": config,
    }


def _write_outputs(work: Path, header: dict[str, Any], model: str | Path, history: str | Path) -> None:
    best = torch.load(work / "weights" / "best.pt", map_location="cpu", weights_only=True)
    rows = torch.load(work / "weights" / "last.pt", map_location="cpu", weights_only=True)["history"]
    log.info("chosen: epoch %d of %d", best["epoch"] + 1, len(rows))
    save_detector(model, best["ema"], {**header, "epoch": best["epoch"] + 1})
    with whole_file(history) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
