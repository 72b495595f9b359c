"""Which frames become crops, and whether they are malignant or benign."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mammoflow import boxes
from mammoflow.tables import CROP_LABELS

BOX = ["x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class Candidate:
    """A frame that becomes a crop.

    Attributes
    ----------
    label : ``malignant`` or ``benign``.
    origin : ``detection`` or ``expert``.
    box : ``x1, y1, x2, y2``, pixels of the stored image.
    detection_id, lesion_id : what it came from and the expert's frame it matched; empty for none.
    iou : with that frame, 0..1; not a number for none.
    score, threshold : of the detection and the lowest accepted, 0..1; not a number for an expert's frame.
    model_digest : of the detector's weights; empty for an expert's frame.
    """

    label: str
    origin: str
    box: tuple[float, float, float, float]
    detection_id: str = ""
    lesion_id: str = ""
    iou: float = math.nan
    score: float = math.nan
    threshold: float = math.nan
    model_digest: str = ""


@dataclass(frozen=True)
class Mined:
    """Crops of one image, and how many accepted detections gave none.

    Attributes
    ----------
    candidates : the crops.
    unmatched : detections in a positive patient that match no lesion of known pathology.
    repeated : detections of a lesion that a higher score already found.
    """

    candidates: list[Candidate]
    unmatched: int = 0
    repeated: int = 0


def mine(detections: pd.DataFrame, lesions: pd.DataFrame, label: str, threshold: float, match_iou: float) -> Mined:
    """Choose the crops of one image from its detections.

    In a negative patient every accepted detection is benign. In a positive patient only those that match an expert's
    lesion are taken, with that lesion's pathology; any other frame there may be anything and is dropped. Of several
    detections of one lesion the highest score is kept. An unlabelled patient gives none.

    Parameters
    ----------
    detections : rows of `mammoflow.tables.DETECTIONS` of the image, lesions only.
    lesions : the expert's lesions in the image, rows of `mammoflow.tables.LESIONS`.
    label : of the patient: ``positive``, ``negative`` or ``unknown``.
    threshold : lowest score accepted, 0..1.
    match_iou : a detection matches a lesion from this IoU on, or with its centre inside it.
    """
    accepted = detections[detections["score"] >= threshold].sort_values(
        ["score", "detection_id"], ascending=[False, True]
    )
    if label == "negative":
        return Mined([_candidate(row, "benign", threshold) for row in accepted.itertuples()])
    if label == "positive":
        return _matched(accepted, lesions, threshold, match_iou)
    return Mined([])


def expert_frames(lesions: pd.DataFrame) -> list[Candidate]:
    """Return the expert's own malignant frames as crops: the paper's way.

    Parameters
    ----------
    lesions : the expert's lesions in an image, rows of `mammoflow.tables.LESIONS`.
    """
    malignant = lesions[lesions["pathology"] == "malignant"]
    frames = zip(malignant["lesion_id"], malignant.itertuples(), strict=True)
    return [Candidate("malignant", "expert", _box(row), lesion_id=lesion_id, iou=1.0) for lesion_id, row in frames]


def _matched(accepted: pd.DataFrame, lesions: pd.DataFrame, threshold: float, match_iou: float) -> Mined:
    overlap = boxes.iou(accepted[BOX], lesions[BOX])
    hit = boxes.hits(accepted[BOX], lesions[BOX], match_iou, center=True)
    candidates: list[Candidate] = []
    taken: set[int] = set()
    unmatched = repeated = 0
    for row, ious, hits in zip(accepted.itertuples(), overlap, hit, strict=True):
        best = int(np.where(hits, ious, -1.0).argmax()) if hits.any() else -1
        pathology = lesions["pathology"].iloc[best] if hits.any() else ""
        if pathology not in CROP_LABELS:
            unmatched += 1
        elif best in taken:
            repeated += 1
        else:
            taken.add(best)
            lesion_id = lesions["lesion_id"].iloc[best]
            candidates.append(_candidate(row, pathology, threshold, lesion_id, float(ious[best])))
    return Mined(candidates, unmatched, repeated)


def _candidate(row: Any, label: str, threshold: float, lesion_id: str = "", iou: float = math.nan) -> Candidate:
    return Candidate(
        label=label,
        origin="detection",
        box=_box(row),
        detection_id=row.detection_id,
        lesion_id=lesion_id,
        iou=iou,
        score=row.score,
        threshold=threshold,
        model_digest=row.model_digest,
    )


def _box(row: Any) -> tuple[float, float, float, float]:
    return (row.x1, row.y1, row.x2, row.y2)
