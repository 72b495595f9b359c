"""Figures 7 and 8: which pixels were responsible for a detection."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mammoflow import boxes
from mammoflow.report.detection import hit_rule
from mammoflow.report.figures import panels
from mammoflow.report.figures.style import DETECTION, EXPERT, new, words
from mammoflow.report.study import EDGES, IMAGE, Study, each, framed
from mammoflow.report.wording import percent

_NOTHING = "No relevance map of a detection that finds a malignant lesion was drawn."


def explained_hits(study: Study) -> pd.DataFrame:
    """RELEVANCE rows (with overlay) of detections that find a true malignant lesion, surest first.

    Returns
    -------
    The maps' columns with ``confidence`` and ``detected_x1`` ... (of the detection), ``lesion_type`` and
    ``lesion_x1`` ... (of the lesion).
    """
    maps = study.detection_maps[study.detection_maps["part"] == "score"]
    maps = maps[maps["overlay_png"] != ""].drop(columns="lesion_type")  # that of the hit is taken from the truth
    frames = study.detections[["detection_id", "finding", "score", *EDGES]]
    frames = frames[frames["finding"] == "lesion"].rename(
        columns={"score": "confidence"} | {edge: f"detected_{edge}" for edge in EDGES}
    )
    maps = maps.merge(frames, left_on="explained_id", right_on="detection_id")
    lesions = framed(study.true_lesions)
    lesions = lesions[lesions["pathology"] == "malignant"].merge(study.pictures[IMAGE], on=IMAGE)
    lesion_columns = {edge: f"lesion_{edge}" for edge in EDGES}
    pairs = maps.merge(lesions[[*IMAGE, "lesion_id", "lesion_type", *EDGES]].rename(columns=lesion_columns), on=IMAGE)
    kept = [row.Index for row in each(pairs) if _finds(study, row)]
    found = pairs.loc[kept].sort_values(["confidence", "map_id"], ascending=[False, True])
    return found.drop_duplicates("map_id").reset_index(drop=True)


def _finds(study: Study, row: panels.Row) -> bool:
    rule = hit_rule(study)
    return bool(boxes.hits(_box(row, "detected"), _box(row, "lesion"), rule.min_iou, rule.center)[0, 0])


def _box(row: panels.Row, whose: str) -> list[float]:
    return [getattr(row, f"{whose}_{edge}") for edge in EDGES]


def expert_and_map(study: Study, metrics: dict) -> Figure:
    """Figure 7: the expert's frame, the detection with its confidence, the relevance map."""
    maps = explained_hits(study)
    if maps.empty:
        return words(f"Figure 7. {_NOTHING}")
    chosen = maps.drop_duplicates(IMAGE).head(2)
    figure = new(6.6, 3.2 * len(chosen))
    axes = figure.subplots(len(chosen), 3, squeeze=False)
    for line, row in zip(axes, each(chosen), strict=True):
        image = next(each(panels.of_image(study.pictures, row)))
        region = _around(row, image)
        panels.show(line[0], image, region, f"Expert's frame ({panels.view_name(image)})")
        panels.frame(line[0], _box(row, "lesion"), EXPERT)
        panels.show(line[1], image, region, f"Detection ({row.model})")
        panels.frame(line[1], _box(row, "detected"), DETECTION, percent(row.confidence))
        panels.show(line[2], image, region, "Relevance (LRP)")
        panels.overlay(line[2], row)
    return figure


def _around(row: panels.Row, image: panels.Row) -> boxes.Boxes:
    """Region that shows the breast and all of the map, whose scale bar lies in its lower left corner."""
    both = np.stack([panels.breast_region(image), panels.box_of(row)])
    union = np.concatenate([both[:, :2].min(axis=0), both[:, 2:].max(axis=0)])
    return boxes.clip(boxes.as_boxes(union), image.width, image.height)[0]


def aspects(study: Study, metrics: dict) -> Figure:
    """Figure 8: relevance of detections of malignant lesions of different aspect."""
    maps = explained_hits(study)
    if maps.empty:
        return words(f"Figure 8. {_NOTHING}")
    one_each = maps.drop_duplicates("lesion_type")
    rest = maps[~maps["map_id"].isin(one_each["map_id"])]
    chosen = pd.concat([one_each, rest]).head(4).sort_values("lesion_type", kind="stable")
    figure = new(1.85 * len(chosen), 4.1)
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, row in enumerate(each(chosen)):
        image = next(each(panels.of_image(study.pictures, row)))
        region = _near(row, image)
        panels.show(axes[0, column], image, region, title=row.lesion_type.replace("_", " ").capitalize())
        panels.show(axes[1, column], image, region)
        panels.overlay(axes[1, column], row)
        for panel in axes[:, column]:
            panel.set(xlim=region[[0, 2]], ylim=region[[3, 1]])
        panels.frame(axes[0, column], _box(row, "lesion"), EXPERT)
        panels.frame(axes[0, column], _box(row, "detected"), DETECTION, percent(row.confidence))
    axes[0, 0].set_ylabel("Mammogram")
    axes[1, 0].set_ylabel("Relevance (LRP)")
    return figure


def _near(row: panels.Row, image: panels.Row) -> boxes.Boxes:
    """Square region around the detection, four times its longer side."""
    box = boxes.as_boxes(_box(row, "detected"))
    half = 2 * max(box[0, 2] - box[0, 0], box[0, 3] - box[0, 1])
    center = boxes.centers(box)[0]
    center = center.clip(
        [min(half, image.width / 2)] * 2,
        [max(image.width - half, image.width / 2), max(image.height - half, image.height / 2)],
    )
    return boxes.clip([*(center - half), *(center + half)], image.width, image.height)[0]
