"""A tab-separated table: path, finding, pathology, lesion_type, x1, y1, x2, y2; other columns are left aside."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammoflow.errors import AnnotationError
from mammoflow.labels.frames import Frame, checked_box, numbers, read_text
from mammoflow.labels.pictures import Picture, Pictures
from mammoflow.tables import DENSITY_NAMES, FINDINGS, LESION_TYPES, PATHOLOGIES

ALLOWED = {"finding": FINDINGS, "pathology": PATHOLOGIES, "lesion_type": LESION_TYPES}
EDGES = ("x1", "y1", "x2", "y2")


def read(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[Frame]:
    """Frames of a table; `path` is that of the image's file below the data set's root, boxes are half-open pixels.

    Parameters
    ----------
    root : the data set's root.
    entry : `path` (file below the root).

    Yields
    ------
    Frames; one whose four edges are empty has no box and the flag ``no_coordinates``.

    Raises
    ------
    AnnotationError
        A column is missing, an image unknown, a value or box wrong.
    """
    shown = entry["path"]
    reader = csv.DictReader(read_text(root / shown, shown).splitlines(), delimiter="\t")
    missing = [name for name in ("path", *ALLOWED, *EDGES) if name not in (reader.fieldnames or [])]
    if missing:
        raise AnnotationError(
            f"{shown}: no column `{missing[0]}`, expected path, {', '.join((*ALLOWED, *EDGES))}; add it"
        )
    for row in reader:
        where = f"{shown} line {reader.line_num}"
        _check_row(row, where)
        picture = pictures.at_path(row["path"], where)
        if picture is not None:
            edges = [row[edge] for edge in EDGES]
            box = checked_box(numbers(edges, where), picture, where) if any(edges) else None
            kinds = (row["finding"], row["pathology"], row["lesion_type"])
            yield Frame(picture, *kinds, box, "table", where, "" if box else "no_coordinates")


def read_densities(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[tuple[Picture, str]]:
    """Density of each row's image (ACR: a to d), where the table has a column ``density``; empty ones are skipped."""
    shown = entry["path"]
    reader = csv.DictReader(read_text(root / shown, shown).splitlines(), delimiter="\t")
    for row in reader if "density" in (reader.fieldnames or []) else ():
        where, density = f"{shown} line {reader.line_num}", (row["density"] or "").strip().lower()
        if density and density not in DENSITY_NAMES:
            raise AnnotationError(
                f"{where}: density `{density}`, expected one of {', '.join(DENSITY_NAMES)} or none; mend the line"
            )
        picture = pictures.at_path(row["path"], where)
        if density and picture is not None:
            yield picture, density


def _check_row(row: dict[str, Any], where: str) -> None:
    if None in row or None in row.values():
        raise AnnotationError(f"{where}: not as many values as the header has columns; mend the line")
    for column, allowed in ALLOWED.items():
        if row[column] not in allowed:
            names = ", ".join(name or "(empty)" for name in allowed)
            raise AnnotationError(f"{where}: {column} `{row[column]}`, expected one of {names}; mend the line")
    if (row["pathology"] == "") != (row["finding"] == "nipple"):
        raise AnnotationError(
            f"{where}: {row['finding']} with pathology `{row['pathology']}`, expected one for a lesion and none for a "
            "nipple; mend the line"
        )
