"""Mining thresholds: for each fold the lowest score that reaches the aim on the other folds' images, and the curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import boxes, tables
from mammoflow.errors import LeakageError
from mammoflow.tables import EXTERNAL_FOLD

BOX = ["x1", "y1", "x2", "y2"]
CURVE_POINTS = 200  # of a fold; between them nothing is to be seen


@dataclass(frozen=True)
class Judged:
    """What out-of-fold detections did on annotated images.

    Attributes
    ----------
    false_scores : float64 array, scores of the frames that hit no expert lesion.
    true_scores : float64 array, scores of the frames that hit one.
    best_hits : float64 array, (lesions,), highest score that hit each expert lesion, 0 for one never hit.
    images : number of images.
    """

    false_scores: NDArray[np.float64]
    true_scores: NDArray[np.float64]
    best_hits: NDArray[np.float64]
    images: int


def choose_thresholds(
    detections: list[str] | list[Path],
    training: list[str] | list[Path],
    lesions: list[str] | list[Path],
    detector: str,
    folds: list[int],
    settings: dict[str, Any],
    thresholds: str | Path,
    curve: str | Path,
    without: int | None = None,
) -> None:
    """Choose every fold's threshold on the images of the other folds, and one for external images on all.

    Parameters
    ----------
    detections : tables of `mammoflow.tables.DETECTIONS` of the annotated patients, out of fold.
    training : tables of `mammoflow.tables.TRAINING` of the same patients.
    lesions : tables of `mammoflow.tables.LESIONS`.
    detector : architecture.
    folds : fold numbers.
    settings : section `crops` of the config: the aim is a `precision`, or, where that is null, a number of
        `false_frames_per_image`; and `match_iou`.
    thresholds : table of `mammoflow.tables.THRESHOLDS` to write, fold -1 last.
    curve : table of `mammoflow.tables.CURVE` to write: what other thresholds would have reached.
    without : fold whose images count for none of them and which gets no threshold.

    Raises
    ------
    LeakageError
        A detection was made by a model that had seen the patient.
    """
    found = tables.read_all(tables.DETECTIONS, detections)
    found = found[found["finding"] == "lesion"]
    if not found["held_out"].all():
        first = found.loc[~found["held_out"], "detection_id"].iloc[0]
        raise LeakageError(f"detection {first} isn't out of fold; thresholds are chosen on held-out images only")
    truth = tables.read_all(tables.LESIONS, lesions)
    truth = truth[truth["expert"] & (truth["finding"] == "lesion")].dropna(subset=BOX)
    images = tables.read_all(tables.TRAINING, training)
    images = images[images["fold"] != without]
    rows, points = [], []
    for fold in [*(fold for fold in folds if fold != without), EXTERNAL_FOLD]:
        judged = judge_detections(images[images["fold"] != fold], found, truth, settings["match_iou"])
        threshold = choose(judged, settings)
        rows.append({"detector": detector, "fold": fold, **_reached(judged, threshold)})
        points += [{"detector": detector, "fold": fold, **point} for point in operating_points(judged, threshold)]
    tables.write(tables.CURVE, tables.from_rows(tables.CURVE, points), curve)
    tables.write(tables.THRESHOLDS, tables.from_rows(tables.THRESHOLDS, rows), thresholds)


def judge_detections(images: pd.DataFrame, found: pd.DataFrame, truth: pd.DataFrame, match_iou: float) -> Judged:
    """Match detections with the expert's lesions, image by image.

    Parameters
    ----------
    images : rows of `mammoflow.tables.TRAINING`; nothing outside them counts.
    found, truth : rows of `mammoflow.tables.DETECTIONS` and of `mammoflow.tables.LESIONS`, lesions only.
    match_iou : a frame hits a lesion from this IoU on, or with its centre inside it.
    """
    framed = dict(list(found.groupby(["dataset", "image_id"])))
    lesions = dict(list(truth.groupby(["dataset", "image_id"])))
    false, true, best = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for key in zip(images["dataset"], images["image_id"], strict=True):
        rows, there = framed.get(key, found[:0]), lesions.get(key, truth[:0])
        hit = boxes.hits(rows[BOX], there[BOX], match_iou, center=True)
        scores = rows["score"].to_numpy(np.float64)
        false.append(scores[~hit.any(axis=1)])
        true.append(scores[hit.any(axis=1)])
        best.append(np.where(hit, scores[:, None], 0.0).max(axis=0, initial=0.0))
    return Judged(np.concatenate(false), np.concatenate(true), np.concatenate(best), len(images))


def pooled(parts: Sequence[Judged]) -> Judged:
    """Join what was done on the images of several parts."""
    scores = [
        np.concatenate([np.zeros(0), *(getattr(part, name) for part in parts)])
        for name in ("false_scores", "true_scores", "best_hits")
    ]
    return Judged(scores[0], scores[1], scores[2], images=sum(part.images for part in parts))


def sensitivity_at(judged: Judged, false_frames_per_image: float) -> float:
    """Share of the lesions found by the frames above the strictest score with more false frames an image than that."""
    false = np.sort(judged.false_scores)[::-1]
    allowed = int(false_frames_per_image * judged.images)
    beaten = false[allowed] if allowed < len(false) else 0.0
    return float((judged.best_hits > beaten).mean()) if len(judged.best_hits) else float("nan")


def choose(judged: Judged, settings: dict[str, Any]) -> float:
    """Lowest threshold that reaches the aim of section `crops` of the config."""
    if settings["precision"] is not None:
        return lowest_precise(judged, settings["precision"])
    return lowest_threshold(judged, settings["false_frames_per_image"])


def lowest_precise(judged: Judged, precision: float) -> float:
    """Lowest of the detections' scores at which at least this share of the frames at or above it is true.

    1 when no score is that strict, 0 when there is no detection.
    """
    scores = np.unique(np.concatenate([judged.false_scores, judged.true_scores]))
    if not len(scores):
        return 0.0
    false, true = _counts(judged, scores)
    allowed = scores[true >= precision * (false + true)]
    return float(allowed[0]) if len(allowed) else 1.0


def operating_points(judged: Judged, threshold: float) -> list[dict[str, Any]]:
    """Return what each threshold reaches, strictest last: at most `CURVE_POINTS` of them, and the chosen one."""
    scores = np.unique(np.concatenate([judged.false_scores, judged.true_scores]))
    shown = np.linspace(0, len(scores) - 1, min(len(scores), CURVE_POINTS)).round().astype(int)
    thresholds = np.union1d(scores[shown], [threshold])
    false, true = _counts(judged, thresholds)
    return [
        {
            **{key: value for key, value in _reached(judged, float(at)).items() if key not in ("images", "lesions")},
            "precision": t / (t + f) if t + f else np.nan,
            "chosen": bool(at == threshold),
        }
        for at, f, t in zip(thresholds, false, true, strict=True)
    ]


def _counts(judged: Judged, thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count false and true frames at or above each threshold."""
    false, true = (
        len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
        for scores in (judged.false_scores, judged.true_scores)
    )
    return false, true


def lowest_threshold(judged: Judged, false_frames_per_image: float) -> float:
    """Lowest of the detections' scores with at most that many false frames an image at or above it.

    1 when no score is that strict, 0 when there is no detection.
    """
    scores = np.unique(np.concatenate([judged.false_scores, judged.true_scores]))
    if not len(scores):
        return 0.0
    false_at, _ = _counts(judged, scores)
    allowed = scores[false_at <= false_frames_per_image * judged.images]
    return float(allowed[0]) if len(allowed) else 1.0


def _reached(judged: Judged, threshold: float) -> dict[str, float | int]:
    false = int((judged.false_scores >= threshold).sum())
    found = int((judged.best_hits >= max(threshold, np.finfo(float).tiny)).sum())
    return {
        "threshold": threshold,
        "false_frames_per_image": false / judged.images if judged.images else np.nan,
        "sensitivity": found / len(judged.best_hits) if len(judged.best_hits) else np.nan,
        "images": judged.images,
        "lesions": len(judged.best_hits),
    }
