"""Which frames of a round of detectors are accepted: the rule by which crops are gathered, for every round alike."""

from pathlib import Path
from typing import Any

from mammoflow import tables
from mammoflow.crops.cut import read_picture
from mammoflow.crops.screen import screen_shard
from mammoflow.errors import LeakageError


def accept_frames(
    detections: str | Path,
    thresholds: str | Path,
    images: str | Path,
    patients: str | Path,
    settings: dict[str, Any],
    table: str | Path,
) -> None:
    """Write every frame of a shard above its patient's threshold, with the reason where it isn't kept.

    Parameters
    ----------
    detections : table of `mammoflow.tables.DETECTIONS` of the shard and possibly others, of one round, out of fold.
    thresholds : table of `mammoflow.tables.THRESHOLDS` of that round.
    images, patients : tables of `mammoflow.tables.IMAGES` and `mammoflow.tables.PATIENTS`.
    settings : section `crops` of the config.
    table : table of `mammoflow.tables.SCREENED` to write.

    Raises
    ------
    LeakageError
        A detection is by a model that saw the patient.
    DataError
        A picture can't be read.
    """
    found = tables.read(tables.DETECTIONS, detections)
    if not found["held_out"].all():
        first = found.loc[~found["held_out"], "detection_id"].iloc[0]
        raise LeakageError(f"detection {first} isn't out of fold; only frames of unseen patients are mined")
    shown = tables.read(tables.IMAGES, images)
    shown = shown[shown["status"] == "ok"]
    folds = tables.read(tables.PATIENTS, patients)[["dataset", "patient_key", "fold"]]
    lowest = tables.read(tables.THRESHOLDS, thresholds).set_index("fold")["threshold"]
    known = shown.merge(folds, on=["dataset", "patient_key"])
    limits = dict(zip(known["image_id"], known["fold"].map(lowest).astype(float), strict=True))
    tables.write(tables.SCREENED, screen_shard(found, shown, read_picture, limits, settings, "out_of_fold"), table)
