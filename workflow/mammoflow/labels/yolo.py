"""YOLO label files of an annotated shard's training pictures."""

import logging
from pathlib import Path

import pandas as pd

from mammoflow import tables
from mammoflow.boxes import area, clip, to_yolo
from mammoflow.errors import DataError
from mammoflow.files import write_text
from mammoflow.geometry import Transform

log = logging.getLogger("mammoflow")

CLASSES = ("lesion", "nipple")
EDGES = ["x1", "y1", "x2", "y2"]


def label_file(picture: str) -> str:
    """Path where Ultralytics looks for a picture's labels: its last `images` directory becomes `labels`."""
    head, found, tail = picture.rpartition("/images/")
    if not found:
        raise DataError(f"{picture}: not below an `images` directory, where Ultralytics could find its labels")
    return Path(head, "labels", tail).with_suffix(".txt").as_posix()


def write_labels(
    images: pd.DataFrame, lesions: pd.DataFrame, patients: pd.DataFrame, directory: str | Path
) -> pd.DataFrame:
    """Write one label file a converted picture and return what training needs to know of it.

    Frames are mapped to the training picture by the row's transform. Files of images without frames are empty. Class 0
    is a lesion, 1 a nipple; only frames the detector may learn from (`expert`) are written.

    Parameters
    ----------
    images : IMAGES rows of the shard.
    lesions : LESIONS rows of the data set.
    patients : PATIENTS rows of all data sets.
    directory : where the files belong; made new.

    Returns
    -------
    TRAINING table, one row a picture.

    Raises
    ------
    DataError
        A picture isn't where its label file would be in `directory`, or its patient has no fold.
    """
    Path(directory).mkdir(parents=True, exist_ok=True)
    expert = lesions[lesions["expert"]]
    by_image = dict(tuple(expert.groupby("image_id")))
    unframed = lesions[~lesions["expert"] & (lesions["finding"] == "lesion")].groupby("image_id").size().to_dict()
    folds = patients.set_index(["dataset", "patient_key"])["fold"].to_dict()
    converted = images[images["status"] == "ok"]
    rows = []
    for row in converted.to_dict("records"):
        frames = by_image.get(row["image_id"], expert.iloc[:0])
        rows.append(_write_one(row, frames, folds, Path(directory)) | {"unframed": unframed.get(row["image_id"], 0)})
    lost = expert["image_id"].isin(set(images["image_id"]) - set(converted["image_id"])).sum()
    if lost:
        log.warning("%d frames are lost: their images gave no picture", lost)
    return tables.from_rows(tables.TRAINING, rows)


def _write_one(row: dict, frames: pd.DataFrame, folds: dict, directory: Path) -> dict:
    file = label_file(row["train_png"])
    if directory not in Path(file).parents:
        raise DataError(f"{row['train_png']}: its labels belong to {file}, expected a file below {directory}")
    fold = folds.get((row["dataset"], row["patient_key"]))
    if fold is None:
        raise DataError(
            f"patient {row['patient_key']} of data set `{row['dataset']}` has no fold; run labels_patients again"
        )
    write_text(file, label_text(frames, Transform.from_json(row["transform"])))
    return {
        **{key: row[key] for key in ("dataset", "image_id", "patient_key", "train_png", "pixel_digest")},
        "fold": fold,
        "label_file": file,
        "lesions": int((frames["finding"] == "lesion").sum()),
        "nipples": int((frames["finding"] == "nipple").sum()),
    }


def label_text(frames: pd.DataFrame, transform: Transform) -> str:
    """YOLO lines of one image's frames, ``class center_x center_y width height``, relative to the training picture.

    Frames are cut at the picture's border; one that lies outside the breast's region has no line.
    """
    inside = clip(transform.forward(frames[EDGES].to_numpy()), transform.width, transform.height)
    shown = area(inside) > 0
    if not shown.all():
        log.warning("%d frames lie outside their training picture and aren't learned from", (~shown).sum())
    return "".join(
        f"{CLASSES.index(finding)} " + " ".join(f"{value:.8f}" for value in box) + "\n"
        for finding, box in zip(
            frames["finding"][shown], to_yolo(inside[shown], transform.width, transform.height), strict=True
        )
    )
