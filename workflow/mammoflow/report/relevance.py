"""Relevance maps in numbers: share of relevance inside the frame, how well the sum is kept, what fell on padding."""

from typing import Any

import pandas as pd

from mammoflow.report.bootstrap import Resamples
from mammoflow.report.study import IMAGE, Cohort, Study


def measure(study: Study, cohort: Cohort) -> list[dict[str, Any]]:
    """One entry per kind of map and architecture."""
    maps = pd.concat(
        [cohort.of(table) for table in (study.detection_maps, study.crop_maps) if len(table)] or [_none(study)]
    )
    maps = maps.merge(study.pictures[[*IMAGE, "patient_key"]], on=IMAGE)
    return [
        {"cohort": cohort.name, "role": cohort.role, "kind": kind, "model": model, **_summary(study, rows)}
        for (kind, model), rows in maps.groupby(["kind", "model"])
    ]


def _none(study: Study) -> pd.DataFrame:
    return study.detection_maps.iloc[:0]


def _summary(study: Study, rows: pd.DataFrame) -> dict[str, Any]:
    patients = Resamples.draw(rows["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    known = {
        column: rows[rows[column].notna()] for column in ("relevance_in_box", "box_area_share", "relevance_on_padding")
    }
    errors = rows["conservation_error"].dropna()
    return {
        "maps": len(rows),
        **{column: patients.rate(part["patient_key"], part[column]) for column, part in known.items()},
        "conservation_error_median": _two_digits(errors.median()) if len(errors) else None,
        "conservation_error_highest": _two_digits(errors.max()) if len(errors) else None,
    }


def _two_digits(error: float) -> float:
    """Errors are far below 1: keep two significant digits, which libraries agree on."""
    return float(f"{error:.1e}")
