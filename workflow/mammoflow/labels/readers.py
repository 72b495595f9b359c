"""From a data set's annotations of any format to its lesion table."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.errors import AnnotationError
from mammoflow.labels.formats import coco, mias, table, voc, yolo
from mammoflow.labels.frames import Frame
from mammoflow.labels.pictures import Pictures

log = logging.getLogger("mammoflow")

MAX_FRAMES = 1000  # of one image; more are no expert's, but a detector's or an attack's

Reader = Callable[[Path, dict[str, Any], Pictures], Iterator[Frame]]
READERS: dict[str, Reader] = {
    "yolo": yolo.read,
    "voc": voc.read,
    "coco": coco.read,
    "mias": mias.read,
    "table": table.read,
}


def read_lesions(
    name: str,
    root: str | Path,
    annotations: list[dict[str, Any]],
    index: pd.DataFrame,
    sources: pd.DataFrame,
    expert_classes: list[str],
    partial: bool = False,
) -> pd.DataFrame:
    """Lesion table of a data set: every frame of its annotations.

    Parameters
    ----------
    name : the data set's name.
    root : its root directory.
    annotations : entries with `format`, `path` below the root and, for YOLO, `classes`.
    index, sources : its INDEX and SOURCES tables.
    expert_classes : pathologies that count as lesion for the detector.
    partial : whether annotations may be of more images than there are; those of the others are left out.

    Returns
    -------
    LESIONS table in the order of the entries. `expert` is true for frames the detector may learn from: lesions of
    `expert_classes` and nipples that have a box and no flag.

    Raises
    ------
    AnnotationError
        A file can't be read or doesn't fit its image, a frame occurs twice, or a malignant one is on a negative image.
    """
    pictures = Pictures(index, sources, partial)
    frames = list(
        _limited(frame for entry in annotations for frame in READERS[entry["format"]](Path(root), entry, pictures))
    )
    _check_twice(frames)
    _check_negative(frames)
    _tell(name, frames, pictures)
    return tables.from_rows(tables.LESIONS, list(_rows(name, frames, expert_classes)))


def read_truth(
    name: str,
    root: str | Path,
    truth: dict[str, Any] | None,
    index: pd.DataFrame,
    sources: pd.DataFrame,
    lesions: pd.DataFrame,
    expert_classes: list[str],
    partial: bool = False,
) -> pd.DataFrame:
    """Lesion table that the evaluation alone may see; `lesions` itself for a data set without a `truth` entry.

    Parameters and errors are those of `read_lesions`, `truth` being one entry of the same kind.
    """
    if truth is None:
        return lesions
    return read_lesions(name, root, [truth], index, sources, expert_classes, partial)


def _rows(name: str, frames: Iterable[Frame], expert_classes: list[str]) -> Iterator[dict[str, Any]]:
    numbers: Counter[str] = Counter()
    for frame in frames:
        image_id = frame.picture.image_id
        box = frame.box or (math.nan,) * 4
        learnable = frame.finding == "nipple" or frame.pathology in expert_classes
        yield {
            "dataset": name,
            "image_id": image_id,
            "lesion_id": f"{image_id}-{numbers[image_id]}",
            "finding": frame.finding,
            "pathology": frame.pathology,
            "lesion_type": frame.lesion_type,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            "source": frame.source,
            "expert": learnable and frame.box is not None and not frame.flag,
            "flag": frame.flag,
        }
        numbers[image_id] += 1


def _limited(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Pass frames on; stop at the first image with more of them than any expert draws."""
    counts: Counter[str] = Counter()
    for frame in frames:
        counts[frame.picture.image_id] += 1
        if counts[frame.picture.image_id] > MAX_FRAMES:
            raise AnnotationError(
                f"{frame.where}: more than {MAX_FRAMES} frames on one image, expected those of an expert; "
                "export the annotations again, or remove the file"
            )
        yield frame


def _check_twice(frames: list[Frame]) -> None:
    seen: dict[tuple[Any, ...], Frame] = {}
    for frame in frames:
        key = (frame.picture.image_id, frame.finding, frame.pathology, frame.lesion_type, frame.box)
        if frame.box is not None and key in seen:
            raise AnnotationError(
                f"{frame.where}: the same frame as {seen[key].where}, expected each lesion once; remove one of them"
            )
        seen[key] = frame


def _check_negative(frames: list[Frame]) -> None:
    for frame in frames:
        if frame.pathology == "malignant" and frame.picture.directory_label == "negative":
            raise AnnotationError(
                f"{frame.where}: a malignant lesion on {frame.picture.path}, which lies in the negative directory; "
                "expected none there: move the patient's images to the positive directory, or mend the annotation"
            )


def _tell(name: str, frames: list[Frame], pictures: Pictures) -> None:
    """Log what was found, and what the reader of the log may not expect."""
    lesions = [frame for frame in frames if frame.finding == "lesion"]
    with_lesion = {frame.picture.image_id for frame in lesions}
    log.info(
        "%s: %d lesions on %d images, %d nipples", name, len(lesions), len(with_lesion), len(frames) - len(lesions)
    )
    if pictures.unusable:
        log.warning("%s: annotations of %d excluded images are left out", name, len(pictures.unusable))
    if pictures.absent:
        log.warning("%s: annotations of %d images that aren't there are left out", name, len(pictures.absent))
    bare = sum(p.usable and p.directory_label == "positive" and p.image_id not in with_lesion for p in pictures)
    if bare:
        log.warning("%s: %d usable images of the positive directory have no lesion annotated", name, bare)
    for flag, count in Counter(frame.flag for frame in frames if frame.flag).items():
        log.warning("%s: %d lesions flagged %s; no detector learns from them", name, count, flag)
