"""Detector and classifier together: a verdict on every image, breast and patient.

An image's score is the highest product of the detector's confidence and the classifier's calibrated probability over
its frames; that of a breast or a patient is the highest of its images. Beside it stand the same for the detector's
confidence alone and for the probability alone. A product of both is no probability: how likely a unit is malignant is
read from it by a logistic regression on other folds' units.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from mammoflow.report import reliability
from mammoflow.report.bootstrap import Array, Resamples
from mammoflow.report.cases import Cases, lead, operating_points
from mammoflow.report.study import IMAGE, Cohort, Study

LEVELS = {
    "image": IMAGE,
    "breast": ["dataset", "patient_key", "image_laterality"],
    "patient": ["dataset", "patient_key"],
}
SCORES = ("two_stage", "detector", "classifier")
_LEAST = 1e-6  # score of a unit without a frame, in place of 0


def measure(study: Study, protocol: str, classifier: str, cohort: Cohort) -> dict[str, Any]:
    """Figures of one classifier behind the mined detector, on one cohort, by level."""
    return {
        "protocol": protocol,
        "detector": study.settings["crops"]["detector"],
        "classifier": classifier,
        "cohort": cohort.name,
        "role": cohort.role,
        "levels": [_level(study, protocol, classifier, cohort, level) for level in LEVELS],
    }


def _level(study: Study, protocol: str, classifier: str, cohort: Cohort, level: str) -> dict[str, Any]:
    everything = image_scores(study, protocol, classifier)
    units, left_out = grouped(cohort.of(everything), level)
    internal, _ = grouped(everything[everything["fold"] >= 0], level)
    report = study.settings["report"]["bootstrap"], study.settings["seed"]
    resamples, inside = Resamples.draw(units["patient_key"], *report), Resamples.draw(internal["patient_key"], *report)
    judges = {name: Cases.of(units, name, resamples) for name in SCORES}
    both, aims = judges["two_stage"], ("sensitivity_0.9", "specificity_0.9")
    likely = Cases.of(units.assign(likely=probabilities(units, internal)), "likely", resamples)
    return {
        "level": level,
        "units": len(units),
        "malignant": int(both.labels.sum()),
        "left_out": left_out,
        "roc_auc": both.roc_auc(),
        "pr_auc": both.pr_auc(),
        "detector_roc_auc": judges["detector"].roc_auc(),
        "classifier_roc_auc": judges["classifier"].roc_auc(),
        "gain_over_detector": lead(both, judges["detector"]),
        "operating_points": operating_points(both, Cases.of(internal, "two_stage", inside), aims),
        "calibration": {
            "brier": reliability.brier(likely),
            "expected_error": reliability.expected_error(likely),
            "bins": reliability.bins(likely),
        },
        "decision_curve": reliability.decision_curve(likely),
        "roc_curve": both.curve("roc", "false_positive_rate", "sensitivity"),
        "pr_curve": both.curve("precision_recall", "recall", "precision"),
    }


def probabilities(units: pd.DataFrame, internal: pd.DataFrame) -> Array:
    """Probability that each unit is malignant, from its two-stage score.

    Parameters
    ----------
    units, internal : what `grouped` gave for the units to judge and for all internal ones. Those of a fold are judged
        by a logistic regression on the score's log odds fitted on the other folds' units, external ones by one of all.

    Returns
    -------
    float64 array, (N,), NaN where the units to fit on are of one class.
    """
    likely = np.full(len(units), np.nan)
    for fold in units["fold"].unique():
        others = internal[internal["fold"] != fold]
        if others["label"].nunique() == 2:
            model = LogisticRegression().fit(_log_odds(others), others["label"] == "malignant")
            here = (units["fold"] == fold).to_numpy()
            likely[here] = model.predict_proba(_log_odds(units[here]))[:, 1]
    return likely


def _log_odds(units: pd.DataFrame) -> Array:
    return np.asarray(logit(units[["two_stage"]].to_numpy(dtype=float).clip(_LEAST, 1 - _LEAST)))


def image_scores(study: Study, protocol: str, classifier: str) -> pd.DataFrame:
    """Every picture with its label and scores.

    Returns
    -------
    Rows of `Study.pictures` with ``label`` (malignant, benign or empty when unknown) and, as in the module's head,
    ``two_stage``, ``detector`` and ``classifier``, 0 for a picture without a frame.
    """
    frames = study.judged_frames
    frames = frames[(frames["protocol"] == protocol) & (frames["classifier"] == classifier)]
    frames = frames.assign(two_stage=frames["score"] * frames["calibrated"])
    frames = frames.rename(columns={"score": "detector_score", "calibrated": "classifier_score"})
    best = frames.groupby(IMAGE).agg(
        two_stage=("two_stage", "max"), detector=("detector_score", "max"), classifier=("classifier_score", "max")
    )
    pictures = study.pictures.drop(columns="label").assign(label=labels(study))
    return pictures.join(best, on=IMAGE).fillna(dict.fromkeys(SCORES, 0.0))


def labels(study: Study) -> np.ndarray:
    """Label of each row of `Study.pictures`: what the truth says of the image.

    ``malignant`` with a true malignant lesion on it, framed or not. Without one it is ``benign``, unless that can't be
    known (empty): its directory says unknown, or says positive and the truth shows no malignant lesion of the patient.
    """
    pictures = study.pictures
    lesions = study.true_lesions[study.true_lesions["pathology"] == "malignant"]
    keys = pd.MultiIndex.from_frame(pictures[IMAGE])
    shown = keys.isin(pd.MultiIndex.from_frame(lesions[IMAGE]))
    patients = pd.MultiIndex.from_frame(pictures[["dataset", "patient_key"]])
    explained = patients.isin(patients[shown])
    said = pictures["directory_label"].to_numpy()
    unknown = (said == "unknown") | ((said == "positive") & ~explained)
    return np.select([shown, unknown], ["malignant", ""], "benign")


def grouped(images: pd.DataFrame, level: str) -> tuple[pd.DataFrame, int]:
    """Units of a level with their label and scores.

    A unit is malignant when one of its images is, benign when all of them are; others are left out, and so are images
    of unknown side from the breasts.

    Returns
    -------
    The units, and how many were left out.
    """
    rows = images[images["image_laterality"] != ""] if level == "breast" else images
    units = rows.groupby(LEVELS[level], as_index=False, sort=True).agg(
        label=("label", _together),
        patient_key=("patient_key", "first"),
        fold=("fold", "first"),
        **{name: (name, "max") for name in SCORES},
    )
    known = units[units["label"] != ""].reset_index(drop=True)
    return known, len(units) - len(known)


def _together(of_images: pd.Series) -> str:
    found = set(of_images)
    return "malignant" if "malignant" in found else "" if "" in found else "benign"
