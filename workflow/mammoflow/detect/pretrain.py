"""A start for the detectors of all folds: weights that have seen many phantom breasts and no patient."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoflow import boxes, tables
from mammoflow.detect.train import train_detector
from mammoflow.files import write_text
from mammoflow.images.breast import breast_mask, chest_wall, mask_box
from mammoflow.images.png import encode_png
from mammoflow.images.training import training_picture, training_transform
from mammoflow.jobs import progress
from mammoflow.phantom.picture import Box
from mammoflow.phantom.pictures import draw_pictures
from mammoflow.provenance import settings_digest, text_digest
from mammoflow.tables import FINDINGS

NO_FOLD = -1  # none is left out, since no patient is there
# in place of config.PATIENTS_KEYS: nothing is put apart, and no lesion is pasted where drawn ones abound
PLAIN = {
    "validation_share": 0, "patience": 0, "background_per_positive": None, "copy_paste": 0, "phantom_paste": 0,
}  # fmt: skip

log = logging.getLogger("mammoflow")


def pretrain_detector(
    architecture: str,
    settings: dict[str, Any],
    pictures: dict[str, Any],
    seed: int,
    device: str,
    model: str | Path,
    history: str | Path,
) -> None:
    """Train a detector on pictures of phantom breasts, for the trainings of all folds to start from.

    No patient is in them, so nothing of any fold can leak. Malignant and benign lesions both count as lesions. A killed
    training goes on from its last whole epoch to the same weights, as in `mammoflow.detect.train.train_detector`.

    Parameters
    ----------
    architecture : Ultralytics name.
    settings : section `detect` of the config, of which `mammoflow.config.PATIENTS_KEYS` don't matter, with
        ``pretrain.phantom``: `images`, how many are drawn, and `epochs`. It starts from `weights`, where they are for
        this architecture.
    pictures : section `images` of the config: the size and the cut of training pictures.
    seed, device : as for `mammoflow.detect.train.train_detector`.
    model : safetensors file to write.
    history : CSV file to write, one row an epoch.
    """
    wanted = settings["pretrain"]["phantom"]
    drawn = Path(model).parent.with_suffix(".drawn") / settings_digest([seed, wanted["images"], pictures])
    table = drawn / "training.tsv"
    if not table.exists():
        draw_training(seed, wanted["images"], pictures, drawn, table)
    chosen = settings | PLAIN | {"epochs": wanted["epochs"]}
    train_detector([table], architecture, NO_FOLD, chosen, seed, device, model, history)
    shutil.rmtree(drawn.parent)


def draw_training(seed: int, count: int, settings: dict[str, Any], directory: Path, table: Path) -> None:
    """Draw the pictures and write them as training pictures of patients are: cut, at one side, with label files.

    Parameters
    ----------
    seed, count : see `mammoflow.phantom.pictures.draw_pictures`.
    settings : section `images` of the config.
    directory : of the pictures (``images/``) and label files (``labels/``).
    table : of `mammoflow.tables.TRAINING` to write, last.
    """
    for kind in ("images", "labels"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
    pairs = draw_pictures(seed, count, settings["train_size"])
    rows = [
        _write(number, picture, truths, settings, directory)
        for number, (picture, truths) in enumerate(progress(pairs, count, "phantom pictures"))
    ]
    log.info("%d phantom pictures with %d lesions", count, sum(row["lesions"] for row in rows))
    tables.write(tables.TRAINING, tables.from_rows(tables.TRAINING, rows), table)


def _write(
    number: int, picture: NDArray[np.uint8], truths: list[tuple[str, Box]], settings: dict[str, Any], directory: Path
) -> dict[str, Any]:
    """Write a picture and its label file; return its row."""
    name = f"phantom-{number:06d}"
    height, width = picture.shape
    mask = breast_mask(picture.astype(np.uint16))
    transform = training_transform(width, height, mask_box(mask), chest_wall(mask), settings)
    classes = [FINDINGS.index(finding) for finding, _ in truths]
    frames = transform.forward(np.array([box for _, box in truths], float))
    relative = boxes.to_yolo(boxes.clip(frames, transform.width, transform.height), transform.width, transform.height)
    png, labels = directory / "images" / f"{name}.png", directory / "labels" / f"{name}.txt"
    png.write_bytes(encode_png(training_picture(picture, transform)))
    lines = [
        f"{kind} " + " ".join(f"{value:.8f}" for value in box) for kind, box in zip(classes, relative, strict=True)
    ]
    write_text(labels, "".join(f"{line}\n" for line in lines))
    return {
        "dataset": "phantom", "image_id": name, "patient_key": text_digest(name), "fold": 0,
        "train_png": str(png), "label_file": str(labels), "lesions": classes.count(FINDINGS.index("lesion")),
        "nipples": classes.count(FINDINGS.index("nipple")), "unframed": 0, "pixel_digest": "",
    }  # fmt: skip
