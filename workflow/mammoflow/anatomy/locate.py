"""Position in the breast of every lesion detection of a shard."""

import logging
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammoflow import boxes, tables
from mammoflow.anatomy.nipple import BOX, Nipple, find_nipple
from mammoflow.anatomy.quadrant import HORIZONTAL, INDETERMINATE, VERTICAL, half, match, quadrant
from mammoflow.errors import DataError

IMAGE = ["dataset", "image_id"]
BREAST = ["dataset", "patient_key", "study_key", "image_laterality"]

log = logging.getLogger("mammoflow")


def locate_shard(
    detections_path: str | Path,
    thresholds_path: str | Path,
    images_path: str | Path,
    index_path: str | Path,
    settings: dict[str, Any],
    table_path: str | Path,
) -> None:
    """Locate the lesion detections of one shard and write an ANATOMY table.

    Parameters
    ----------
    detections_path, thresholds_path, images_path, index_path : tables of those names; the first may hold other shards'
        detections as well, the index is the data set's.
    settings : ``anatomy`` of config.yaml.
    table_path : table to write.

    Raises
    ------
    DataError
        A detection's image or its fold's threshold is missing, or a picture can't be read.
    """
    detections, images = tables.read(tables.DETECTIONS, detections_path), tables.read(tables.IMAGES, images_path)
    table = locate(
        detections[detections["image_id"].isin(images["image_id"])],
        tables.read(tables.THRESHOLDS, thresholds_path),
        images,
        tables.read(tables.INDEX, index_path),
        settings,
    )
    counts = ", ".join(f"{count} {name}" for name, count in table["quadrant"].value_counts().items())
    log.info("%d lesion detections located (%s)", len(table), counts or "none")
    tables.write(tables.ANATOMY, table, table_path)


def locate(
    detections: pd.DataFrame,
    thresholds: pd.DataFrame,
    images: pd.DataFrame,
    index: pd.DataFrame,
    settings: dict[str, Any],
) -> pd.DataFrame:
    """Locate each lesion detection that reaches its fold's threshold.

    Parameters
    ----------
    detections, thresholds, images, index : tables of those names. The index may hold more images than the others.
    settings : ``anatomy`` of config.yaml.

    Returns
    -------
    ANATOMY table, sorted by detection. Quadrants combine the views of a breast in one study: a lesion of a view from
    above is that of a side view when their distances from the nipple differ by at most ``match_mm``.

    Raises
    ------
    DataError
        A detection's image or its fold's threshold is missing, or a picture can't be read.
    """
    lesions = _above_threshold(detections[detections["finding"] == "lesion"], thresholds)
    nipples = _nipples(lesions, detections, images, settings["min_nipple_score"])
    wanted = index[[*IMAGE, "study_key", "image_laterality", "view_position", "imager_pixel_spacing"]]
    placed = lesions.merge(wanted, on=IMAGE, how="left", validate="many_to_one")
    if (lost := placed["view_position"].isna()).any():
        raise DataError(f"image {placed.loc[lost, 'image_id'].iloc[0]} has detections but no row in the index")
    placed = _place(placed, nipples)
    placed["quadrant"] = _quadrants(placed, settings["match_mm"])
    rows = placed.sort_values("detection_id")[list(tables.ANATOMY.columns)].to_dict("records")
    return tables.from_rows(tables.ANATOMY, [{str(key): value for key, value in row.items()} for row in rows])


def _above_threshold(lesions: pd.DataFrame, thresholds: pd.DataFrame) -> pd.DataFrame:
    """Keep the detections with at least the score that mining asks of their fold."""
    asked = lesions.merge(
        thresholds[["detector", "fold", "threshold"]], left_on=["detector", "model_fold"],
        right_on=["detector", "fold"], how="left", validate="many_to_one",
    )  # fmt: skip
    if asked["threshold"].isna().any():
        lost = asked[asked["threshold"].isna()].iloc[0]
        raise DataError(
            f"no threshold of {lost['detector']} for fold {lost['model_fold']}: run detect_thresholds again"
        )
    return asked[asked["score"] >= asked["threshold"]].reset_index(drop=True)


def _nipples(
    lesions: pd.DataFrame, detections: pd.DataFrame, images: pd.DataFrame, min_score: float
) -> dict[tuple[str, str], Nipple]:
    """Nipple of each image with a lesion, by data set and image."""
    found = detections[detections["finding"] == "nipple"]
    pictures = images[images["status"] == "ok"].set_index(IMAGE)
    nipples = {}
    for dataset, image_id in lesions[IMAGE].drop_duplicates().itertuples(index=False):
        if (dataset, image_id) not in pictures.index:
            raise DataError(f"image {image_id} has detections but no picture in the images table: convert it again")
        own = found[(found["dataset"] == dataset) & (found["image_id"] == image_id)]
        nipples[dataset, image_id] = find_nipple(pictures.loc[(dataset, image_id)], own, min_score)
    return nipples


def _place(lesions: pd.DataFrame, nipples: dict[tuple[str, str], Nipple]) -> pd.DataFrame:
    """Add nipple, distance in mm and half-plane to each lesion."""
    own = [nipples[key] for key in zip(lesions["dataset"], lesions["image_id"], strict=True)]
    centers = boxes.centers(lesions[BOX])
    x, y = np.array([nipple.x for nipple in own]), np.array([nipple.y for nipple in own])
    pixels = np.hypot(centers[:, 0] - x, centers[:, 1] - y) if own else np.zeros(0)
    halves = [half(*row) for row in zip(lesions["view_position"], y, centers[:, 1], strict=True)]
    return lesions.assign(
        nipple_x=x,
        nipple_y=y,
        nipple_source=[nipple.source for nipple in own],
        nipple_score=[nipple.score for nipple in own],
        distance_mm=pixels * lesions["imager_pixel_spacing"],
        half=halves,
    )


def _quadrants(lesions: pd.DataFrame, match_mm: float) -> list[str]:
    """Quadrant of each lesion, from the closest match in a view of the other kind of the same breast and study."""
    found = dict.fromkeys(lesions.index, (np.inf, INDETERMINATE))
    for (*_, laterality), breast in lesions.groupby(BREAST):
        views = [view for _, view in breast.groupby("image_id")] if laterality else []
        sides = [view for view in views if view["view_position"].iloc[0] in VERTICAL]
        tops = [view for view in views if view["view_position"].iloc[0] in HORIZONTAL]
        for side, top in product(sides, tops):
            for i, j in match(list(side["distance_mm"]), list(top["distance_mm"]), match_mm):
                first, second = side.iloc[i], top.iloc[j]
                name = quadrant(first["half"], second["half"])
                entry = (abs(first["distance_mm"] - second["distance_mm"]), name)
                for key in (first.name, second.name):
                    found[key] = min(found[key], entry)
    return [name for _, name in found.values()]
