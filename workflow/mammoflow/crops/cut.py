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
from mammoflow.crops.screen import screen_shard
from mammoflow.errors import DataError
from mammoflow.files import write_bytes
from mammoflow.images.breast import breast_mask
from mammoflow.images.converting import MASTERS_DIRECTORY
from mammoflow.jobs import progress
from mammoflow.provenance import settings_digest

log = logging.getLogger("mammoflow")
BACKGROUND = 0  # beyond the picture's border is air
SHORT = {"out_of_fold": "oof", "paper": "paper"}  # protocol in a crop's id
PAPER_FOLD = 0  # the paper's one model is that of fold 0
SETTINGS = ("detector", "false_frames_per_image", "precision", "match_iou", "screen", "margin", "scale")
Picture = NDArray[Any]  # uint8 or uint16
DEEPEST = 65535
PERCENTILES = (1, 99)  # of the breast in a master, and the share of their distance that is kept to either side:
HEADROOM = 0.5  # calcifications are brighter than almost all of the breast


def cut_shard(
    protocol: str,
    detections: str | Path,
    thresholds: str | Path,
    images: str | Path,
    index: str | Path,
    lesions: str | Path,
    patients: str | Path,
    settings: dict[str, Any],
    table: str | Path,
    screened: str | Path,
    pictures: str | Path,
    without: int | None = None,
) -> None:
    """Cut the crops of a shard and write their table.

    ``out_of_fold``: both kinds are detections of models that never saw the patient, above the fold's threshold.
    ``paper``: malignant crops are the expert's frames, benign ones the detections of the one model in negatives.

    Parameters
    ----------
    protocol : ``out_of_fold`` or ``paper``.
    detections : table of `mammoflow.tables.DETECTIONS` of the shard and possibly others.
    images : table of `mammoflow.tables.IMAGES` of the shard.
    thresholds : table of `mammoflow.tables.THRESHOLDS`.
    index : table of `mammoflow.tables.INDEX` of the data set, for the pixel spacing.
    lesions : table of `mammoflow.tables.LESIONS` of the data set.
    patients : table of `mammoflow.tables.PATIENTS`.
    settings : section `crops` of the config (`match_iou`, `margin`, `scale`).
    table : table of `mammoflow.tables.CROPS` to write.
    screened : table of `mammoflow.tables.SCREENED` to write: every frame above the threshold, dropped ones included.
    pictures : directory to make, with one PNG a crop in ``malignant/`` and ``benign/``: 16-bit where masters are kept
        (``images.masters``), 8-bit otherwise.
    without : fold whose patients give no crop: the crops teach the classifier that must not know of them.

    Raises
    ------
    DataError
        A picture can't be read, a patient is missing, or `out_of_fold` detections aren't held out.
    """
    every = tables.read(tables.DETECTIONS, detections)
    found = every[every["finding"] == "lesion"]
    if protocol == "out_of_fold" and not found["held_out"].all():
        raise DataError(f"{detections}: holds detections by models that saw the patient; run detect_images again")
    spacings = pixel_spacings(index)
    pathology = tables.read(tables.LESIONS, lesions)
    pathology = pathology[pathology["expert"] & (pathology["finding"] == "lesion")].dropna(subset=BOX)
    shown = tables.read(tables.IMAGES, images)
    shown = shown[shown["status"] == "ok"]
    known = tables.read(tables.PATIENTS, patients).set_index(["dataset", "patient_key"])
    accepted = tables.read(tables.THRESHOLDS, thresholds).set_index("fold")["threshold"]
    shown = shown[np.array([_patient(known, image)["fold"] != without for image in shown.itertuples()], bool)]
    lowest = {
        str(image.image_id): _threshold(accepted, _patient(known, image), protocol) for image in shown.itertuples()
    }
    judged = screen_shard(every, shown, read_picture, lowest, settings, protocol)
    tables.write(tables.SCREENED, judged, screened)
    found = found[found["detection_id"].isin(judged.loc[judged["kept"], "detection_id"])]
    for label in tables.CROP_LABELS:
        (Path(pictures) / label).mkdir(parents=True, exist_ok=True)
    digest = settings_digest([protocol, {key: settings.get(key) for key in SETTINGS}])
    rows: list[dict[str, Any]] = []
    dropped = Counter(judged["reason"][~judged["kept"]])
    for image in progress(shown.sort_values("image_id").itertuples(), len(shown), "images"):
        patient = _patient(known, image)
        threshold = lowest[str(image.image_id)]
        here = (found[found["image_id"] == image.image_id], pathology[pathology["image_id"] == image.image_id])
        mined = _gather(protocol, *here, patient["label"], threshold, settings["match_iou"])
        dropped.update(unmatched=mined.unmatched, repeated=mined.repeated)
        place = {"fold": int(patient["fold"]), "protocol": protocol, "config_digest": digest}
        sides = [crop_side(one.box, settings, spacings.get(str(image.image_id), math.nan)) for one in mined.candidates]
        name = f"{image.image_id}-{SHORT[protocol]}{'' if without is None else without}"
        rows += _cut_image(image, mined.candidates, sides, Path(pictures), name, place)
    tables.write(tables.CROPS, tables.from_rows(tables.CROPS, rows), table)
    counts = Counter(row["label"] for row in rows)
    log.info(
        "%d malignant and %d benign crops; in positive patients %d frames matched no lesion, %d one already found; "
        "dropped before: %d off the breast, %d on labels, %d on nipples, %d duplicates",
        counts["malignant"], counts["benign"],
        *(dropped[why] for why in ("unmatched", "repeated", "off_breast", "label", "nipple", "duplicate")),
    )  # fmt: skip


def pixel_spacings(index: str | Path) -> dict[str, float]:
    """Millimetres a pixel of each image of an INDEX table, NaN when unknown."""
    table = tables.read(tables.INDEX, index)
    return dict(zip(table["image_id"], table["imager_pixel_spacing"], strict=True))


def crop_side(box: tuple[float, float, float, float], settings: dict[str, Any], spacing: float) -> int:
    """Side of a frame's crop, whole pixels, at least 1.

    Parameters
    ----------
    box : the frame, pixels of the stored image.
    settings : section `crops` of the config. With ``scale: {side_mm}`` every crop shows a field of that many mm, so
        that its enlargement doesn't betray the frame's size; without it, or where the spacing is unknown, the side is
        ``margin`` times the frame's longer side.
    spacing : mm a pixel, NaN when unknown; ``scale.pixel_spacing`` then stands for it where it is given.
    """
    scale = settings.get("scale") or {}
    known = spacing if spacing > 0 else scale.get("pixel_spacing", math.nan)
    if scale and known > 0:
        return max(1, round(scale["side_mm"] / known))
    x1, y1, x2, y2 = box
    return max(1, round(settings["margin"] * max(x2 - x1, y2 - y1)))


def crop_box(box: tuple[float, float, float, float], side: int) -> tuple[int, int, int, int]:
    """Square of `side` pixels about a frame's centre, whole pixels. It may reach beyond the image."""
    x1, y1, x2, y2 = box
    left, top = math.floor((x1 + x2 - side) / 2 + 0.5), math.floor((y1 + y2 - side) / 2 + 0.5)
    return left, top, left + side, top + side


def cut(image: Picture, box: tuple[int, int, int, int]) -> Picture:
    """Cut `box` out of a picture, (H, W), at its own resolution and depth; background beyond the border."""
    left, top, right, bottom = box
    height, width = image.shape
    crop = np.full((bottom - top, right - left), BACKGROUND, image.dtype)
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


def _threshold(accepted: pd.Series, patient: pd.Series, protocol: str) -> float:
    """Lowest score accepted in a patient's images."""
    return float(accepted[PAPER_FOLD if protocol == "paper" else int(patient["fold"])])


def _patient(patients: pd.DataFrame, image: Any) -> pd.Series:
    try:
        return patients.loc[(image.dataset, image.patient_key)]
    except KeyError:
        raise DataError(
            f"image {image.image_id}: its patient {image.patient_key} isn't in the patients table; run labels_patients"
        ) from None


def read_picture(image: Any) -> Picture:
    """Read the full-size windowed picture of an IMAGES row, uint8 (H, W).

    Raises
    ------
    DataError
        It can't be read.
    """
    return _read(image.png)


def read_source(image: Any) -> Picture:
    """Read the full-size picture, (H, W), that an IMAGES row's crops are cut from.

    The 16-bit master where it is kept, spread over the full scale (`spread`); the windowed 8-bit picture otherwise.

    Raises
    ------
    DataError
        It can't be read.
    """
    picture, windowed = read_picture(image), Path(image.png)
    master = windowed.parent / MASTERS_DIRECTORY / f"{windowed.stem}.png"
    return spread(_read(master), breast_mask(picture.astype(np.uint16))) if master.exists() else picture


def spread(master: Picture, breast: NDArray[np.bool_] | None) -> Picture:
    """Spread a master's greys over 16 bits, so that pictures of all machines and depths use the same scale.

    A master counts in steps of its machine: the brightest of 12 bits is 4,095, a sixteenth of the scale. The breast's
    1st and 99th percentiles come to lie at a quarter and three quarters; what is far beyond is clipped.

    Parameters
    ----------
    master : uint16 array, (H, W), dense tissue bright, padding 0.
    breast : its pixels, (H, W); None: all count.

    Returns
    -------
    uint16 array, (H, W), full scale; greys of up to 14 bits stay apart between its ends.
    """
    low, high = np.percentile(master if breast is None else master[breast], PERCENTILES)
    reach = max(float(high - low), 1.0)
    share = (master.astype(np.float32) - (low - HEADROOM * reach)) / ((1 + 2 * HEADROOM) * reach)
    return np.rint(np.clip(share, 0, 1) * DEEPEST).astype(np.uint16)


def _read(path: str | Path) -> Picture:
    found = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    if found is None:
        raise DataError(f"{path}: can't be read as a picture; remove its shard's table to convert it again")
    return np.asarray(found)


def _cut_image(
    image: Any, candidates: list[Candidate], sides: list[int], pictures: Path, name: str, place: dict[str, Any]
) -> list[dict[str, Any]]:
    if not candidates:
        return []
    source = read_source(image)
    rows = []
    for number, (candidate, side) in enumerate(zip(candidates, sides, strict=True)):
        box = crop_box(candidate.box, side)
        crop_id = f"{name}-{number:03d}"
        path = pictures / candidate.label / f"{crop_id}.png"
        write_bytes(path, cv2.imencode(".png", cut(source, box))[1].tobytes())
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
