"""The check that nothing is on both sides of a fold: neither a patient nor the same pixels under two names."""

import pandas as pd

from mammoflow import tables
from mammoflow.errors import DataError, LeakageError


def check(images: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Look for patients and pixel content in more than one fold; external patients count as a fold of their own.

    Parameters
    ----------
    images : IMAGES rows of all shards.
    patients : PATIENTS rows of all data sets.

    Returns
    -------
    DUPLICATES table: images that share their pixels with another one of the same fold, where they do no harm.

    Raises
    ------
    LeakageError
        A patient or the same pixels are in two folds, or in an internal and an external data set.
    DataError
        An image's patient has no fold.
    """
    _check_patients(patients)
    pictures = images[(images["status"] == "ok") & (images["pixel_digest"] != "")]
    placed = pictures.merge(patients[["dataset", "patient_key", "fold"]], on=["dataset", "patient_key"], how="left")
    lost = placed[placed["fold"].isna()]
    if len(lost):
        raise DataError(f"image {lost['image_id'].iloc[0]}: its patient has no fold; run labels_patients again")
    placed["fold"] = placed["fold"].astype("int64")
    repeated = placed[placed["pixel_digest"].duplicated(keep=False)].sort_values(
        ["pixel_digest", "dataset", "image_id"]
    )
    _check_pixels(repeated)
    return repeated[list(tables.DUPLICATES.columns)].reset_index(drop=True)


def _check_patients(patients: pd.DataFrame) -> None:
    folds = patients.groupby("patient_key")["fold"].nunique()
    split = folds[folds > 1].index
    if len(split):
        rows = patients[patients["patient_key"] == split[0]]
        raise LeakageError(
            f"{len(split)} patients are in two folds, first {split[0]} ({_places(rows)}); expected one fold a patient: "
            "remove results/labels/patients.tsv to assign all folds anew"
        )


def _check_pixels(repeated: pd.DataFrame) -> None:
    folds = repeated.groupby("pixel_digest")["fold"].nunique()
    split = folds[folds > 1].index
    if len(split):
        rows = repeated[repeated["pixel_digest"] == split[0]]
        named = "; ".join(
            f"image {r.image_id} of patient {r.patient_key}, {r.dataset} fold {r.fold}" for r in rows.itertuples()
        )
        raise LeakageError(
            f"{len(split)} pictures are in two folds, first pixel content {split[0]} ({named}); expected each picture "
            "in one fold: remove the copies from the raw directories, or, when they are one patient's, give them one "
            "PatientID (results/index/*.sources.tsv has the files)"
        )


def _places(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row.dataset} fold {row.fold}" for row in rows.itertuples())
