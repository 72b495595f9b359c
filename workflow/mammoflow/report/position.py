"""Nipples and quadrants: how often the nipple is found, how far off it is, where in the breast the frames lie."""

from typing import Any

import numpy as np
import pandas as pd

from mammoflow import boxes
from mammoflow.report.bootstrap import Resamples
from mammoflow.report.detection import hit_rule
from mammoflow.report.study import EDGES, IMAGE, Cohort, Study, framed
from mammoflow.tables import QUADRANTS


def nipples(study: Study, cohort: Cohort) -> pd.DataFrame:
    """One row per picture with a true nipple.

    Returns
    -------
    The picture's columns with ``found`` (the best nipple detection reaches anatomy.min_nipple_score and finds the true
    frame by the hit rule), ``score`` (of that detection, NaN for none) and ``error_mm`` (between the centres, NaN
    without detection or without pixel spacing).
    """
    truth = framed(cohort.of(study.truths[study.truths["finding"] == "nipple"])).drop_duplicates(IMAGE)
    images = cohort.of(study.pictures).merge(truth[[*IMAGE, *EDGES]], on=IMAGE)
    best = study.nipple_detections(study.settings["crops"]["detector"], cohort).drop_duplicates(IMAGE)
    best = best[best["score"] >= study.settings["anatomy"]["min_nipple_score"]]
    detected = best[[*IMAGE, "score", *EDGES]].rename(columns={edge: f"detected_{edge}" for edge in EDGES})
    rows = images.merge(detected, on=IMAGE, how="left")
    frames, truths = boxes.as_boxes(rows[[f"detected_{edge}" for edge in EDGES]]), boxes.as_boxes(rows[EDGES])
    rule = hit_rule(study)
    found = [bool(boxes.hits(a, b, rule.min_iou, rule.center)[0, 0]) for a, b in zip(frames, truths, strict=True)]
    error = np.hypot(*(boxes.centers(frames) - boxes.centers(truths)).T) * rows["imager_pixel_spacing"]
    return rows.assign(found=np.array(found, dtype=bool), error_mm=error)


def measure(study: Study, cohort: Cohort) -> dict[str, Any]:
    """Nipple and quadrant figures of one cohort."""
    rows, located = nipples(study, cohort), cohort.of(study.anatomy)
    patients = Resamples.draw(rows["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    measured = rows[rows["error_mm"].notna()]
    sources = located.drop_duplicates(IMAGE)["nipple_source"].value_counts().sort_index()
    return {
        "cohort": cohort.name,
        "role": cohort.role,
        "nipple_found": patients.rate(rows["patient_key"], rows["found"]),
        "nipple_error_mm": patients.rate(measured["patient_key"], measured["error_mm"]),
        "nipple_sources": [{"source": source, "images": int(count)} for source, count in sources.items()],
        "located_frames": len(located),
        "quadrants": [
            {
                "image_laterality": side,
                "quadrant": quadrant,
                "frames": int(((located["image_laterality"] == side) & (located["quadrant"] == quadrant)).sum()),
            }
            for side in ("R", "L")
            for quadrant in QUADRANTS
        ],
    }
