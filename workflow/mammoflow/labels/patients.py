"""Who is in the study: roles, folds that only ever append, and shards."""

import hashlib
import logging
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.errors import ConfigError, DataError, LeakageError
from mammoflow.tables import EXTERNAL_FOLD

log = logging.getLogger("mammoflow")

Stratum = tuple[bool, str]  # annotated, label


def read_previous(path: str | Path) -> pd.DataFrame:
    """PATIENTS table of the run before, empty when there was none."""
    return tables.read(tables.PATIENTS, path) if Path(path).exists() else tables.empty(tables.PATIENTS)


def update_patients(
    datasets: list[dict[str, Any]],
    index: pd.DataFrame,
    lesions: pd.DataFrame,
    folds: int,
    seed: int,
    previous: pd.DataFrame,
) -> pd.DataFrame:
    """Patients of all data sets with fold and shard; who had a fold before keeps it.

    New patients come in the order of a salted hash, each into the fold that has the fewest patients of the same stratum
    (annotated or not, label). Folds are assigned anew only when `folds` isn't their number any more.

    Parameters
    ----------
    datasets : entries with `name`, `role` and `shards` (`annotated`, `other`).
    index, lesions : INDEX and LESIONS rows of all data sets.
    folds : number of folds.
    seed : salt of the order.
    previous : PATIENTS table of the run before, possibly empty.

    Returns
    -------
    PATIENTS table of all patients with a usable image, by data set and patient key.

    Raises
    ------
    LeakageError
        A patient is in an internal and in an external data set.
    ConfigError
        Fewer annotated patients than folds, or no shard for a group of patients.
    DataError
        No annotated lesion, no negative patient, an image without patient, or a fold without annotated patients.
    """
    patients = _patients(datasets, index, lesions)
    _check_roles(patients)
    internal = patients[patients["role"] == "internal"]
    _check_enough(internal, folds)
    assigned = _assign(_strata(internal), _kept(previous, folds), folds, seed)
    patients["fold"] = [
        EXTERNAL_FOLD if role == "external" else assigned[key]
        for role, key in zip(patients["role"], patients["patient_key"], strict=True)
    ]
    _check_folds(patients, folds)
    counts = {dataset["name"]: dataset["shards"] for dataset in datasets}
    patients["shard"] = [
        _shard(
            row["dataset"], counts[row["dataset"]], row["role"] == "internal" and row["annotated"], row["patient_key"]
        )
        for row in patients.to_dict("records")
    ]
    _tell(patients, previous)
    return patients[list(tables.PATIENTS.columns)]


def _patients(datasets: list[dict[str, Any]], index: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """One row a data set and patient with usable images: role, label, annotated."""
    usable = index[index["status"] == "ok"]
    nameless = usable[usable["patient_key"] == ""]
    if len(nameless):
        raise DataError(
            f"{len(nameless)} usable images of data set `{nameless['dataset'].iloc[0]}` have no patient; expected one "
            "each, since folds keep patients together: set `patient_rule` or `patient_from` of the data set"
        )
    framed = lesions[lesions["expert"] & (lesions["finding"] == "lesion")]
    framed_images = set(zip(framed["dataset"], framed["image_id"], strict=True))
    images = pd.DataFrame(
        {
            "dataset": usable["dataset"],
            "patient_key": usable["patient_key"],
            "label": usable["directory_label"],
            "annotated": [key in framed_images for key in zip(usable["dataset"], usable["image_id"], strict=True)],
        }
    )
    patients = images.groupby(["dataset", "patient_key"], sort=True, as_index=False).agg(
        {"label": _worst_label, "annotated": "any"}
    )
    roles = {dataset["name"]: dataset["role"] for dataset in datasets}
    order = {dataset["name"]: number for number, dataset in enumerate(datasets)}
    patients["role"] = patients["dataset"].map(roles)
    return patients.sort_values("dataset", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _worst_label(labels: Iterable[str]) -> str:
    """Positive when one is, else negative when one is, else unknown."""
    found = set(labels)
    return next((label for label in ("positive", "negative") if label in found), "unknown")


def _check_roles(patients: pd.DataFrame) -> None:
    roles = patients.groupby("patient_key")["role"].nunique()
    mixed = patients[patients["patient_key"].isin(roles[roles > 1].index)]
    if len(mixed):
        key = mixed["patient_key"].iloc[0]
        names = sorted(mixed.loc[mixed["patient_key"] == key, "dataset"])
        raise LeakageError(
            f"{mixed['patient_key'].nunique()} patients are in an internal and in an external data set, first {key} "
            f"({', '.join(names)}); expected external patients that no model was trained on: remove them from one of "
            "the data sets, or give both the same `role` in the config"
        )


def _check_enough(internal: pd.DataFrame, folds: int) -> None:
    annotated = internal.loc[internal["annotated"], "patient_key"].nunique()
    if annotated == 0:
        raise DataError(
            "no patient of the internal data sets has a lesion annotated that the detector may learn from (empty class "
            "`lesion`); check `annotations` of the data sets and labels.expert_classes in the config"
        )
    if annotated < folds:
        raise ConfigError(
            f"labels.folds is {folds}, but only {annotated} patients have annotated lesions; expected at least one a "
            "fold: lower labels.folds or annotate more patients"
        )
    if not (internal["label"] == "negative").any():
        raise DataError(
            "no patient of the internal data sets is negative (empty class `negative`): none has images in a negative "
            "directory only; check `directories` of the data sets in the config"
        )


def _strata(internal: pd.DataFrame) -> dict[str, Stratum]:
    """Stratum of each internal patient, over all data sets."""
    merged = internal.groupby("patient_key", sort=True).agg({"annotated": "any", "label": _worst_label})
    return {str(key): (bool(row["annotated"]), str(row["label"])) for key, row in merged.iterrows()}


def _kept(previous: pd.DataFrame, folds: int) -> dict[str, int]:
    """Folds of the run before; none when the number of folds has changed."""
    internal = previous[previous["fold"] != EXTERNAL_FOLD]
    if len(internal) and int(internal["fold"].max()) != folds - 1:
        log.warning("labels.folds is now %d: all patients get new folds and all models are trained again", folds)
        return {}
    return {str(key): int(fold) for key, fold in zip(internal["patient_key"], internal["fold"], strict=True)}


def _assign(strata: dict[str, Stratum], kept: dict[str, int], folds: int, seed: int) -> dict[str, int]:
    assigned = {key: kept[key] for key in strata if key in kept}
    sizes = Counter((strata[key], fold) for key, fold in assigned.items())
    for key in sorted(strata.keys() - assigned.keys(), key=lambda key: _salted(seed, key)):
        stratum = strata[key]
        fold = min(range(folds), key=lambda fold: (sizes[stratum, fold], _salted(seed, key, fold)))
        assigned[key] = fold
        sizes[stratum, fold] += 1
    return assigned


def _salted(*parts: object) -> bytes:
    """Stable hash that decides an order nobody chose."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()


def _check_folds(patients: pd.DataFrame, folds: int) -> None:
    """Patients leave and labels change after folds were given: a fold may run out of annotated patients."""
    full = set(patients.loc[patients["annotated"], "fold"])
    bare = [fold for fold in range(folds) if fold not in full]
    if bare:
        raise DataError(
            f"fold {bare[0]} has no patient with annotated lesions left; expected at least one in each of {folds} "
            "folds: remove results/labels/patients.tsv to assign all folds anew, or lower labels.folds"
        )


def _shard(dataset: str, counts: dict[str, int], annotated: bool, patient_key: str) -> str:
    group = "annotated" if annotated else "other"
    if counts[group] < 1:
        raise ConfigError(
            f"shards.{group} of data set `{dataset}` is {counts[group]}, but it has such patients; expected at least 1"
        )
    return f"{group}-{zlib.crc32(patient_key.encode()) % counts[group]:03d}"


def _tell(patients: pd.DataFrame, previous: pd.DataFrame) -> None:
    known = set(previous["patient_key"])
    internal = patients[patients["role"] == "internal"]
    new = sum(key not in known for key in patients["patient_key"])
    log.info("%d patients (%d new), %d of them internal", len(patients), new, len(internal))
    for fold, members in internal.groupby("fold"):
        log.info("fold %d: %d patients, %d of them annotated", fold, len(members), members["annotated"].sum())
    bare = ((internal["label"] == "positive") & ~internal["annotated"]).sum()
    if bare:
        log.warning("%d positive patients have no annotated lesion: no detector learns from them", bare)
