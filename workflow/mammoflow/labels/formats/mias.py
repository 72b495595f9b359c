"""Mini-MIAS `Info.txt`: film, tissue, abnormality class, severity, circle.

Suckling et al. (1994), The Mammographic Image Analysis Society digital mammogram database; the data base's README.
Films have 1024 x 1024 pixels; a circle's centre counts from the bottom left corner; films 2n-1 and 2n are one patient.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow.boxes import clip
from mammoflow.errors import AnnotationError, LeakageError
from mammoflow.labels.frames import Box, Frame, numbers, read_text
from mammoflow.labels.pictures import Picture, Pictures

SIDE = 1024  # pixels
LESION_TYPES = {
    "CALC": "calcifications",
    "CIRC": "mass_circumscribed",
    "SPIC": "mass_spiculated",
    "MISC": "mass_ill_defined",
    "ARCH": "architectural_distortion",
    "ASYM": "asymmetry",
}
NORMAL = "NORM"
TISSUES = {"F": "fatty", "G": "fatty_glandular", "D": "dense_glandular"}
SEVERITIES = {"B": "benign", "M": "malignant"}
# The published centres of these films' calcifications lie in air (known errors of Info.txt).
CENTERS_OUTSIDE_BREAST = {"mdb212", "mdb214"}
FILM = re.compile(r"mdb(\d{3})")


def read(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[Frame]:
    """Frames of all abnormalities of an Info.txt, of every class and severity.

    Parameters
    ----------
    root : the data set's root.
    entry : `path` (file below the root). Lines outside the list (the prose of the data base's README) are skipped.

    Yields
    ------
    Frames; one without coordinates has no box and the flag ``no_coordinates``, one whose published centre is known to
    be wrong has the flag ``center_outside_breast``.

    Raises
    ------
    AnnotationError
        A line of the list is wrong, or its film isn't in the data set or not of 1024 x 1024 pixels.
    LeakageError
        Two films of a pair don't belong to one patient in the index.
    """
    check_pairs(pictures)
    for where, fields in _listed(root, entry["path"]):
        _check_fields(fields, where)
        if fields[2] != NORMAL:
            picture = pictures.named(fields[0], where)
            if picture is not None:
                yield _frame(fields, picture, where)


def read_densities(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[tuple[Picture, str]]:
    """Character of the background tissue of each listed film: fatty, fatty-glandular or dense-glandular."""
    for where, fields in _listed(root, entry["path"]):
        if fields[1] not in TISSUES:
            raise AnnotationError(f"{where}: tissue `{fields[1]}`, expected one of {', '.join(TISSUES)}; mend the line")
        picture = pictures.named(fields[0], where)
        if picture is not None:
            yield picture, TISSUES[fields[1]]


def _listed(root: Path, shown: str) -> list[tuple[str, list[str]]]:
    """Where it stands, and fields, of each line of the list."""
    lines = read_text(root / shown, shown).splitlines()
    listed = [(f"{shown} line {n}", line.split()) for n, line in enumerate(lines, start=1) if _is_listed(line.split())]
    if not listed:
        raise AnnotationError(f"{shown}: no line such as `mdb005 F CIRC B 477 133 30`, expected mini-MIAS' Info.txt")
    return listed


def check_pairs(pictures: Pictures) -> None:
    """Check that films 2n-1 and 2n carry the patient key of one patient, whom no other pair shares.

    Raises
    ------
    LeakageError
        They don't: the folds would be mixed.
    """
    rows = [
        ((int(film[1]) + 1) // 2, picture.patient_key)
        for picture in pictures
        if picture.usable and (film := FILM.search(picture.path.rsplit("/", 1)[-1]))
    ]
    pairs = pd.DataFrame(rows, columns=["pair", "patient_key"]).drop_duplicates()
    for column in ("pair", "patient_key"):
        mixed = pairs[pairs[column].duplicated(keep=False)]
        if len(mixed):
            pair = int(mixed["pair"].iloc[0])
            raise LeakageError(
                f"films mdb{2 * pair - 1:03d} and mdb{2 * pair:03d} must be one patient of their own, but the "
                f"index has {len(pairs['pair'].unique())} pairs and {len(pairs['patient_key'].unique())} patients; "
                "set `patient_rule: mias_pairs` for this data set in the config"
            )


def _is_listed(fields: list[str]) -> bool:
    """Whether a line belongs to the list: a film's name, or a class where the list has it."""
    return len(fields) >= 3 and (FILM.fullmatch(fields[0]) is not None or fields[2] in {*LESION_TYPES, NORMAL})


def _check_fields(fields: list[str], where: str) -> None:
    if not FILM.fullmatch(fields[0]):
        raise AnnotationError(f"{where}: film `{fields[0]}`, expected a name such as mdb005; mend the line")
    if fields[2] == NORMAL:
        return
    if fields[2] not in LESION_TYPES:
        raise AnnotationError(
            f"{where}: class `{fields[2]}`, expected {', '.join(LESION_TYPES)} or NORM; mend the line"
        )
    if len(fields) < 4 or fields[3] not in SEVERITIES:
        found = fields[3] if len(fields) > 3 else ""
        raise AnnotationError(f"{where}: severity `{found}`, expected B or M; mend the line")


def _frame(fields: list[str], picture: Picture, where: str) -> Frame:
    film, _, kind, severity, *circle = fields
    box, flag = None, "no_coordinates"
    # "*NOTE 3*" stands where the data base's README explains why there is no circle.
    if circle and not circle[0].startswith("*"):
        box, flag = _box(circle, picture, where), ""
        if film in CENTERS_OUTSIDE_BREAST:
            flag = "center_outside_breast"
    return Frame(picture, "lesion", SEVERITIES[severity], LESION_TYPES[kind], box, "mias", where, flag)


def _box(circle: list[str], picture: Picture, where: str) -> Box:
    if (picture.width, picture.height) != (SIDE, SIDE):
        raise AnnotationError(
            f"{where}: its film has {picture.width} x {picture.height} pixels, but Info.txt counts in {SIDE} x {SIDE}; "
            "use the mini-MIAS films at their own size"
        )
    if len(circle) != 3:
        raise AnnotationError(
            f"{where}: circle `{' '.join(circle)}`, expected 3 numbers: x, y and radius; mend the line"
        )
    x, y_from_bottom, radius = numbers(circle, where)
    if not (0 <= x <= SIDE and 0 <= y_from_bottom <= SIDE and 0 < radius <= SIDE):
        raise AnnotationError(
            f"{where}: circle x {x:g}, y {y_from_bottom:g}, radius {radius:g}, expected a centre within 0..{SIDE} "
            "and a radius above 0; mend the line"
        )
    y = SIDE - y_from_bottom
    x1, y1, x2, y2 = clip([x - radius, y - radius, x + radius, y + radius], SIDE, SIDE)[0].tolist()
    return x1, y1, x2, y2
