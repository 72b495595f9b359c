"""A study's tables in memory, and the groups of data sets that are evaluated together."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from mammoflow import tables

IMAGE = ["dataset", "image_id"]
EDGES = ["x1", "y1", "x2", "y2"]

SCHEMAS = {
    "indices": tables.INDEX,
    "patients": tables.PATIENTS,
    "lesions": tables.LESIONS,
    "truths": tables.LESIONS,
    "densities": tables.DENSITIES,
    "images": tables.IMAGES,
    "detections": tables.DETECTIONS,
    "thresholds": tables.THRESHOLDS,
    "curves": tables.CURVE,
    "screened": tables.SCREENED,
    "crops": tables.CROPS,
    "predictions": tables.PREDICTIONS,
    "judged_frames": tables.FRAMES,
    "detection_maps": tables.RELEVANCE,
    "crop_maps": tables.RELEVANCE,
    "faithfulness": tables.FAITHFULNESS,
    "anatomy": tables.ANATOMY,
    "duplicates": tables.DUPLICATES,
}

NESTED = "nested"  # and the number of a fold: the crops that its classifier learned from, where they are nested

# Settings that name places of the user's file system: no report shows them and no digest depends on them.
_PLACES = {"root", "roots", "path", "paths", "study", "secret_file", "map"}


@dataclass(frozen=True)
class Cohort:
    """Data sets that are evaluated together: all internal ones out of fold, or one external one by the ensemble."""

    name: str
    role: str
    datasets: tuple[str, ...]

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of the cohort's data sets."""
        return table[table["dataset"].isin(self.datasets)].reset_index(drop=True)


@dataclass(frozen=True)
class Study:
    """Settings (as `mammoflow.config.check_config` returns them) and tables (schemas in `mammoflow.tables`).

    `nested` holds the CROPS tables that taught the classifier of each fold, where that are others than `crops`.
    """

    settings: dict[str, Any]
    indices: pd.DataFrame
    patients: pd.DataFrame
    lesions: pd.DataFrame
    truths: pd.DataFrame
    densities: pd.DataFrame
    duplicates: pd.DataFrame
    images: pd.DataFrame
    detections: pd.DataFrame
    thresholds: pd.DataFrame
    curves: pd.DataFrame
    screened: pd.DataFrame
    crops: pd.DataFrame
    predictions: pd.DataFrame
    judged_frames: pd.DataFrame
    detection_maps: pd.DataFrame
    crop_maps: pd.DataFrame
    faithfulness: pd.DataFrame
    anatomy: pd.DataFrame
    nested: dict[int, pd.DataFrame] = field(default_factory=dict)

    @property
    def cohorts(self) -> list[Cohort]:
        """The internal data sets as one cohort, then each external one."""
        names: dict[str, list[str]] = {"internal": [], "external": []}
        for dataset in self.settings["datasets"]:
            names[dataset["role"]].append(dataset["name"])
        internal = (
            [Cohort("+".join(names["internal"]), "internal", tuple(names["internal"]))] if names["internal"] else []
        )
        return internal + [Cohort(name, "external", (name,)) for name in names["external"]]

    @property
    def internal(self) -> tuple[str, ...]:
        """Names of the data sets that models learn from."""
        return tuple(dataset["name"] for dataset in self.settings["datasets"] if dataset["role"] == "internal")

    @cached_property
    def pictures(self) -> pd.DataFrame:
        """Images with a picture: IMAGES, with what other tables say of them (machine, view, density, fold ...)."""
        index_columns = ["directory_label", "image_laterality", "view_position", "machine", "imager_pixel_spacing"]
        known = self.images[self.images["status"] == "ok"]
        usable = self.indices[self.indices["status"] == "ok"].drop_duplicates(IMAGE)
        with_index = known.merge(usable[[*IMAGE, *index_columns]], on=IMAGE, how="left")
        patients = self.patients[["dataset", "patient_key", "label", "annotated", "fold"]]
        merged = with_index.merge(patients, on=["dataset", "patient_key"], how="left")
        merged = merged.merge(self.densities, on=IMAGE, how="left")
        merged["machine"] = merged["machine"].fillna("unknown")
        return merged

    @cached_property
    def expert_lesions(self) -> pd.DataFrame:
        """Lesions that a detector may learn from, those without a frame included."""
        return self.lesions[(self.lesions["finding"] == "lesion") & self.lesions["expert"]].reset_index(drop=True)

    @cached_property
    def true_lesions(self) -> pd.DataFrame:
        """Every lesion of the truth tables, those without a frame included."""
        return self.truths[self.truths["finding"] == "lesion"].reset_index(drop=True)

    @cached_property
    def mining_thresholds(self) -> dict[tuple[str, int], float]:
        """(detector, fold of the patient) -> lowest score of a mined frame."""
        rows = self.thresholds[["detector", "fold", "threshold"]].itertuples(index=False)
        return {(str(detector), int(fold)): float(threshold) for detector, fold, threshold in rows}

    def lesion_detections(self, detector: str, cohort: Cohort) -> pd.DataFrame:
        """Return a detector's held-out lesion frames on the cohort's pictures, highest score first."""
        return self._detections(detector, cohort, "lesion")

    def nipple_detections(self, detector: str, cohort: Cohort) -> pd.DataFrame:
        """Return a detector's held-out nipple frames on the cohort's pictures, highest score first."""
        return self._detections(detector, cohort, "nipple")

    def _detections(self, detector: str, cohort: Cohort, finding: str) -> pd.DataFrame:
        rows = cohort.of(self.detections)
        rows = rows[(rows["detector"] == detector) & (rows["finding"] == finding) & rows["held_out"]]
        rows = rows.merge(self.pictures[[*IMAGE, "fold"]], on=IMAGE)
        return rows.sort_values(["score", "detection_id"], ascending=[False, True], ignore_index=True)

    def frames(self, detector: str, cohort: Cohort) -> pd.DataFrame:
        """Lesion detections at or above the mining threshold of the patient's fold."""
        rows = self.lesion_detections(detector, cohort)
        lowest = [self.mining_thresholds.get((detector, int(fold)), float("inf")) for fold in rows["fold"]]
        return rows[rows["score"] >= lowest].reset_index(drop=True)


def framed(lesions: pd.DataFrame) -> pd.DataFrame:
    """Rows that have a frame."""
    return lesions[lesions[EDGES].notna().all(axis=1)].reset_index(drop=True)


def each(table: pd.DataFrame) -> Iterator[Any]:
    """Give the rows of a table one by one, columns as attributes."""
    yield from table.itertuples()


def load(settings: dict[str, Any], paths: Mapping[str, str | Iterable[str]]) -> Study:
    """Read every table of a study.

    Parameters
    ----------
    settings : the study's settings, as `mammoflow.config.check_config` returns them.
    paths : table name (as in STUDY_TABLES of workflow/rules/report.smk) -> its file or files; other names are ignored,
        and nested crops may be missing.

    Raises
    ------
    DataError
        A table is missing or doesn't fit its schema.
    """
    whole = {name: tables.read_all(schema, _as_list(paths[name])) for name, schema in SCHEMAS.items()}
    nested = {
        fold: tables.read_all(tables.CROPS, _as_list(paths[f"{NESTED}{fold}"]))
        for fold in range(settings["labels"]["folds"])
        if f"{NESTED}{fold}" in paths
    }
    return Study(settings, **whole, nested=nested)


def _as_list(paths: str | Iterable[str]) -> list[str]:
    return [paths] if isinstance(paths, str) else [str(path) for path in paths]


def public_settings(value: Any) -> Any:
    """Return settings without what names a place of the user's file system."""
    if isinstance(value, dict):
        return {key: public_settings(item) for key, item in value.items() if key not in _PLACES}
    if isinstance(value, list):
        return [public_settings(item) for item in value]
    return value
