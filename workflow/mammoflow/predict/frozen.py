"""Images of strangers, of whom no model knows, through index and conversion, in tables of their own."""

from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.images.converting import convert_shard
from mammoflow.index.scan import scan
from mammoflow.tables import EXTERNAL_FOLD

SHARD = "other-000"


def index_images(dataset: dict[str, Any], settings: dict[str, Any], work: Path) -> pd.DataFrame:
    """Write ``index.tsv`` and the private ``sources.tsv`` of a directory of images to `work`; return the index.

    However many files can't be used, those that can are taken.

    Parameters
    ----------
    dataset : `name`, `source`, `root`, `directories` and, where there are such, `patient_rule` and `patient_from`.
    settings : the whole config.

    Raises
    ------
    DataError
        No file can be used.
    """
    scan(
        dataset=dataset,
        secret_file=settings["deidentify"]["secret_file"],
        seed=settings["seed"],
        settings=settings["index"] | {"max_excluded": 1.0},
        table=work / "index.tsv",
        sources=work / "sources.tsv",
    )
    return tables.read(tables.INDEX, work / "index.tsv")


def enrol(index: pd.DataFrame, labels: dict[str, str], work: Path) -> None:
    """Write ``patients.tsv``: everybody external, of the label given (unknown when none is), in one shard."""
    usable = index[index["status"] == "ok"].drop_duplicates("patient_key")
    rows = [
        {
            "dataset": dataset,
            "patient_key": patient,
            "role": "external",
            "label": labels.get(patient, "unknown"),
            "annotated": False,
            "fold": EXTERNAL_FOLD,
            "shard": SHARD,
        }
        for dataset, patient in zip(usable["dataset"], usable["patient_key"], strict=True)
    ]
    tables.write(tables.PATIENTS, tables.from_rows(tables.PATIENTS, rows), work / "patients.tsv")


def convert_images(dataset: dict[str, Any], settings: dict[str, Any], threads: int, work: Path) -> pd.DataFrame:
    """Write ``images.tsv`` and the pictures ``images/`` of what `index_images` and `enrol` wrote; return the table."""
    convert_shard(
        dataset=dataset,
        shard=SHARD,
        settings={**settings["images"], "format": "png"},
        index=work / "index.tsv",
        sources=work / "sources.tsv",
        patients=work / "patients.tsv",
        table=work / "images.tsv",
        pictures=work / "images",
        mask_labels=settings["deidentify"]["mask_labels"],
        workers=threads,
    )
    return tables.read(tables.IMAGES, work / "images.tsv")
