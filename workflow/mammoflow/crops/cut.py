"""Cutting crops out of full-size pictures, the same way for both kinds."""

import logging
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import tables
from mammoflow.crops.match import BOX, Candidate, Mined, expert_frames, mine
from mammoflow.errors import DataError
from mammoflow.jobs import progress
from mammoflow.provenance import settings_digest

log = logging.getLogger("mammoflow")
BACKGROUND = 0  # beyond the picture's border is air
SHORT = {"out_of_fold": "oof", "paper": "paper"}  # protocol in a crop's id
PAPER_FOLD = 0  # the paper's one model is that of fold 0
SETTINGS = ("detector", "false_frames_per_image", "match_iou", "margin")


def cut_shard(
    protocol: str,
    detections: str | Path,
    thresholds: str | Path,
    images: str | Path,
    lesions: str | Path,
    patients: str | Path,
    settings: dict[str, Any],
    table: str | Path,
    pictures: str | Path,
) -> None:
    """Cut the crops of a shard and write their table.

    ``out_of_fold``: both kinds are detections of models that never saw the patient, above the fold's threshold.
    ``paper``: malignant crops are the expert's frames, benign ones the detections of the one model in negatives.

    Parameters
    ----------
    protocol : ``out_of_fold`` or ``paper``.
    detections, images : tables of `mammoflow.tables.DETECTIONS` and `mammoflow.tables.IMAGES` of the shard.
    thresholds : table of `mammoflow.tables.THRESHOLDS`.
    lesions : table of `mammoflow.tables.LESIONS` of the data set.
    patients : table of `mammoflow.tables.PATIENTS`.
    settings : section `crops` of the config (`match_iou`, `margin`).
    table : table of `mammoflow.tables.CROPS` to write.
    pictures : directory to make, with one 8-bit PNG a crop in ``malignant/`` and ``benign/``.

    Raises
    ------
    DataError
        A picture can't be read, a patient is missing, or `out_of_fold` detections aren't held out.
    """
    found = tables.read(tables.DETECTIONS, detections)
    found = found[found["finding"] == "lesion"]
    if protocol == "out_of_fold" and not found["held_out"].all():
        raise DataError(f"{detections}: holds detections by models that saw the patient; run detect_images again")
    pathology = tables.read(tables.LESIONS, lesions)
    pathology = pathology[pathology["expert"] & (pathology["finding"] == "lesion")].dropna(subset=BOX)
    shown = tables.read(tables.IMAGES, images)
    shown = shown[shown["status"] == "ok"]
    known = tables.read(tables.PATIENTS, patients).set_index(["dataset", "patient_key"])
    accepted = tables.read(tables.THRESHOLDS, thresholds).set_index("fold")["threshold"]
    for label in tables.CROP_LABELS:
        (Path(pictures) / label).mkdir(parents=True, exist_ok=True)
    digest = settings_digest([protocol, {key: settings.get(key) for key in SETTINGS}])
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for image in progress(shown.sort_values("image_id").itertuples(), len(shown), "images"):
        patient = _patient(known, image)
        threshold = float(accepted[PAPER_FOLD if protocol == "paper" else int(patient["fold"])])
        here = (found[found["image_id"] == image.image_id], pathology[pathology["image_id"] == image.image_id])
        mined = _gather(protocol, *here, patient["label"], threshold, settings["match_iou"])
        dropped.update(unmatched=mined.unmatched, repeated=mined.repeated)
        place = {"fold": int(patient["fold"]), "protocol": protocol, "config_digest": digest}
        rows += _cut_image(image, mined.candidates, settings["margin"], Path(pictures), place)
    tables.write(tables.CROPS, tables.from_rows(tables.CROPS, rows), table)
    counts = Counter(row["label"] for row in rows)
    log.info(
        "%d malignant and %d benign crops; in positive patients %d frames matched no lesion, %d one already found",
        counts["malignant"], counts["benign"], dropped["unmatched"], dropped["repeated"],
    )  # fmt: skip


def crop_box(box: tuple[float, float, float, float], margin: float) -> tuple[int, int, int, int]:
    """Square about a frame's centre, whole pixels, side `margin` times the frame's longer side, at least 1.

    It may reach beyond the image.
    """
    x1, y1, x2, y2 = box
    side = max(1, round(margin * max(x2 - x1, y2 - y1)))
    left, top = math.floor((x1 + x2 - side) / 2 + 0.5), math.floor((y1 + y2 - side) / 2 + 0.5)
    return left, top, left + side, top + side


def cut(image: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Cut `box` out of a picture, (H, W), at its own resolution; background where it reaches beyond the border."""
    left, top, right, bottom = box
    height, width = image.shape
    crop = np.full((bottom - top, right - left), BACKGROUND, np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x1 < x2 and y1 < y2:
        crop[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    return crop


def _gather(
    protocol: str, detections: pd.DataFrame, lesions: pd.DataFrame, label: str, threshold: float, match_iou: float
) -> Mined:
    if protocol == "paper" and label == "positive":
        return Mined(expert_frames(lesions))
    return mine(detections, lesions, label, threshold, match_iou)


def _patient(patients: pd.DataFrame, image: Any) -> pd.Series:
    try:
        return patients.loc[(image.dataset, image.patient_key)]
    except KeyError:
        raise DataError(
            f"image {image.image_id}: its patient {image.patient_key} isn't in the patients table; run labels_patients"
        ) from None


def _cut_image(
    image: Any, candidates: list[Candidate], margin: float, pictures: Path, place: dict[str, Any]
) -> list[dict[str, Any]]:
    if not candidates:
        return []
    source = cv2.imread(image.png, cv2.IMREAD_GRAYSCALE)
    if source is None:
        raise DataError(f"{image.png}: can't be read as a picture; remove its shard's table to convert it again")
    rows = []
    for number, candidate in enumerate(candidates):
        box = crop_box(candidate.box, margin)
        crop_id = f"{image.image_id}-{SHORT[place['protocol']]}-{number:03d}"
        path = pictures / candidate.label / f"{crop_id}.png"
        if not cv2.imwrite(str(path), cut(np.asarray(source, np.uint8), box)):
            raise DataError(f"{path}: can't be written; is the disk full?")
        rows.append(
            {
                **{name: value for name, value in asdict(candidate).items() if name != "box"},
                **dict(zip(BOX, candidate.box, strict=True)),
                **dict(zip([f"crop_{edge}" for edge in BOX], box, strict=True)),
                **place,
                "dataset": image.dataset,
                "image_id": image.image_id,
                "patient_key": image.patient_key,
                "crop_id": crop_id,
                "png": str(path),
            }
        )
    return rows
