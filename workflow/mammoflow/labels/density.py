"""Density of the breast in an image, where the truth states it: the evaluation groups by it, nothing learns from it."""

from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.labels.formats import mias, table
from mammoflow.labels.pictures import Pictures

READERS = {"mias": mias.read_densities, "table": table.read_densities}


def read_densities(
    name: str, root: str | Path, truth: dict[str, Any] | None, index: pd.DataFrame, sources: pd.DataFrame
) -> pd.DataFrame:
    """Density table of a data set; without rows where its truth says nothing of density.

    Parameters
    ----------
    name, root, index, sources : of the data set, as of `mammoflow.labels.readers.read_truth`.
    truth : its truth's `format` and `path`.

    Returns
    -------
    DENSITIES table, one row an image.

    Raises
    ------
    AnnotationError
        The file can't be read or names an unknown density.
    """
    if truth is None or truth["format"] not in READERS:
        return tables.empty(tables.DENSITIES)
    pictures = Pictures(index, sources, partial=True)
    found = {picture.image_id: density for picture, density in READERS[truth["format"]](Path(root), truth, pictures)}
    rows = [{"dataset": name, "image_id": image_id, "density": density} for image_id, density in found.items()]
    return tables.from_rows(tables.DENSITIES, rows)
