"""How well detectors find lesions: FROC on both truths, and the paper's located and incorrect rates."""

from typing import Any

import numpy as np
import pandas as pd

from mammoflow.report import coco
from mammoflow.report.bootstrap import Resamples
from mammoflow.report.froc import HitRule, Judged, froc, judge, precision_rate
from mammoflow.report.study import IMAGE, Cohort, Study, framed

OUTCOMES = ["located", "other_lesion", "incorrect", "no_frame"]


def hit_rule(study: Study) -> HitRule:
    """Return the report's hit rule."""
    return HitRule(study.settings["report"]["hit_iou"], study.settings["report"]["hit_center"])


def measure(study: Study, detector: str, cohort: Cohort) -> dict[str, Any]:
    """FROC (expert's lesions and all lesions; report's hit rule and IoU alone) and rates at the mining threshold."""
    settings = study.settings["report"]
    rule = hit_rule(study)
    at_half = judged_on(study, detector, cohort, "any_lesion", HitRule(0.5, False))
    patients = Resamples.draw(at_half.image_patient, settings["bootstrap"], study.settings["seed"])
    curves = [
        {
            "truth": truth,
            "hit_rule": hits,
            **froc(
                judged_on(study, detector, cohort, truth, used),
                settings["false_positives_per_image"],
                settings["bootstrap"],
                study.settings["seed"],
            ),
        }
        for truth in ("expert", "any_lesion")
        for hits, used in (("report", rule), ("iou_only", HitRule(rule.min_iou, False)))
    ]
    return {
        "detector": detector,
        "cohort": cohort.name,
        "role": cohort.role,
        "froc": curves,
        "average_precision_iou50": precision_rate(at_half, patients),
        "coco": coco_precision(study, detector, cohort),
        "at_mining_threshold": at_mining_threshold(study, detector, cohort),
        "found": found(study, detector, cohort),
    }


def judged_on(study: Study, detector: str, cohort: Cohort, truth: str, rule: HitRule) -> Judged:
    """Return a detector's frames held against the expert's lesions (`expert`) or against all (`any_lesion`).

    Images with a target lesion that has no frame are left out: what a detector shows there can't be judged.
    """
    all_true = cohort.of(study.true_lesions)
    targets = cohort.of(study.expert_lesions) if truth == "expert" else all_true
    others = all_true if truth == "expert" else all_true.iloc[:0]
    images = without(cohort.of(study.pictures), unframed_images(targets))
    detections = study.lesion_detections(detector, cohort)
    return judge(_on(detections, images), _on(framed(targets), images), _on(framed(others), images), images, rule)


def coco_precision(study: Study, detector: str, cohort: Cohort) -> dict[str, Any]:
    """COCO's average precision over all true lesions."""
    targets = cohort.of(study.true_lesions)
    images = without(cohort.of(study.pictures), unframed_images(targets))
    found = study.lesion_detections(detector, cohort)
    return coco.average_precision(_on(found, images), _on(framed(targets), images), images)


def unframed_images(lesions: pd.DataFrame) -> pd.DataFrame:
    """Images (dataset, image_id) with a lesion whose frame is unknown."""
    has_frame = lesions[["x1", "y1", "x2", "y2"]].notna().all(axis=1)
    return lesions.loc[~has_frame, IMAGE].drop_duplicates()


def without(images: pd.DataFrame, left_out: pd.DataFrame) -> pd.DataFrame:
    """Rows of `images` that are not in `left_out`."""
    keys = pd.MultiIndex.from_frame(images[IMAGE])
    return images[~keys.isin(pd.MultiIndex.from_frame(left_out[IMAGE]))].reset_index(drop=True)


def _on(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    return rows.merge(images[IMAGE], on=IMAGE)


def outcomes(study: Study, detector: str, cohort: Cohort) -> pd.DataFrame:
    """One row per picture: what its frames at the mining threshold find.

    Returns
    -------
    The cohort's pictures with the columns ``frames``, ``best_score`` (of a frame that finds an expert's lesion, NaN
    for none), ``expert_lesions`` and ``outcome``: ``located`` (a frame finds an expert's lesion), ``other_lesion``
    (none does, but one finds another true lesion), ``incorrect`` (frames, and none finds a true lesion) or
    ``no_frame``.
    """
    images, frames = cohort.of(study.pictures), study.frames(detector, cohort)
    expert, true = framed(cohort.of(study.expert_lesions)), framed(cohort.of(study.true_lesions))
    expert, true = _on(expert, images), _on(true, images)
    judged = judge(frames, expert, true, images, hit_rule(study))
    marked = frames.assign(hit=judged.hit, other=judged.ignored, hit_score=frames["score"].where(judged.hit))
    per_image = marked.groupby(IMAGE).agg(
        frames=("score", "size"), hit=("hit", "any"), other=("other", "any"), best_score=("hit_score", "max")
    )
    out = images.join(per_image, on=IMAGE).join(expert.groupby(IMAGE).size().rename("expert_lesions"), on=IMAGE)
    out[["frames", "expert_lesions"]] = out[["frames", "expert_lesions"]].fillna(0).astype(int)
    hit, other = out["hit"].eq(True), out["other"].eq(True)
    out["outcome"] = np.select([hit, other, out["frames"] > 0], OUTCOMES[:3], OUTCOMES[3])
    return out.drop(columns=["hit", "other"])


def at_mining_threshold(study: Study, detector: str, cohort: Cohort) -> dict[str, Any]:
    """Return the paper's located and incorrect rates, and how often negative images get a frame."""
    table = outcomes(study, detector, cohort)
    patients = Resamples.draw(table["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    with_lesion = table[table["expert_lesions"] > 0]
    negative = table[table["directory_label"] == "negative"]
    folds = sorted(set(table["fold"].dropna().astype(int)))
    return {
        "thresholds": [
            {"fold": fold, "threshold": study.mining_thresholds[detector, fold]}
            for fold in folds
            if (detector, fold) in study.mining_thresholds
        ],
        **{
            outcome: patients.rate(with_lesion["patient_key"], with_lesion["outcome"] == outcome)
            for outcome in OUTCOMES
        },
        "negative_with_frame": patients.rate(negative["patient_key"], negative["frames"] > 0),
        "frames_per_image": patients.rate(table["patient_key"], table["frames"]),
        "frames_per_negative_image": patients.rate(negative["patient_key"], negative["frames"]),
    }


def found(study: Study, detector: str, cohort: Cohort) -> list[dict[str, Any]]:
    """Share of true lesions that a frame at the mining threshold finds: of each pathology by type and known density."""
    images = cohort.of(study.pictures)
    lesions = framed(cohort.of(study.true_lesions)).merge(images[[*IMAGE, "patient_key", "density"]], on=IMAGE)
    judged = judge(study.frames(detector, cohort), lesions, lesions.iloc[:0], images, hit_rule(study))
    lesions = lesions.assign(found=np.isfinite(judged.lesion_score))
    patients = Resamples.draw(images["patient_key"], study.settings["report"]["bootstrap"], study.settings["seed"])
    return [
        {
            "pathology": pathology,
            "group": group,
            "value": value,
            "sensitivity": patients.rate(rows["patient_key"], rows["found"]),
        }
        for group in ("lesion_type", "density")
        for (pathology, value), rows in lesions.groupby(["pathology", group])
    ]
