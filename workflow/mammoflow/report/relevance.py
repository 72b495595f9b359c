"""Relevance maps in numbers: share of relevance inside the frame, how well the sum is kept, what fell on padding."""

from typing import Any

import pandas as pd

from mammoflow.report.bootstrap import Resamples
from mammoflow.report.study import IMAGE, Cohort, Study

_ZONES = ("lesion", "border", "pectoral", "label", "outside")
_SHARES = (
    *("relevance_in_box", "box_area_share", "blob_in_box", "relevance_on_padding", "blob_on_lesion"),
    *(f"{what}_{zone}" for zone in _ZONES for what in ("on", "area")),
)
_BY_TYPE = (
    *("on_lesion", "area_lesion", "blob_on_lesion"),
    *(f"on_{zone}" for zone in _ZONES[1:]),
)


def measure(study: Study, cohort: Cohort) -> list[dict[str, Any]]:
    """One entry per kind of map and architecture."""
    maps = pd.concat(
        [cohort.of(table) for table in (study.detection_maps, study.crop_maps) if len(table)] or [_none(study)]
    )
    maps = maps[maps["part"] == "score"].merge(study.pictures[[*IMAGE, "patient_key"]], on=IMAGE)
    return [
        {"cohort": cohort.name, "role": cohort.role, "kind": kind, "model": model, **_summary(study, rows)}
        for (kind, model), rows in maps.groupby(["kind", "model"])
    ]


def _none(study: Study) -> pd.DataFrame:
    return study.detection_maps.iloc[:0]


def _summary(study: Study, rows: pd.DataFrame) -> dict[str, Any]:
    patients = Resamples.draw(rows["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    refused, rows = rows[rows["reason"] != ""], rows[rows["reason"] == ""]
    errors = rows["conservation_error"].dropna()
    return {
        "maps": len(rows),
        **{column: _mean(patients, rows, column) for column in _SHARES},
        "conservation_error_median": _two_digits(errors.median()) if len(errors) else None,
        "conservation_error_highest": _two_digits(errors.max()) if len(errors) else None,
        "flagged": int((rows["flag"] == "outside_breast").sum()),
        "without_relevance": int((rows["flag"] == "no_relevance").sum()),
        "not_explained": len(refused),
        "reasons": sorted(refused["reason"].unique()),
        "by_lesion_type": [
            {
                "lesion_type": str(lesion_type),
                "maps": len(part),
                **{column: _mean(patients, part, column) for column in _BY_TYPE},
            }
            for lesion_type, part in rows.groupby("lesion_type")
        ],
    }


def _mean(patients: Resamples, rows: pd.DataFrame, column: str) -> dict[str, Any]:
    known = rows[rows[column].notna()]
    return patients.rate(known["patient_key"], known[column])


def _two_digits(error: float) -> float:
    """Errors are far below 1: keep two significant digits, which libraries agree on."""
    return float(f"{error:.1e}")
