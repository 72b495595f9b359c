"""Shortcut audit: how well malignant and benign crops are told apart without looking at their tissue.

A logistic regression on box size, position, aspect, the detector's score, mean grey and machine, in the study's own
folds, taught by the crops that teach the classifiers. A crop classifier that isn't better than this may have learnt how
the crops were gathered, not what they show.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mammoflow.report.study import IMAGE, Study
from mammoflow.tables import EXTERNAL_FOLD

NUMBERS = ["log_area", "log_aspect", "relative_x", "relative_y", "score", "mean_grey"]
FEATURES = [*NUMBERS, "machine"]
NOT_NESTED: Mapping[int, pd.DataFrame] = {}


def features(study: Study, crops: pd.DataFrame) -> pd.DataFrame:
    """CROPS rows with the baseline's features.

    Returns
    -------
    Added columns: ``log_area`` and ``log_aspect`` (width over height) of the frame in pixels, natural logarithm;
    ``relative_x`` (0 at the picture's left edge; right breasts are mirrored) and ``relative_y``, 0..1; ``mean_grey`` of
    the crop's picture, 0..255; ``machine``.
    """
    known = study.pictures[[*IMAGE, "width", "height", "image_laterality", "machine"]]
    crops = crops.merge(known, on=IMAGE)
    width, height = (crops["x2"] - crops["x1"]).clip(lower=1), (crops["y2"] - crops["y1"]).clip(lower=1)
    x = (crops["x1"] + crops["x2"]) / 2 / crops["width"]
    return crops.assign(
        log_area=np.log(width * height),
        log_aspect=np.log(width / height),
        relative_x=x.where(crops["image_laterality"] != "R", 1 - x),
        relative_y=(crops["y1"] + crops["y2"]) / 2 / crops["height"],
        mean_grey=[mean_grey(path) for path in crops["png"]],
    )


def mean_grey(path: str | Path) -> float:
    """Mean of a picture's pixels, 0..255; NaN when there is no such file."""
    if not Path(path).is_file():
        return float("nan")
    with Image.open(path) as picture:
        return float(np.asarray(picture.convert("L")).mean())


def baseline() -> Pipeline:
    """Logistic regression, balanced by class, on standardised numbers (gaps filled and marked) and one-hot machine."""
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    machines = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(
        ColumnTransformer([("numbers", numbers, NUMBERS), ("machine", machines, ["machine"])]),
        LogisticRegression(max_iter=2000, class_weight="balanced"),
    )


def probabilities(crops: pd.DataFrame, nested: Mapping[int, pd.DataFrame] = NOT_NESTED) -> pd.Series:
    """Judge each row of `features`: internal crops out of fold, external ones by a model of all internal ones.

    Parameters
    ----------
    crops : rows to judge.
    nested : rows that teach the model of a fold in place of those of `crops`; none of them is of that fold.

    Returns
    -------
    float64 series, index of `crops`, probability of malignant; NaN where the other folds hold one class only.
    """
    internal = crops["fold"] != EXTERNAL_FOLD
    result = pd.Series(np.nan, index=crops.index)
    for fold in sorted(set(crops["fold"])):
        judged = crops["fold"] == fold
        learnt = nested.get(fold, crops[internal & ~judged])
        malignant = learnt["label"] == "malignant"
        if malignant.nunique() == 2:
            model = baseline().fit(learnt[FEATURES], malignant)
            result[judged] = model.predict_proba(crops.loc[judged, FEATURES])[:, 1]
    return result
