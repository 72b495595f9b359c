"""Findings of a study as JSON: what a viewer or a person reads."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow.files import write_text

DISCLAIMER = "Research use only; not a medical device."


def describe(
    index: pd.DataFrame, images: pd.DataFrame, found: pd.DataFrame, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Return the findings of each image, excluded ones and those without findings included.

    Boxes are half-open ``x1, y1, x2, y2`` and the nipple ``x, y`` in pixels of the stored image, distances in mm,
    scores and probabilities 0..1, unknown numbers None. Images are named by salted hash, laterality and view; no
    identifier of patient, study or file is in it.

    Parameters
    ----------
    index, images : INDEX and IMAGES tables of the study.
    found : ANATOMY rows with `score`, `probability` and the box of each lesion detection.
    provenance : models and settings.
    """
    pictures = images.set_index("image_id")
    described = [_image(row, pictures, found) for row in index.sort_values("image_id").to_dict("records")]
    return {
        "disclaimer": DISCLAIMER,
        "models": provenance,
        "images": [image for image in described if image["reason"] != "not_an_image"],
    }


def write_findings(description: dict[str, Any], path: str | Path) -> None:
    """Write what `describe` gave, indented, whole or not at all."""
    write_text(path, json.dumps(description, indent=2, allow_nan=False) + "\n")


def _image(row: dict[Any, Any], pictures: pd.DataFrame, found: pd.DataFrame) -> dict[str, Any]:
    made = pictures.loc[row["image_id"]] if row["image_id"] in pictures.index else row
    usable = made["status"] == "ok"
    findings = found[found["image_id"] == row["image_id"]].sort_values("score", ascending=False, kind="stable")
    return {
        "image_id": row["image_id"],
        "image_laterality": row["image_laterality"],
        "view_position": row["view_position"],
        "status": made["status"],
        "reason": made["reason"],
        "rows": int(row["rows"]),
        "columns": int(row["columns"]),
        "overlay": f"overlays/{row['image_id']}.png" if usable else None,
        "findings": [_finding(finding) for finding in findings.to_dict("records")],
    }


def _finding(row: dict[Any, Any]) -> dict[str, Any]:
    known = row["nipple_source"] != "unknown"
    return {
        "box": [round(row[edge], 1) for edge in ("x1", "y1", "x2", "y2")],
        "detector_score": round(row["score"], 6),
        "probability_malignant": round(row["probability"], 4),
        "half": row["half"],
        "quadrant": row["quadrant"],
        "nipple": [round(row["nipple_x"], 1), round(row["nipple_y"], 1)] if known else None,
        "nipple_source": row["nipple_source"],
        "nipple_distance_mm": None if math.isnan(row["distance_mm"]) else round(row["distance_mm"], 1),
    }
