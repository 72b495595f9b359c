"""YOLO text files: one a picture, lines of ``class center_x center_y width height``, relative to the image (0..1)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammoflow.boxes import from_yolo
from mammoflow.errors import AnnotationError
from mammoflow.labels.frames import Frame, files_below, framed, numbers, read_text
from mammoflow.labels.pictures import Picture, Pictures

CLASS_LIST = "classes.txt"  # written beside the labels by labelling tools


def read(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[Frame]:
    """Frames of a directory of YOLO files.

    Parameters
    ----------
    root : the data set's root.
    entry : `path` (directory below the root) and `classes` (names in the order of their numbers).

    Raises
    ------
    AnnotationError
        A line, class number or box is wrong, a file has no image, or `classes` contradicts the directory's classes.txt.
    """
    classes = entry["classes"]
    _check_class_list(root, entry["path"], classes)
    for file, shown, name in files_below(root, entry["path"], ".txt"):
        if file.name == CLASS_LIST:
            continue
        picture = pictures.named(name, shown)
        if picture is not None:
            yield from _frames(read_text(file, shown), shown, classes, picture)


def _frames(text: str, shown: str, classes: list[str], picture: Picture) -> Iterator[Frame]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            where = f"{shown} line {number}"
            name, relative = _parse(line.split(), where, classes)
            box = from_yolo(relative, picture.width, picture.height)[0]
            yield framed(picture, name, [float(edge) for edge in box], "yolo", where)


def _parse(fields: list[str], where: str, classes: list[str]) -> tuple[str, list[float]]:
    if len(fields) != 5:
        raise AnnotationError(
            f"{where}: {len(fields)} values, expected 5 (class center_x center_y width height); "
            "export boxes, not polygons or predictions with confidence"
        )
    if not fields[0].isdecimal() or int(fields[0]) >= len(classes):
        raise AnnotationError(
            f"{where}: class number `{fields[0]}`, expected 0 to {len(classes) - 1} ({', '.join(classes)}); "
            "mend the line, or `classes` of this entry in the config"
        )
    return classes[int(fields[0])], numbers(fields[1:], where)


def _check_class_list(root: Path, path: str, classes: list[str]) -> None:
    file = root / path / CLASS_LIST
    if not file.is_file():
        return
    shown = f"{path}/{CLASS_LIST}"
    written = [line.strip().lower() for line in read_text(file, shown).splitlines() if line.strip()]
    if written != [name.lower() for name in classes]:
        raise AnnotationError(
            f"{shown}: {len(written)} classes ({', '.join(written)}), expected the {len(classes)} of the config "
            f"({', '.join(classes)}) in this order; mend `classes` of this entry in the config"
        )
