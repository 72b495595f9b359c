"""Screening of mined frames: which of those above the threshold aren't worth a crop, and why."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import boxes, tables
from mammoflow.images.breast import breast_mask

BOX = ["x1", "y1", "x2", "y2"]
BRIGHT = 0.5  # of the grey range: off the breast only labels are so bright


def screen_image(
    accepted: pd.DataFrame, nipples: pd.DataFrame, picture: NDArray[Any], settings: dict[str, Any], match_iou: float
) -> pd.DataFrame:
    """Say which of an image's frames are kept, the same way for both kinds of crops.

    In the order of the reasons: ``off_breast`` (too little of the frame lies on the breast), ``label`` (so too, and
    what lies there is bright), ``nipple`` (it frames the nipple), ``duplicate`` (a kept frame of a higher score shows
    the same place by the rule that matches frames and lesions).

    Parameters
    ----------
    accepted : lesion rows of `mammoflow.tables.DETECTIONS` at or above the threshold.
    nipples : nipple rows of the image.
    picture : uint8 or uint16 array, (H, W), the full-size windowed picture.
    settings : `min_breast_share`, `nipple_score`, `nipple_iou`; see section `crops.screen` of the config.
    match_iou : frames of one place overlap at least this much, or the centre of the lower lies in the higher.

    Returns
    -------
    `accepted`, highest score first, with the columns ``breast_share`` (0..1, NaN when no breast was found) and
    ``reason`` (empty: kept).
    """
    rows = accepted.sort_values(["score", "detection_id"], ascending=[False, True], ignore_index=True)
    shares, bright = on_breast(rows[BOX], picture)
    sure = nipples[nipples["score"] >= settings["nipple_score"]]
    on_nipple = (boxes.iou(rows[BOX], sure[BOX]) >= settings["nipple_iou"]).any(axis=1)
    off = shares < settings["min_breast_share"]
    reasons = np.select([off & bright, off, on_nipple], ["label", "off_breast", "nipple"], "")
    same = boxes.hits(rows[BOX], rows[BOX], match_iou, center=True)
    for number in range(len(rows)):
        higher = same[number, :number] & (reasons[:number] == "")
        if reasons[number] == "" and higher.any():
            reasons[number] = "duplicate"
    return rows.assign(breast_share=shares, reason=reasons)


def on_breast(frames: Any, picture: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Share of each frame's area that lies on the breast (NaN without breast), and whether the rest is bright."""
    b = boxes.clip(frames, picture.shape[1], picture.shape[0]).round().astype(int)
    mask = breast_mask(picture.astype(np.uint16))
    shares, bright = np.full(len(b), np.nan), np.zeros(len(b), bool)
    if mask is None:
        return shares, bright
    limit = BRIGHT * np.iinfo(picture.dtype).max
    for number, (x1, y1, x2, y2) in enumerate(b):
        inside = mask[y1:y2, x1:x2]
        shares[number] = inside.mean() if inside.size else 0.0
        outside = picture[y1:y2, x1:x2][~inside]
        bright[number] = outside.size > 0 and float(np.percentile(outside, 95)) >= limit
    return shares, bright


def screen_shard(
    detections: pd.DataFrame,
    images: pd.DataFrame,
    read: Callable[[Any], NDArray[Any]],
    thresholds: dict[str, float],
    settings: dict[str, Any],
    protocol: str,
) -> pd.DataFrame:
    """Screen the frames of a shard.

    Parameters
    ----------
    detections : rows of `mammoflow.tables.DETECTIONS`, nipples included.
    images : rows of `mammoflow.tables.IMAGES` with a picture.
    read : gives the full-size picture of such a row.
    thresholds : lowest score accepted in each image, by image_id.
    settings : section `crops` of the config (`screen`, `match_iou`).
    protocol : of the crops.

    Returns
    -------
    Table of `mammoflow.tables.SCREENED`, dropped frames included; sorted by detection_id.
    """
    lowest = detections["image_id"].map(thresholds).astype(float)
    lesions = detections[(detections["finding"] == "lesion") & (detections["score"] >= lowest)]
    nipples = detections[detections["finding"] == "nipple"]
    framed = {str(image_id): rows for image_id, rows in lesions.groupby("image_id")}
    found = []
    for image in images[images["image_id"].isin(framed)].itertuples():
        here = nipples[nipples["image_id"] == image.image_id]
        found.append(
            screen_image(framed[str(image.image_id)], here, read(image), settings["screen"], settings["match_iou"])
        )
    if not found:
        return tables.empty(tables.SCREENED)
    rows = pd.concat(found, ignore_index=True)
    rows = rows.assign(protocol=protocol, threshold=rows["image_id"].map(thresholds), kept=rows["reason"] == "")
    rows = rows.sort_values("detection_id", ignore_index=True)
    return tables.from_rows(tables.SCREENED, rows[list(tables.SCREENED.columns)].to_dict("records"))
