"""Quality of the automatic benign labels: machine-framed crops against benign lesions that only the truth knows."""

from typing import Any

import numpy as np
import pandas as pd

from mammoflow import boxes, tables
from mammoflow.report.bootstrap import Rate, Resamples
from mammoflow.report.detection import hit_rule
from mammoflow.report.froc import HitRule
from mammoflow.report.study import EDGES, IMAGE, Cohort, Study, each, framed

GROUPS = ["machine", "density"]
POINTS = 40  # of the threshold curve in metrics.json; curve.tsv holds all


def measure(study: Study, protocol: str, cohort: Cohort) -> dict[str, Any]:
    """Quality of the benign crops: over all, by machine and (where the truth states it) density, and by lesion type."""
    images = mined_images(study, cohort)
    crops, lesions = judged(study, protocol, cohort)
    patients = Resamples.draw(images["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    return {
        "protocol": protocol,
        "cohort": cohort.name,
        "role": cohort.role,
        **quality(crops, lesions, images, patients),
        "screening": screening(study, protocol, cohort),
        "threshold_curve": threshold_curve(study),
        "by_lesion_type": [
            {
                "lesion_type": kind,
                "recall": patients.rate(rows["patient_key"], rows["found"]),
                "mean_iou": patients.rate(rows["patient_key"], rows["overlap"] * rows["found"], rows["found"]),
            }
            for kind, rows in lesions.groupby("lesion_type")
        ],
        **{
            f"by_{group}": [
                {
                    group: value,
                    **quality(crops[crops[group] == value], lesions[lesions[group] == value], rows, patients),
                }
                for value, rows in images.groupby(group)
            ]
            for group in GROUPS
        },
    }


def screening(study: Study, protocol: str, cohort: Cohort) -> dict[str, Any]:
    """Frames above the threshold on the mined images, and those dropped, by reason: how many showed a true lesion."""
    rows = cohort.of(study.screened)
    rows = rows[rows["protocol"] == protocol].merge(mined_images(study, cohort)[IMAGE], on=IMAGE)
    lesions = framed(cohort.of(study.true_lesions))
    found, _ = _find(rows, lesions, hit_rule(study))
    dropped = rows.assign(hit=~np.isnan(found))[~rows["kept"]]
    return {
        "frames": len(rows),
        "dropped": [
            {"reason": reason, "frames": len(those), "on_true_lesions": int(those["hit"].sum())}
            for reason, those in dropped.groupby("reason")
        ],
    }


def threshold_curve(study: Study) -> list[dict[str, Any]]:
    """Return what each threshold reaches on all folds' annotated images, out of fold; at most `POINTS` of them."""
    rows = study.curves
    rows = rows[(rows["detector"] == study.settings["crops"]["detector"]) & (rows["fold"] == tables.EXTERNAL_FOLD)]
    every = max(1, -(-len(rows) // POINTS))
    shown = rows.iloc[[at for at in range(len(rows)) if at % every == 0 or rows["chosen"].iloc[at]]]
    return [
        {
            "threshold": row.threshold,
            "false_frames_per_image": row.false_frames_per_image,
            "sensitivity": None if np.isnan(row.sensitivity) else row.sensitivity,
            "precision": None if np.isnan(row.precision) else row.precision,
            "chosen": bool(row.chosen),
        }
        for row in each(shown)
    ]


def mined_images(study: Study, cohort: Cohort) -> pd.DataFrame:
    """Pictures that benign crops are taken from: those of patients without a positive image."""
    images = cohort.of(study.pictures)
    return images[images["label"] == "negative"].reset_index(drop=True)


def judged(study: Study, protocol: str, cohort: Cohort) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Benign crops and true benign lesions of the mined images, held against each other.

    Returns
    -------
    crops : CROPS rows with ``hit`` (finds a true benign lesion), ``overlap`` (largest IoU with one it finds),
        ``machine`` and ``density``.
    lesions : LESIONS rows with ``found`` (a crop finds it), ``overlap`` (largest IoU with one that does),
        ``patient_key``, ``machine`` and ``density``.
    """
    images = mined_images(study, cohort)[[*IMAGE, "patient_key", *GROUPS]]
    crops = cohort.of(study.crops)
    crops = crops[(crops["protocol"] == protocol) & (crops["label"] == "benign") & (crops["origin"] == "detection")]
    crops = crops.merge(images[[*IMAGE, *GROUPS]], on=IMAGE)
    lesions = framed(cohort.of(study.true_lesions)).merge(images, on=IMAGE)
    lesions = lesions[lesions["pathology"] == "benign"].reset_index(drop=True)
    of_crops, of_lesions = _find(crops, lesions, hit_rule(study))
    return (
        crops.assign(hit=~np.isnan(of_crops), overlap=np.nan_to_num(of_crops)),
        lesions.assign(found=~np.isnan(of_lesions), overlap=np.nan_to_num(of_lesions)),
    )


def _find(crops: pd.DataFrame, lesions: pd.DataFrame, rule: HitRule) -> tuple[np.ndarray, np.ndarray]:
    """Largest IoU of each crop with a lesion it finds, and of each lesion with a crop that finds it; NaN for none."""
    of_crops, of_lesions = np.full(len(crops), np.nan), np.full(len(lesions), np.nan)
    lesion_rows = lesions.groupby(IMAGE).indices
    for image, rows in crops.groupby(IMAGE).indices.items():
        if image in lesion_rows:
            frames, truths = crops.iloc[rows][EDGES], lesions.iloc[lesion_rows[image]][EDGES]
            pairs = boxes.hits(frames, truths, rule.min_iou, rule.center)
            overlap = np.where(pairs, boxes.iou(frames, truths), np.nan)
            of_crops[rows] = np.fmax.reduce(overlap, axis=1)  # NaN where all are
            of_lesions[lesion_rows[image]] = np.fmax.reduce(overlap, axis=0)
    return of_crops, of_lesions


def quality(
    crops: pd.DataFrame, lesions: pd.DataFrame, images: pd.DataFrame, patients: Resamples
) -> dict[str, int | Rate]:
    """Precision, recall, overlap and number of the crops and lesions that `judged` gave."""
    counts = pd.MultiIndex.from_frame(crops[IMAGE]).value_counts()
    per_image = counts.reindex(pd.MultiIndex.from_frame(images[IMAGE])).fillna(0)
    return {
        "images": len(images),
        "crops": len(crops),
        "true_lesions": len(lesions),
        "precision": patients.rate(crops["patient_key"], crops["hit"]),
        "recall": patients.rate(lesions["patient_key"], lesions["found"]),
        "mean_iou_of_hits": patients.rate(crops["patient_key"], crops["overlap"] * crops["hit"], crops["hit"]),
        "crops_per_image": patients.rate(images["patient_key"], per_image.to_numpy(dtype=float)),
    }
