"""One expert's frame, and the checks that every annotation format shares."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammoflow.errors import AnnotationError
from mammoflow.labels.pictures import Picture

Box = tuple[float, float, float, float]

# A frame may stick out of its image by less than this: formats round to integers or to six digits.
ROUNDING_PX = 1.0
# Of an annotation file; a million frames in one COCO file are a quarter of it
MAX_BYTES = 512 << 20


@dataclass(frozen=True)
class Frame:
    """What an expert said of one place of one image.

    Attributes
    ----------
    box : half-open x1, y1, x2, y2, pixels of the stored image; None when the expert gave no place.
    source : annotation format it came from.
    where : file and line it came from, for messages.
    flag : doubt about the frame, a code; empty when none.
    """

    picture: Picture
    finding: str
    pathology: str
    lesion_type: str
    box: Box | None
    source: str
    where: str
    flag: str = ""


@dataclass(frozen=True)
class Meaning:
    """What a class name of a box format stands for."""

    finding: str
    pathology: str
    lesion_type: str


CLASSES = {
    "malignant": Meaning("lesion", "malignant", "unknown"),
    "benign": Meaning("lesion", "benign", "unknown"),
    "lesion": Meaning("lesion", "unknown", "unknown"),
    "nipple": Meaning("nipple", "", "nipple"),
}


def meaning(name: str, where: str) -> Meaning:
    """Meaning of a class name, upper or lower case.

    Raises
    ------
    AnnotationError
        The name isn't one of `CLASSES`.
    """
    known = CLASSES.get(name.strip().lower())
    if known is None:
        raise AnnotationError(f"{where}: class `{name}`, expected one of {', '.join(CLASSES)}; rename the class")
    return known


def framed(picture: Picture, name: str, box: Sequence[float], source: str, where: str) -> Frame:
    """Frame of a box format: class `name`, `box` checked against its image."""
    found = meaning(name, where)
    return Frame(
        picture, found.finding, found.pathology, found.lesion_type, checked_box(box, picture, where), source, where
    )


def checked_box(box: Sequence[float], picture: Picture, where: str) -> Box:
    """Box clipped to its image when it sticks out by less than a pixel.

    Parameters
    ----------
    box : x1, y1, x2, y2, half-open, pixels of the stored image.

    Raises
    ------
    AnnotationError
        A number isn't finite, the box is inverted or empty, or it sticks out by a pixel or more.
    """
    x1, y1, x2, y2 = box
    shown = f"box x1 {x1:g}, y1 {y1:g}, x2 {x2:g}, y2 {y2:g}"
    if not all(map(math.isfinite, box)):
        raise AnnotationError(f"{where}: {shown}, expected finite numbers; draw the frame again or remove it")
    if x2 <= x1 or y2 <= y1:
        raise AnnotationError(
            f"{where}: {shown} is inverted or empty, expected x1 < x2 and y1 < y2; draw the frame again or remove it"
        )
    outside = max(-x1, -y1, x2 - picture.width, y2 - picture.height)
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(picture.width)), min(y2, float(picture.height)))
    if outside >= ROUNDING_PX or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise AnnotationError(
            f"{where}: {shown} lies up to {outside:.1f} px outside its image of {picture.width} x {picture.height} "
            "pixels (width x height); expected inside: draw the frame on the image at its stored size"
        )
    return clipped


def numbers(texts: Sequence[str], where: str) -> list[float]:
    """Numbers written in `texts`.

    Raises
    ------
    AnnotationError
        One isn't a number.
    """
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise AnnotationError(f"{where}: `{' '.join(texts)}`, expected numbers; mend the line") from None


def read_text(path: Path, shown: str) -> str:
    """Content of a UTF-8 text file, with or without byte order mark.

    Raises
    ------
    AnnotationError
        The file can't be read, is too large or isn't UTF-8 text; the message calls it `shown`.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise AnnotationError(
                f"{shown}: {path.stat().st_size} bytes, expected an annotation file of at most {MAX_BYTES}; "
                "export it again, or remove it"
            )
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise AnnotationError(
            f"{shown}: can't be read ({reason}), expected a UTF-8 text file; mend or remove it"
        ) from None


def files_below(root: Path, path: str, suffix: str) -> Iterator[tuple[Path, str, str]]:
    """Annotation files of one suffix in the directory `path` below the data set's `root`, in order of their names.

    Yields
    ------
    The file, its path relative to the root, and its path relative to `path` without suffix: the name of its image.

    Raises
    ------
    AnnotationError
        There is no such directory or no such file in it.
    """
    directory = root / path
    files = sorted(file for file in directory.rglob(f"*{suffix}") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise AnnotationError(
            f"{path}: no {suffix} file in it, expected a directory of annotation files; "
            "mend `annotations` of the data set in the config"
        )
    for file in files:
        name = file.relative_to(directory).as_posix().removesuffix(suffix)
        yield file, file.relative_to(root).as_posix(), name
