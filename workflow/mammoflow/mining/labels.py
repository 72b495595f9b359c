"""What a later round's detectors learn from: pictures with the expert's frames and with the accepted ones."""

import logging
import os
import shutil
from pathlib import Path

import pandas as pd

from mammoflow import tables
from mammoflow.errors import DataError
from mammoflow.files import write_text
from mammoflow.geometry import Transform
from mammoflow.labels.yolo import label_file, label_text

log = logging.getLogger("mammoflow")
FRAME = ["dataset", "image_id", "finding", "x1", "y1", "x2", "y2"]


def write_round(
    accepted: pd.DataFrame,
    images: pd.DataFrame,
    lesions: pd.DataFrame,
    patients: pd.DataFrame,
    background: bool,
    directory: str | Path,
) -> pd.DataFrame:
    """Lay out a shard's training pictures of a round, with label files where Ultralytics looks for them.

    On images of negative patients the accepted frames count as lesions. In other patients only the expert's frames do:
    what else a detector frames there may be anything, as with crops. Pictures without any frame teach background where
    they do so in the first round.

    Parameters
    ----------
    accepted : rows of `mammoflow.tables.SCREENED` of the round before, of this shard.
    images : its IMAGES rows.
    lesions : LESIONS rows of the data set.
    patients : PATIENTS rows of all data sets.
    background : whether pictures of the shard without a frame are learned from.
    directory : made new; ``images/`` with hard links to the training pictures, and ``labels/``.

    Returns
    -------
    TRAINING table. A detector of fold f must leave out its rows of fold f, as `train_detector` does: their accepted
    frames were made by the model of fold f.

    Raises
    ------
    DataError
        A patient has no fold.
    """
    shown = images[images["status"] == "ok"].merge(
        patients[["dataset", "patient_key", "fold", "label"]], on=["dataset", "patient_key"], how="left"
    )
    if shown["fold"].isna().any():
        raise DataError("an image's patient has no fold; run labels_patients again")
    negative = shown.loc[shown["label"] == "negative", "image_id"]
    mined = accepted[accepted["kept"] & accepted["image_id"].isin(negative)].assign(finding="lesion")
    frames = pd.concat([lesions.loc[lesions["expert"], FRAME], mined[FRAME]])
    by_image = dict(tuple(frames.groupby("image_id")))
    unframed = lesions[~lesions["expert"] & (lesions["finding"] == "lesion")].groupby("image_id").size().to_dict()
    for kind in ("images", "labels"):
        (Path(directory) / kind).mkdir(parents=True, exist_ok=True)
    rows = [
        _lay_out(row, by_image.get(row["image_id"], frames.iloc[:0]), Path(directory))
        | {"unframed": unframed.get(row["image_id"], 0)}
        for row in shown.to_dict("records")
        if background or row["image_id"] in by_image
    ]
    log.info("%d accepted frames on %d pictures", len(mined), mined["image_id"].nunique())
    return tables.from_rows(tables.TRAINING, rows)


def _lay_out(row: dict, frames: pd.DataFrame, directory: Path) -> dict:
    picture = directory / "images" / f"{row['image_id']}{Path(row['train_png']).suffix}"
    try:
        os.link(row["train_png"], picture)
    except OSError:  # another file system, or one without links
        shutil.copyfile(row["train_png"], picture)
    labels = label_file(str(picture))
    write_text(labels, label_text(frames, Transform.from_json(row["transform"])))
    return {
        **{key: row[key] for key in ("dataset", "image_id", "patient_key", "pixel_digest")},
        "fold": int(row["fold"]),
        "train_png": str(picture),
        "label_file": labels,
        "lesions": int((frames["finding"] == "lesion").sum()),
        "nipples": int((frames["finding"] == "nipple").sum()),
    }
