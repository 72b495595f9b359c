"""What the classifiers say of crops whose patients they never saw."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mammoflow import tables
from mammoflow.classify.data import read_crop
from mammoflow.classify.model import Classifier, load_classifier, predict_mean
from mammoflow.classify.reproducible import reproducible
from mammoflow.errors import DataError
from mammoflow.jobs import progress

CHUNK = 256  # crops read at a time: memory doesn't grow with the study

log = logging.getLogger("mammoflow")


def predict_table(
    crop_tables: list[str] | list[Path],
    model_paths: list[str] | list[Path],
    threads: int,
    device: str,
    predictions_path: str | Path,
) -> None:
    """Judge the crops of one data set and write a PREDICTIONS table.

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
    classifiers = {model.fold: model for model in (load_classifier(path, device) for path in model_paths)}
    with reproducible(threads, device):
        rows = [row for fold, part in crops.groupby("fold") for row in _predict_fold(part, int(str(fold)), classifiers)]
    log.info("%d crops judged", len(rows))
    table = tables.from_rows(tables.PREDICTIONS, rows).sort_values("crop_id", ignore_index=True)
    tables.write(tables.PREDICTIONS, table, predictions_path)


def _predict_fold(crops: pd.DataFrame, fold: int, classifiers: dict[int, Classifier]) -> list[dict]:
    judges = _judges(classifiers, fold)
    chunks = [crops.iloc[start : start + CHUNK] for start in range(0, len(crops), CHUNK)]
    what = f"crops of fold {fold}, by {CHUNK}"
    return [row for chunk in progress(chunks, len(chunks), what) for row in _predict_rows(chunk, judges)]


def _judges(classifiers: dict[int, Classifier], fold: int) -> list[Classifier]:
    if fold == tables.EXTERNAL_FOLD:
        return [classifiers[known] for known in sorted(classifiers)]
    if fold not in classifiers:
        known = ", ".join(str(number) for number in sorted(classifiers))
        raise DataError(
            f"crops of fold {fold} have no model (there are those of folds {known}): labels.folds in config.yaml"
        )
    return [classifiers[fold]]


def _predict_rows(crops: pd.DataFrame, judges: Sequence[Classifier]) -> list[dict]:
    probabilities = predict_mean(judges, [read_crop(path) for path in crops["png"]])
    kept = ["dataset", "crop_id", "image_id", "patient_key", "fold", "protocol", "label"]
    judged = {
        "classifier": judges[0].architecture,
        "model_fold": judges[0].fold if len(judges) == 1 else tables.EXTERNAL_FOLD,
        "model_digest": "+".join(judge.digest for judge in judges),
    }
    return [
        {**row, **judged, "probability": float(probability)}
        for row, probability in zip(crops[kept].to_dict("records"), probabilities, strict=True)
    ]
