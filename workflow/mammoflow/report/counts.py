"""What the study holds, per data set: files, pictures, why others were left out, patients, lesions, machines."""

from typing import Any

import pandas as pd

from mammoflow.report.study import IMAGE, Study, framed


def measure(study: Study, dataset: str, role: str) -> dict[str, Any]:
    """Return counts of one data set."""
    index, patients, pictures = (_of(table, dataset) for table in (study.indices, study.patients, study.pictures))
    expert = framed(_of(study.expert_lesions, dataset))
    return {
        "dataset": dataset,
        "role": role,
        "files": len(index),
        "pictures": len(pictures),
        "excluded": excluded(study, dataset),
        "patients": len(patients),
        "patients_by_label": {
            label: int((patients["label"] == label).sum()) for label in ("positive", "negative", "unknown")
        },
        "pictures_by_label": {
            label: int((pictures["directory_label"] == label).sum()) for label in ("positive", "negative", "unknown")
        },
        "annotated_patients": int(patients["annotated"].sum()),
        "annotated_images": len(expert[IMAGE].drop_duplicates()),
        "lesions": lesions(study, dataset),
        "machines": [
            {"machine": machine, "pictures": len(rows), "patients": rows["patient_key"].nunique()}
            for machine, rows in pictures.groupby("machine")
        ],
    }


def _of(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    return table[table["dataset"] == dataset]


def excluded(study: Study, dataset: str) -> list[dict[str, Any]]:
    """Files left out, by stage and reason."""
    rows = []
    for stage, table in (("index", study.indices), ("images", study.images)):
        out = _of(table, dataset)
        reasons = out.loc[out["status"] == "excluded", "reason"].value_counts().sort_index()
        rows += [{"stage": stage, "reason": reason, "files": int(count)} for reason, count in reasons.items()]
    return rows


def lesions(study: Study, dataset: str) -> list[dict[str, Any]]:
    """Lesions of the truth and of the expert, by pathology and type."""
    rows = []
    for source, table in (("truth", study.true_lesions), ("expert", study.expert_lesions)):
        for (pathology, kind), part in _of(table, dataset).groupby(["pathology", "lesion_type"]):
            rows.append(
                {
                    "source": source,
                    "pathology": pathology,
                    "lesion_type": kind,
                    "lesions": len(part),
                    "framed": len(framed(part)),
                }
            )
    return rows
