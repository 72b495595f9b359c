"""What the classifiers say of crops, and of every frame a detector made, of patients they never saw."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammoflow import tables
from mammoflow.classify.data import mask_center, read_crop
from mammoflow.classify.model import Classifier, load_classifier, mean_scores
from mammoflow.classify.reproducible import reproducible
from mammoflow.crops import crop_box, crop_side, cut, pixel_spacings, read_source
from mammoflow.errors import DataError
from mammoflow.jobs import progress

CHUNK = 256  # crops read at a time: memory doesn't grow with the study
BOX = ["x1", "y1", "x2", "y2"]

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Judges:
    """The classifiers of one architecture, by the fold each never saw."""

    by_fold: dict[int, Classifier]

    @classmethod
    def load(cls, paths: Sequence[str | Path], device: str) -> "Judges":
        """Read one model for every fold."""
        return cls({model.fold: model for model in (load_classifier(path, device) for path in paths)})

    def of(self, fold: int) -> list[Classifier]:
        """Who judges a patient of `fold`: its own model alone, or all for an external patient (fold -1).

        Raises
        ------
        DataError
            The fold has no model.
        """
        if fold == tables.EXTERNAL_FOLD:
            return [self.by_fold[known] for known in sorted(self.by_fold)]
        if fold not in self.by_fold:
            known = ", ".join(str(number) for number in sorted(self.by_fold))
            raise DataError(
                f"crops of fold {fold} have no model (there are those of folds {known}): labels.folds in config.yaml"
            )
        return [self.by_fold[fold]]


def predict_table(
    crop_tables: list[str] | list[Path],
    model_paths: list[str] | list[Path],
    threads: int,
    device: str,
    predictions_path: str | Path,
) -> None:
    """Judge the crops of one data set, as they are and with the centre hidden, and write a PREDICTIONS table.

    A patient of fold k is judged by the model of fold k alone, an external patient (fold -1) by the mean of all.

    Parameters
    ----------
    crop_tables : CROPS tables of the data set's shards; none of them need have rows.
    model_paths : one model of one architecture for every fold.
    threads : CPU threads.
    device : ``cpu`` or ``cuda``.
    predictions_path : table to write.

    Raises
    ------
    DataError
        A crop's fold has no model, or a crop can't be read.
    """
    crops = tables.read_all(tables.CROPS, crop_tables)
    judges = Judges.load(model_paths, device)
    with reproducible(threads, device):
        rows = [row for fold, part in crops.groupby("fold") for row in _predict_fold(part, judges.of(int(str(fold))))]
    log.info("%d crops judged", len(rows))
    table = tables.from_rows(tables.PREDICTIONS, rows).sort_values("crop_id", ignore_index=True)
    tables.write(tables.PREDICTIONS, table, predictions_path)


def _predict_fold(crops: pd.DataFrame, judges: list[Classifier]) -> list[dict]:
    chunks = [crops.iloc[start : start + CHUNK] for start in range(0, len(crops), CHUNK)]
    what = f"crops of fold {crops['fold'].iloc[0]}, by {CHUNK}"
    return [row for chunk in progress(chunks, len(chunks), what) for row in _predict_rows(chunk, judges)]


def _predict_rows(crops: pd.DataFrame, judges: list[Classifier]) -> list[dict]:
    pictures = [read_crop(path) for path in crops["png"]]
    said, masked = mean_scores(judges, pictures), mean_scores(judges, [mask_center(one) for one in pictures])
    kept = ["dataset", "crop_id", "image_id", "patient_key", "fold", "protocol", "label"]
    made = crops[kept].assign(
        probability=said.probability, calibrated=said.calibrated, masked=masked.calibrated, **_names(judges)
    )
    return made.to_dict("records")


def _names(judges: list[Classifier]) -> dict[str, Any]:
    return {
        "classifier": judges[0].architecture,
        "model_fold": judges[0].fold if len(judges) == 1 else tables.EXTERNAL_FOLD,
        "model_digest": "+".join(judge.digest for judge in judges),
    }


def score_frames(
    protocol: str,
    detections: list[str] | list[Path],
    thresholds: str | Path,
    images: list[str] | list[Path],
    index: str | Path,
    patients: str | Path,
    model_paths: list[str] | list[Path],
    crop_settings: dict[str, Any],
    threads: int,
    device: str,
    frames_path: str | Path,
) -> None:
    """Judge the frames that detectors made on the images of one data set, whatever the patient's label.

    Crops know only frames with a label; a verdict on an image needs all of them. Frames at or above the mining
    threshold of the patient's fold are judged, and the best frame of every image.

    Parameters
    ----------
    protocol : how the crops were gathered that the classifiers learnt from.
    detections, images : tables of `mammoflow.tables.DETECTIONS` and `mammoflow.tables.IMAGES` of the data set's shards.
    thresholds : table of `mammoflow.tables.THRESHOLDS` of the detector.
    index, patients : tables of `mammoflow.tables.INDEX` and `mammoflow.tables.PATIENTS`.
    model_paths : one classifier of one architecture for every fold.
    crop_settings : section `crops` of the config.
    threads : CPU threads.
    device : ``cpu`` or ``cuda``.
    frames_path : table of `mammoflow.tables.FRAMES` to write.

    Raises
    ------
    DataError
        A picture can't be read, a detection isn't held out, or a fold has no model.
    """
    chosen = choose_frames(
        tables.read_all(tables.DETECTIONS, detections),
        tables.read(tables.PATIENTS, patients),
        tables.read(tables.THRESHOLDS, thresholds),
    )
    pictures = tables.read_all(tables.IMAGES, images).set_index("image_id")
    spacings, judges = pixel_spacings(index), Judges.load(model_paths, device)
    rows: list[dict] = []
    with reproducible(threads, device):
        for fold, part in chosen.groupby("fold"):
            mine = judges.of(int(str(fold)))
            for chunk in _by_images(part):
                said = mean_scores(mine, list(_crops(chunk, pictures, spacings, crop_settings)))
                made = chunk.assign(
                    protocol=protocol, probability=said.probability, calibrated=said.calibrated, **_names(mine)
                )
                rows += made.to_dict("records")
    table = tables.from_rows(tables.FRAMES, rows).sort_values("detection_id", ignore_index=True)
    tables.write(tables.FRAMES, table, frames_path)
    log.info("%d frames judged", len(table))


def choose_frames(detections: pd.DataFrame, patients: pd.DataFrame, thresholds: pd.DataFrame) -> pd.DataFrame:
    """Lesion detections at or above the threshold of the patient's fold, and the best one of every image.

    Returns
    -------
    DETECTIONS rows with ``fold`` (of the patient) and ``accepted`` (reaches the threshold).

    Raises
    ------
    DataError
        A detection is by a model that saw the patient.
    """
    found = detections[detections["finding"] == "lesion"]
    if not found["held_out"].all():
        raise DataError("detections by models that saw the patient among those to judge; run detect_images again")
    found = found.merge(patients[["dataset", "patient_key", "fold"]], on=["dataset", "patient_key"], how="left")
    lowest = found["fold"].map(thresholds.set_index("fold")["threshold"])
    found = found.assign(accepted=found["score"] >= lowest)
    found = found.sort_values(["score", "detection_id"], ascending=[False, True])
    best = ~found.duplicated(["dataset", "image_id"])
    return found[found["accepted"] | best].sort_values(["image_id", "detection_id"], ignore_index=True)


def _by_images(frames: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Cut a table sorted by image into parts of about `CHUNK` frames, no image in two of them."""
    starts = np.flatnonzero(~frames["image_id"].duplicated().to_numpy())
    parts = np.searchsorted(starts, np.arange(CHUNK, len(frames), CHUNK))
    borders = sorted({0, len(frames), *(int(starts[part]) for part in parts if part < len(starts))})
    for start, end in pairwise(borders):
        yield frames.iloc[start:end]


def _crops(
    frames: pd.DataFrame, pictures: pd.DataFrame, spacings: dict[str, float], settings: dict[str, Any]
) -> Iterator[Any]:
    """Crop of each frame, in the order of the rows."""
    for image_id, part in frames.groupby("image_id", sort=False):
        source = read_source(pictures.loc[image_id])
        for box in part[BOX].itertuples(index=False):
            side = crop_side(tuple(box), settings, spacings.get(str(image_id), np.nan))
            yield cut(source, crop_box(tuple(box), side))
