"""Pixel masks of lesions and pectoral muscle: truth that the evaluation alone may see."""

import csv
from pathlib import Path

import pandas as pd

from mammoflow import tables
from mammoflow.errors import AnnotationError, DataError
from mammoflow.labels.frames import numbers, read_text
from mammoflow.labels.pictures import Pictures
from mammoflow.masks import from_runs

COLUMNS = ["path", "region", "x1", "y1", "x2", "y2", "runs"]


def read_masks(
    name: str, root: str | Path, masks: str | None, index: pd.DataFrame, sources: pd.DataFrame
) -> pd.DataFrame:
    """Read a data set's masks.

    Parameters
    ----------
    name : the data set's name.
    root : its root directory.
    masks : tab-separated file below the root with the columns of `COLUMNS`, or None for a data set without masks.
    index, sources : its INDEX and SOURCES tables.

    Returns
    -------
    MASKS table in the order of the file, without masks of excluded images.

    Raises
    ------
    AnnotationError
        The file can't be read, names no image of the data set, or a mask doesn't fill its box or leaves the image.
    """
    if masks is None:
        return tables.empty(tables.MASKS)
    pictures = Pictures(index, sources)
    rows = []
    reader = csv.DictReader(read_text(Path(root) / masks, masks).splitlines(), delimiter="\t", restval="")
    if reader.fieldnames != COLUMNS:
        raise AnnotationError(f"{masks}: columns are {reader.fieldnames}, expected {', '.join(COLUMNS)}; make it again")
    for number, row in enumerate(reader, start=2):
        where = f"{masks} line {number}"
        picture = pictures.at_path(row["path"], where)
        if picture is None:
            continue
        x1, y1, x2, y2 = (int(value) for value in numbers([row[edge] for edge in COLUMNS[2:6]], where))
        if not (0 <= x1 < x2 <= picture.width and 0 <= y1 < y2 <= picture.height):
            raise AnnotationError(
                f"{where}: box {x1}, {y1}, {x2}, {y2} isn't inside its image of {picture.width} x {picture.height} "
                "pixels; mend the line"
            )
        try:
            from_runs(row["runs"], y2 - y1, x2 - x1)
        except DataError as error:
            raise AnnotationError(f"{where}: {error}; mend the line") from None
        edges = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        rows.append(
            {"dataset": name, "image_id": picture.image_id, "region": row["region"], **edges, "runs": row["runs"]}
        )
    return tables.from_rows(tables.MASKS, rows)
