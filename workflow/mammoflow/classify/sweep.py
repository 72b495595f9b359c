"""A small grid of classifier settings, compared by cross-validation inside the training folds."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mammoflow import tables
from mammoflow.classify.data import lacking_class, load_part, training_rows
from mammoflow.classify.reproducible import reproducible
from mammoflow.classify.train import Recipe, Training, best_epoch, cross_validate, curve_of, judge, run_record
from mammoflow.config import sweep_points, sweep_rows
from mammoflow.errors import DataError
from mammoflow.files import write_text


def try_settings(
    crop_tables: list[str] | list[Path],
    fold: int,
    architecture: str,
    settings: dict[str, Any],
    seed: int,
    device: str,
    judged: str | Path,
    start: str | Path | None = None,
) -> None:
    """Cross-validate one combination of settings on the crops of all folds but one.

    Parameters
    ----------
    crop_tables, architecture, device, start : as for `mammoflow.classify.train.train_classifier`.
    fold : fold that is left out: none of its crops is read.
    settings : section `classify` of the config with the values that are tried.
    seed : of the trainings and of how patients are dealt to the parts.
    judged : JSON file to write: `auc` (see `held_out_auc`), `crops` and `malignant`, how many were judged.

    Raises
    ------
    DataError
        The crops lack a class, or are of too few patients for parts with both.
    """
    rows = training_rows(tables.read_all(tables.CROPS, crop_tables), fold)
    if reason := lacking_class(rows):
        raise DataError(f"settings of {architecture} can't be compared without fold {fold}: {reason}")
    whole = load_part(rows, settings["crop_size"])
    recipe, work = Recipe(architecture, settings, device, start), Path(f"{judged}.work")
    kept = work / run_record(recipe, fold, seed, whole)["run_digest"]
    with reproducible(settings["threads"], device):
        inner, _ = cross_validate(recipe, fold, seed, whole, kept)
    if len(inner) < 2:
        raise DataError(
            f"settings of {architecture} can't be compared without fold {fold}: fewer than two parts of the patients "
            "have crops of both kinds; set classify.validation_folds to 2 or more, or raise "
            "crops.false_frames_per_image"
        )
    labels = np.concatenate([training.validation.labels for training in inner])
    found = {"auc": held_out_auc(inner), "crops": len(labels), "malignant": int(labels.sum())}
    write_text(judged, json.dumps(found))
    shutil.rmtree(work, ignore_errors=True)


def held_out_auc(inner: Sequence[Training]) -> float:
    """AUC, 0..1, of each part at the epoch that the other parts would choose, weighed by its pairs of crops.

    The highest point of a part's own curve would be too good, and the more so the longer a combination trains.

    Parameters
    ----------
    inner : at least two finished trainings of one length, each with its validation part.
    """
    pairs, figures = [], []
    for part in inner:
        others = curve_of([other for other in inner if other is not part], part.done)
        weight, (auc, _) = judge(part, best_epoch(others))
        pairs.append(weight)
        figures.append(auc)
    return float(np.average(figures, weights=pairs))


def rank(judged: dict[int, Sequence[str | Path]], sweep: dict[str, Any], table: str | Path) -> None:
    """Rank the points by their mean AUC over folds and seeds; write `mammoflow.tables.SWEEP_CLASSIFIERS`, best first.

    Parameters
    ----------
    judged : files of `try_settings` of each fold and seed, by point.
    sweep : section `sweep_classifiers` of the config.
    table : file to write.
    """
    figures = {}
    for point in range(len(sweep_points(sweep))):
        found = [json.loads(Path(path).read_text("utf-8")) for path in judged[point]]
        own = {key: sum(one[key] for one in found) for key in ("crops", "malignant")}
        figures[point] = ([one["auc"] for one in found], own)
    tables.write(
        tables.SWEEP_CLASSIFIERS, tables.from_rows(tables.SWEEP_CLASSIFIERS, sweep_rows(sweep, "auc", figures)), table
    )
