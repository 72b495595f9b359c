"""Detections of shards: every picture is judged by a model that never saw its patient."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mammoflow import boxes, tables
from mammoflow.detect.backend import with_backend
from mammoflow.detect.infer import Frames, detect_views, fuse
from mammoflow.detect.model import Detector, load_detector
from mammoflow.detect.rivals import weigh
from mammoflow.errors import DataError, ModelError
from mammoflow.geometry import Transform
from mammoflow.jobs import progress
from mammoflow.tables import EXTERNAL_FOLD

log = logging.getLogger("mammoflow")
T = TypeVar("T")
P = TypeVar("P")
BATCH = 16  # pictures that go to a judge at once
AHEAD = 2 * BATCH  # pictures read before they are needed: bounds the memory
CHECKED = 4  # pictures on which another backend must give the same frames


@dataclass(frozen=True)
class Judge:
    """Who judges a patient's pictures: one model or an ensemble, its `model_fold`, and whether it never saw them."""

    detectors: tuple[Detector, ...]
    fold: int
    held_out: bool

    @property
    def digest(self) -> str:
        """Digests of the models' files."""
        return "+".join(detector.digest for detector in self.detectors)


def detect_shards(
    models: list[str] | list[Path],
    images: list[str] | list[Path],
    patients: str | Path,
    settings: dict[str, Any],
    device: str,
    threads: int,
    detections: str | Path,
    without: int | None = None,
) -> None:
    """Frame the pictures of one or several shards and write the detections in pixels of the stored images.

    All pictures of one judge go through it as one stream, so that batches fill across shards and patients.

    With the models of all folds, each patient is judged by the model of its own fold, which never saw it, and an
    external patient by all of them, merged. With those of a single fold (the paper's protocol) everybody is judged by
    them, and `held_out` says whether they had seen the patient. A fold's several members are merged, too.

    With `without`, the study is taken as if that fold didn't exist: none of its pictures is judged, and each model has
    seen neither its patients nor those of the fold that it judges.

    Parameters
    ----------
    models : safetensors files in the order of folds, as many of each, or those of a single fold.
    images : tables of `mammoflow.tables.IMAGES`, of one data set.
    patients : table of `mammoflow.tables.PATIENTS`.
    settings : section `detect` of the config.
    device : ``cpu`` or ``cuda``.
    threads : CPU threads; on a GPU as many read pictures for it.
    detections : table of `mammoflow.tables.DETECTIONS` to write.
    without : fold to go without; `models` are then those of the other folds.

    Raises
    ------
    DataError
        A picture can't be read, or its patient isn't in `patients`.
    ModelError
        A model's fold isn't that of its place in `models`.
    """
    torch.set_num_threads(threads)
    detectors = [load_detector(path, device) for path in models]
    check_folds(detectors, models, without)
    known = tables.read(tables.PATIENTS, patients).set_index(["dataset", "patient_key"])
    table = tables.read_all(tables.IMAGES, images)
    table = table[table["status"] == "ok"]
    table = table[np.array([_patient_of(row, known)["fold"] != without for row in table.itertuples()], bool)]
    check = [read_picture(path) for path in table["train_png"].iloc[:CHECKED]]
    detectors = [with_backend(one, settings["backend"], threads, check, settings) for one in detectors]
    variant = f"-without{without}" if without is not None else "-paper" if _of_one_fold(detectors) else ""
    readers = 1 if device == "cpu" else threads  # on a CPU the network takes the threads
    judges = [
        _judge_of(_patient_of(row, known), detectors, settings["background"], without) for row in table.itertuples()
    ]
    found = [
        row
        for image, judge, frames in progress(_judged(table, judges, settings, readers), len(table), "images")
        for row in _rows(image, judge, frames, variant)
    ]
    result = tables.from_rows(tables.DETECTIONS, found).sort_values("detection_id", kind="stable")
    if settings["rivals"]:
        result["score"] = weighed(result, table)
    tables.write(tables.DETECTIONS, result, detections)
    log.info("%d frames in %d images", len(found), len(table))


def check_folds(detectors: list[Detector], paths: list[str] | list[Path], without: int | None = None) -> None:
    """Refuse models given in another order than that of their folds, or a fold with other members than the first.

    With `without`, the folds are all but that one, and each model must have gone without it, too.
    """
    folds = [fold for fold in range(len(detectors) + 1) if fold != without]
    also = set() if without is None else {without}
    members = max(1, sum(detector.left_out == {folds[0], *also} for detector in detectors))
    if len(detectors) % members:
        raise ModelError(
            f"{paths[-1]}: a fold lacks members, expected {members} of each as of fold {folds[0]}; train them"
        )
    for place, (detector, path) in enumerate(zip(detectors, paths, strict=True)):
        expected = {folds[place // members], *also}
        if detector.left_out != expected:
            raise ModelError(
                f"{path}: was trained without fold {_listed(detector.left_out)}, expected without fold "
                f"{_listed(expected)}; train it again"
            )


def _listed(folds: set[int]) -> str:
    return " and ".join(map(str, sorted(folds)))


def choose_judge(detectors: list[Detector], fold: int, annotated: bool, without: int | None = None) -> Judge:
    """Say who judges a patient.

    Parameters
    ----------
    detectors : of all folds, or of a single one.
    fold : of the patient, -1 for an external one.
    annotated : whether the patient's images are trained on.
    without : fold that the study goes without; see `detect_shards`.
    """
    if without is not None:
        never = {fold, without}
        return Judge(tuple(one for one in detectors if one.left_out == never), fold, held_out=True)
    if _of_one_fold(detectors):
        only = detectors[0].fold
        return Judge(tuple(detectors), only, held_out=not annotated or fold in (only, EXTERNAL_FOLD))
    if fold == EXTERNAL_FOLD:
        return Judge(tuple(detectors), EXTERNAL_FOLD, held_out=True)
    return Judge(tuple(detector for detector in detectors if detector.fold == fold), fold, held_out=True)


def _of_one_fold(detectors: list[Detector]) -> bool:
    """Whether all were trained for the same fold: the paper's protocol."""
    return len({detector.fold for detector in detectors}) == 1


def judge_images(judge: Judge, images: list[NDArray[np.uint8]], settings: dict[str, Any]) -> list[Frames]:
    """Frames of each picture, in its pixels: of the one model and view, or merged from all.

    Parameters
    ----------
    judge : see `choose_judge`.
    images : uint8 arrays, (H, W).
    settings : section `detect` of the config (`test_time`, `min_score`, `nms_iou`, `ensemble_iou`).
    """
    every = [view for one in judge.detectors for view in detect_views(one, images, settings)]
    if len(every) == 1:
        return every[0]
    return [
        fuse(found, image.shape[1], image.shape[0], settings["ensemble_iou"])
        for image, *found in zip(images, *every, strict=True)
    ]


def weighed(found: pd.DataFrame, images: pd.DataFrame) -> pd.Series:
    """Scores of detections where rivals count (`mammoflow.detect.rivals`): those of lesions weighed.

    Parameters
    ----------
    found : rows of `mammoflow.tables.DETECTIONS`; a patient's lesions all stand in it.
    images : rows of `mammoflow.tables.IMAGES`, also of images without a frame.
    """
    scores = found["confidence"].copy()
    lesions = found[found["finding"] == "lesion"]
    of_image = lesions.groupby("image_id").groups
    for _, own in images.groupby("patient_key"):
        places = [of_image.get(image, lesions.index[:0]) for image in own["image_id"]]
        confidences = [lesions.loc[place, "confidence"].to_numpy() for place in places]
        for place, weighed_scores in zip(places, weigh(confidences, mirrored(own["transform"])), strict=True):
            scores.loc[place] = weighed_scores.round(6)
    return scores


def mirrored(transforms: Iterable[str]) -> list[bool]:
    """Whether pictures show the stored image mirrored, by the `transform` column of `mammoflow.tables.IMAGES`."""
    return [Transform.from_json(text).scale_x < 0 for text in transforms]


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Read an 8-bit grey picture, (H, W)."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataError(f"{path}: can't be read as a picture; remove its shard's table to convert it again")
    return np.asarray(image, np.uint8)


def _judged(
    table: pd.DataFrame, judges: list[Judge], settings: dict[str, Any], readers: int
) -> Iterator[tuple[Any, Judge, Frames]]:
    """Every image's row with its judge and frames; pictures of one judge go through it in batches."""
    judged = sorted(zip(table.itertuples(), judges, strict=True), key=lambda pair: pair[1].fold)
    pictures = prefetched(read_picture, [str(row.train_png) for row, _ in judged], AHEAD, readers)
    for _, group in groupby(judged, key=lambda pair: pair[1].fold):
        for batch in _batches(group):
            found = judge_images(batch[0][1], [next(pictures) for _ in batch], settings)
            yield from ((row, judge, frames) for (row, judge), frames in zip(batch, found, strict=True))


def prefetched(read: Callable[[T], P], items: Iterable[T], ahead: int, readers: int = 1) -> Iterator[P]:
    """Give ``read(item)`` of each item in order; threads read up to `ahead` of them while the caller works."""
    waiting: deque[Future[P]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # the caller stopped early: what wasn't begun isn't read
            for future in waiting:
                future.cancel()


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _patient_of(row: Any, patients: pd.DataFrame) -> pd.Series:
    try:
        return patients.loc[(row.dataset, row.patient_key)]
    except KeyError:
        raise DataError(
            f"image {row.image_id}: its patient {row.patient_key} isn't in the patients table; run labels_patients"
        ) from None


def _judge_of(patient: pd.Series, detectors: list[Detector], background: str, without: int | None) -> Judge:
    annotated = background == "all" or bool(patient["annotated"])
    return choose_judge(detectors, int(patient["fold"]), annotated, without)


def _rows(image: Any, judge: Judge, frames: Frames, variant: str) -> Iterator[dict[str, Any]]:
    architecture, classes = judge.detectors[0].architecture, judge.detectors[0].classes
    label = architecture.replace(".", "_") + variant
    stored = boxes.clip(Transform.from_json(image.transform).backward(frames.boxes), image.width, image.height)
    for number, (box, score, finding) in enumerate(zip(stored.round(2), frames.scores, frames.classes, strict=True)):
        confidence = min(1.0, round(float(score), 6))
        yield {
            "dataset": image.dataset,
            "image_id": image.image_id,
            "patient_key": image.patient_key,
            "detection_id": f"{image.image_id}-{label}-{number:03d}",
            "detector": architecture,
            "model_fold": judge.fold,
            "held_out": judge.held_out,
            "finding": classes[finding],
            "confidence": confidence,
            "score": confidence,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            "model_digest": judge.digest,
        }
