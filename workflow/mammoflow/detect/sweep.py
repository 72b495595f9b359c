"""A small grid of detector settings, compared by cross-validation inside the training folds."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import boxes, tables
from mammoflow.boxes import Boxes
from mammoflow.config import sweep_points, sweep_rows
from mammoflow.detect.model import load_detector
from mammoflow.detect.rivals import weigh
from mammoflow.detect.shard import Judge, judge_images, mirrored, read_picture
from mammoflow.detect.thresholds import Judged, pooled, sensitivity_at
from mammoflow.detect.train import train_detector
from mammoflow.files import write_text
from mammoflow.jobs import progress
from mammoflow.tables import FINDINGS

LESION = FINDINGS.index("lesion")


def try_settings(
    training: list[str] | list[Path],
    images: list[str] | list[Path],
    architecture: str,
    fold: int,
    part: int,
    parts: int,
    settings: dict[str, Any],
    match: dict[str, Any],
    seed: int,
    device: str,
    directory: str | Path,
    judged: str | Path,
    start: str | Path | None = None,
) -> None:
    """Train `members` detectors on all but one part of the training folds and judge the pictures of that part.

    Parameters
    ----------
    training : tables of `mammoflow.tables.TRAINING`.
    images : tables of `mammoflow.tables.IMAGES` of the same shards.
    architecture : Ultralytics name.
    fold : fold that is left out: none of its pictures is read.
    part, parts : which part judges, of how many.
    settings : section `detect` of the config with the values that are tried.
    match : `hit_iou` and `hit_center`, when a frame finds a lesion.
    seed, device : as for `mammoflow.detect.train.train_detector`.
    directory : for the first member and the table of parts.
    judged : JSON file to write: the fields of `mammoflow.detect.thresholds.Judged`.
    start : as for `mammoflow.detect.train.train_detector`.
    """
    rows = divide(tables.read_all(tables.TRAINING, training), fold, parts)
    own = Path(directory, "parts.tsv")
    tables.write(tables.TRAINING, rows, own)
    # the others' directories are no output of the job, so that a kill doesn't cost what they have learned
    others = [Path(f"{directory}-{member}") for member in range(1, settings["members"])]
    trained = []
    for member, place in enumerate([Path(directory), *others]):
        files = place / "model.safetensors", place / "history.csv"
        place.mkdir(exist_ok=True)
        train_detector([own], architecture, part, settings, seed + member, device, *files, start)
        trained.append(load_detector(files[0], device))
    judge = Judge(tuple(trained), part, held_out=True)
    pictures = tables.read_all(tables.IMAGES, images).set_index("image_id")["transform"]
    held_out = rows[rows["fold"] == part]
    held_out = held_out.assign(mirrored=mirrored(pictures.loc[held_out["image_id"]]))
    result = _judge(held_out, judge, settings, match)
    write_text(judged, json.dumps({name: np.asarray(value).tolist() for name, value in asdict(result).items()}))
    for place in others:
        shutil.rmtree(place)


def divide(table: pd.DataFrame, fold: int, parts: int) -> pd.DataFrame:
    """Leave a fold out and deal the patients of the others to parts, which take the place of folds.

    Patients with and without a lesion are dealt apart, each in the order of a hash, so that every part has its share.
    """
    rows = table[table["fold"] != fold].copy()
    lesions = rows.groupby("patient_key")["lesions"].sum()
    dealt: dict[str, int] = {}
    for stratum in (lesions.index[lesions > 0], lesions.index[lesions == 0]):
        order = sorted(stratum, key=lambda key: hashlib.sha256(f"inner{fold}{key}".encode()).hexdigest())
        dealt |= {key: number % parts for number, key in enumerate(order)}
    rows["fold"] = rows["patient_key"].map(dealt).astype(rows["fold"].dtype)
    return rows


def _judge(rows: pd.DataFrame, judge: Judge, settings: dict[str, Any], match: dict[str, Any]) -> Judged:
    """Judge the pictures patient by patient and match the lesions' frames with the label files'.

    A picture with a lesion that nobody framed, and none that is, counts for nothing but its frames' being rivals.
    """
    each = []
    for _, own in progress(rows.groupby("patient_key"), rows["patient_key"].nunique(), "patients"):
        pictures = [read_picture(path) for path in own["train_png"]]
        framed, scores = _lesions(judge, pictures, own["mirrored"], settings)
        counts = (own["lesions"] > 0) | (own["unframed"] == 0)
        for picture, file, places, score, counted in zip(
            pictures, own["label_file"], framed, scores, counts, strict=True
        ):
            if counted:
                each.append(_matched(places, score, _framed(file, *picture.shape), match))
    return pooled(each)


def _lesions(
    judge: Judge, pictures: list[NDArray[np.uint8]], mirrored: pd.Series, settings: dict[str, Any]
) -> tuple[list[Boxes], list[NDArray[np.float64]]]:
    """Lesions' frames and scores in each picture of a patient."""
    found = judge_images(judge, pictures, settings)
    lesions = [frames.classes == LESION for frames in found]
    scores = [frames.scores[chosen] for frames, chosen in zip(found, lesions, strict=True)]
    if settings["rivals"]:
        scores = weigh(scores, list(mirrored))
    return [frames.boxes[chosen] for frames, chosen in zip(found, lesions, strict=True)], scores


def _matched(places: Boxes, scores: NDArray[np.float64], truth: Boxes, match: dict[str, Any]) -> Judged:
    hit = boxes.hits(places, truth, match["hit_iou"], center=match["hit_center"])
    best = np.where(hit, scores[:, None], 0.0).max(axis=0, initial=0.0)
    return Judged(scores[~hit.any(axis=1)], scores[hit.any(axis=1)], best, 1)


def _framed(file: str, height: int, width: int) -> NDArray[np.float64]:
    """Lesions of a label file as ``x1, y1, x2, y2``, pixels."""
    rows = np.array([line.split() for line in Path(file).read_text("utf-8").splitlines()], float).reshape(-1, 5)
    lesions = rows[rows[:, 0] == LESION, 1:]
    half = lesions[:, 2:] / 2
    return np.hstack([lesions[:, :2] - half, lesions[:, :2] + half]) * [width, height, width, height]


def rank(
    judged: dict[int, Sequence[Sequence[str | Path]]],
    sweep: dict[str, Any],
    rates: Sequence[float],
    table: str | Path,
) -> None:
    """Rank the points by what they find on the parts put apart and write `mammoflow.tables.SWEEP`, best first.

    The figure is the mean sensitivity over the report's rates of false positives, of all parts of a fold together, then
    as a mean over the sweep's folds and seeds. No test fold's picture is ever looked at.

    Parameters
    ----------
    judged : files of `try_settings` by point: of each fold and seed those of all parts.
    sweep : section `sweep` of the config.
    rates : false positives per image.
    table : file to write.
    """
    found = {}
    for point in range(len(sweep_points(sweep))):
        trials = [pooled([_read(path) for path in parts]) for parts in judged[point]]
        figures = [float(np.mean([sensitivity_at(one, rate) for rate in rates])) for one in trials]
        own = {
            "at_half": sum(sensitivity_at(one, 0.5) for one in trials) / len(trials),
            "lesions": sum(len(one.best_hits) for one in trials),
            "images": sum(one.images for one in trials),
        }
        found[point] = (figures, own)
    tables.write(tables.SWEEP, tables.from_rows(tables.SWEEP, sweep_rows(sweep, "sensitivity", found)), table)


def _read(path: str | Path) -> Judged:
    values = json.loads(Path(path).read_text("utf-8"))
    images = values.pop("images")
    return Judged(**{name: np.array(value, float) for name, value in values.items()}, images=images)
