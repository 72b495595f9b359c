"""Average precision as the COCO challenge counts it, by its own evaluation code (faster-coco-eval).

References
----------
Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
"""

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

from mammoflow import boxes
from mammoflow.report.bootstrap import rounded
from mammoflow.report.study import EDGES, IMAGE

LESION = 1


def average_precision(
    detections: pd.DataFrame, targets: pd.DataFrame, images: pd.DataFrame
) -> dict[str, float | int | None]:
    """COCO's average precision of lesion detections, every image counted.

    Parameters
    ----------
    detections, targets : DETECTIONS rows and framed LESIONS rows on `images`.
    images : rows with dataset and image_id.

    Returns
    -------
    ``average_precision`` (mean over IoU 0.50, 0.55 .. 0.95), ``average_precision_50``, ``average_precision_75``, None
    without a lesion, and ``lesions``. The 100 surest detections of an image count.
    """
    nothing = {"average_precision": None, "average_precision_50": None, "average_precision_75": None}
    if not len(targets):
        return {**nothing, "lesions": 0}
    numbers = {key: number for number, key in enumerate(images[IMAGE].itertuples(index=False, name=None), start=1)}
    truth = {
        "info": {},
        "images": [{"id": number, "width": 1, "height": 1} for number in numbers.values()],
        "categories": [{"id": LESION, "name": "lesion"}],
        "annotations": [{**row, "id": at, "iscrowd": 0} for at, row in enumerate(_rows(targets, numbers), start=1)],
    }
    if not len(detections):
        return {**dict.fromkeys(nothing, 0.0), "lesions": len(targets)}
    found = [
        {**row, "score": float(score)}
        for row, score in zip(_rows(detections, numbers), detections["score"], strict=True)
    ]
    reference = COCO(truth)
    evaluation = COCOeval_faster(reference, reference.loadRes(found), iouType="bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = zip(nothing, np.asarray(evaluation.stats[:3], dtype=float), strict=True)
    return {**{name: rounded(value) for name, value in values}, "lesions": len(targets)}


def _rows(table: pd.DataFrame, numbers: dict[tuple, int]) -> list[dict]:
    frames = boxes.as_boxes(table[EDGES])
    images = table[IMAGE].itertuples(index=False, name=None)
    return [
        {
            "image_id": numbers[image],
            "category_id": LESION,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
        }
        for image, (x1, y1, x2, y2) in zip(images, frames.tolist(), strict=True)
    ]
