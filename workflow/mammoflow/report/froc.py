"""FROC and average precision of lesion detections, with patient-bootstrap intervals.

References
----------
Chakraborty, Observer Performance Methods for Diagnostic Imaging, 2017 (FROC).
Everingham et al., The Pascal Visual Object Classes Challenge, 2010 (average precision, all points).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import boxes
from mammoflow.report.bootstrap import Array, Rate, Resamples, bands, divide, rate, rounded
from mammoflow.report.study import EDGES, IMAGE

CURVE = np.round(np.geomspace(0.02, 8, 53), 4)  # false positives per image at which curves are drawn


@dataclass(frozen=True)
class HitRule:
    """When a detection finds a lesion (`mammoflow.boxes.hits`)."""

    min_iou: float
    center: bool

    def words(self) -> str:
        """Return the rule as a sentence."""
        rule = f"a detection finds a lesion when the two frames' IoU is at least {self.min_iou:g}"
        return rule + (" or the detection's centre lies inside the lesion's frame" if self.center else "")


@dataclass(frozen=True)
class Judged:
    """Detections held against the target lesions of a set of images.

    Attributes
    ----------
    score : float64 array, (D,), highest first.
    hit : bool array, (D,), whether the detection finds at least one target lesion.
    matched : bool array, (D,), whether it is the highest-scoring detection given to one target lesion.
    ignored : bool array, (D,), whether it finds no target but another true lesion.
    patient : str array, (D,), patient of each detection.
    lesion_score : float64 array, (L,), highest score of a detection that finds the lesion, -inf for none.
    lesion_patient : str array, (L,), patient of each target lesion.
    image_patient : str array, (I,), patient of each image, those without detection or lesion included.
    """

    score: Array
    hit: NDArray[np.bool_]
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    patient: NDArray[Any]
    lesion_score: Array
    lesion_patient: NDArray[Any]
    image_patient: NDArray[Any]

    @property
    def false_positive(self) -> NDArray[np.bool_]:
        """Detections that find no true lesion at all."""
        return ~self.hit & ~self.ignored


def judge(
    detections: pd.DataFrame, targets: pd.DataFrame, others: pd.DataFrame, images: pd.DataFrame, rule: HitRule
) -> Judged:
    """Hold detections against target lesions.

    Parameters
    ----------
    detections : DETECTIONS rows on `images`.
    targets : framed LESIONS rows on `images` that should be found.
    others : framed LESIONS rows whose detections count neither as found nor as false positive.
    images : rows with dataset, image_id and patient_key: every image looked at.
    rule : when a detection finds a lesion.
    """
    ordered = detections.sort_values(["score", "detection_id"], ascending=[False, True], ignore_index=True)
    patients = images.set_index(IMAGE)["patient_key"]
    hit, matched, ignored = (np.zeros(len(ordered), dtype=bool) for _ in range(3))
    lesion_score = np.full(len(targets), -np.inf)
    target_rows, other_rows = _rows_of_images(targets), _rows_of_images(others)
    frames, scores = boxes.as_boxes(ordered[EDGES]), ordered["score"].to_numpy(dtype=float)
    target_boxes, other_boxes = boxes.as_boxes(targets[EDGES]), boxes.as_boxes(others[EDGES])
    for image, rows in _rows_of_images(ordered).items():
        if image in other_rows:
            ignored[rows] = boxes.hits(frames[rows], other_boxes[other_rows[image]], rule.min_iou, rule.center).any(1)
        if image in target_rows:
            truth = target_rows[image]
            found = boxes.hits(frames[rows], target_boxes[truth], rule.min_iou, rule.center)
            hit[rows] = found.any(axis=1)
            matched[rows] = match(found, boxes.iou(frames[rows], target_boxes[truth]))
            lesion_score[truth] = np.where(found, scores[rows, None], -np.inf).max(axis=0)
    lesion_patient = patients.reindex(pd.MultiIndex.from_frame(targets[IMAGE])).to_numpy(dtype=str)
    return Judged(
        scores,
        hit,
        matched,
        ignored & ~hit,
        ordered["patient_key"].to_numpy(dtype=str),
        lesion_score,
        lesion_patient,
        images["patient_key"].to_numpy(dtype=str),
    )


def _rows_of_images(table: pd.DataFrame) -> dict[tuple[str, str], NDArray[np.int64]]:
    return {image: np.sort(rows) for image, rows in table.groupby(IMAGE).indices.items()}  # type: ignore[misc]


def match(found: NDArray[np.bool_], overlap: Array) -> NDArray[np.bool_]:
    """Give each lesion to one detection: in order of rows, the free lesion found with the largest overlap.

    Parameters
    ----------
    found : bool array, (D, L), highest score first, whether a detection finds a lesion.
    overlap : float64 array, (D, L), their IoU.

    Returns
    -------
    bool array, (D,), whether the detection got a lesion.
    """
    matched = np.zeros(len(found), dtype=bool)
    free = np.ones(found.shape[1], dtype=bool)
    for row in range(len(found)):
        candidates = np.flatnonzero(found[row] & free)
        if len(candidates):
            free[candidates[np.argmax(overlap[row, candidates])]] = False
            matched[row] = True
    return matched


def sensitivities(judged: Judged, weights: Array, patients: Resamples, levels: Array) -> Array:
    """Lesion sensitivity at false positives per image, for each row of weights.

    The operating point is the lowest score at which the false positives per image don't exceed the level; detections of
    equal score are taken or left together.

    Parameters
    ----------
    weights : float64 array, (R, P), weight of each patient.
    patients : gives the column of a patient in `weights`.
    levels : float64 array, (F,), false positives per image.

    Returns
    -------
    float64 array, (R, F), NaN where a row of weights has no lesion.
    """
    false = judged.false_positive
    false_scores = judged.score[false]
    false_codes, image_codes = patients.codes(judged.patient[false]), patients.codes(judged.image_patient)
    order = np.argsort(-judged.lesion_score, kind="stable")
    lesion_scores, lesion_codes = judged.lesion_score[order], patients.codes(judged.lesion_patient[order])
    images_of = np.bincount(image_codes, minlength=len(patients.patients))
    result = np.empty((len(weights), len(levels)))
    for row, weight in enumerate(weights):
        allowed = levels * (weight @ images_of) + 1e-9
        first_too_many = np.searchsorted(np.cumsum(weight[false_codes]), allowed, side="right")
        above = np.append(false_scores, -np.inf)[first_too_many]
        found = np.concatenate([[0.0], np.cumsum(weight[lesion_codes])])
        taken = np.searchsorted(-lesion_scores, -above, side="left")
        result[row] = divide(found[taken], np.full(len(levels), found[-1]))
    return result


def average_precision(judged: Judged, weights: Array, patients: Resamples) -> Array:
    """Area under the precision-recall curve of detections, all points, precision made monotone, per row of weights.

    A second detection of a lesion already given away is a false positive here; ignored detections count nowhere.

    Returns
    -------
    float64 array, (R,), NaN where a row of weights has no lesion.
    """
    counted = ~judged.ignored
    codes, hit = patients.codes(judged.patient[counted]), judged.matched[counted]
    last_of_score = np.append(np.diff(judged.score[counted]) != 0, True)[: len(codes)]
    lesions = weights @ np.bincount(patients.codes(judged.lesion_patient), minlength=len(patients.patients))
    result = np.full(len(weights), np.nan)
    for row in np.flatnonzero(lesions > 0):
        weight = weights[row, codes]
        all_found = np.cumsum(weight)[last_of_score]
        true = np.cumsum(weight * hit)[last_of_score]
        precision = np.nan_to_num(divide(true, all_found))
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        result[row] = np.sum(np.diff(true / lesions[row], prepend=0.0) * best_from_here)
    return result


def froc(judged: Judged, levels: list[float], resamples: int, seed: int) -> dict[str, Any]:
    """Points, curve and average precision of judged detections, each with its interval, as metrics.json holds them."""
    patients = Resamples.draw(judged.image_patient, resamples, seed)
    whole = np.ones((1, len(patients.patients)))
    lesions, images = len(judged.lesion_score), len(judged.image_patient)
    at = np.asarray(levels, dtype=float)
    values, drawn = (sensitivities(judged, weights, patients, at) for weights in (whole, patients.weights))
    curve, drawn_curve = (sensitivities(judged, weights, patients, CURVE) for weights in (whole, patients.weights))
    low, high = bands(drawn_curve)
    return {
        "images": images,
        "lesions": lesions,
        "highest_false_positives_per_image": rounded(judged.false_positive.sum() / images if images else None),
        "points": [
            {
                "false_positives_per_image": level,
                "sensitivity": rate(values[0, i], drawn[:, i], lesions, _note(lesions)),
            }
            for i, level in enumerate(at.tolist())
        ],
        "curve": {
            "false_positives_per_image": CURVE.tolist(),
            "sensitivity": [rounded(value) for value in curve[0]],
            "low": low,
            "high": high,
        },
        "average_precision": precision_rate(judged, patients),
    }


def precision_rate(judged: Judged, patients: Resamples) -> Rate:
    """Average precision with its interval."""
    lesions = len(judged.lesion_score)
    value = average_precision(judged, np.ones((1, len(patients.patients))), patients)[0]
    return rate(value, average_precision(judged, patients.weights, patients), lesions, _note(lesions))


def _note(lesions: int) -> str:
    return "" if lesions else "no lesion to find"
