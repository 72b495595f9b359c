"""Pascal VOC: one XML file a picture.

Edges are taken as half-open pixels from 0, as today's labelling tools write them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from mammoflow.errors import AnnotationError
from mammoflow.labels.frames import Frame, files_below, framed, numbers, read_text
from mammoflow.labels.pictures import Picture, Pictures

EDGES = ("xmin", "ymin", "xmax", "ymax")


def read(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[Frame]:
    """Frames of a directory of VOC files.

    Parameters
    ----------
    root : the data set's root.
    entry : `path` (directory below the root).

    Raises
    ------
    AnnotationError
        A file isn't plain VOC XML, has no image, or was drawn on a picture of another size; a class or box is wrong.
    """
    for file, shown, name in files_below(root, entry["path"], ".xml"):
        picture = pictures.named(name, shown)
        if picture is not None:
            annotation = _parse(read_text(file, shown), shown)
            _check_size(annotation, picture, shown)
            for number, element in enumerate(annotation.iter("object"), start=1):
                where = f"{shown} object {number}"
                yield framed(picture, _text(element, "name", where), _box(element, where), "voc", where)


def _parse(text: str, shown: str) -> Element:
    try:
        annotation = fromstring(text)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise AnnotationError(f"{shown}: no plain XML ({error}), expected Pascal VOC; export it again") from None
    if annotation.tag != "annotation":
        raise AnnotationError(
            f"{shown}: XML of `{annotation.tag}`, expected `annotation` (Pascal VOC); export it again"
        )
    return annotation


def _text(element: Element, tag: str, where: str) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise AnnotationError(f"{where}: no `{tag}`, expected it in each object; export the annotation again")
    return text


def _box(element: Element, where: str) -> list[float]:
    return numbers([_text(element, f"bndbox/{edge}", where) for edge in EDGES], where)


def _check_size(annotation: Element, picture: Picture, shown: str) -> None:
    """Refuse frames drawn on a resized picture; tools that don't know the size write 0 or nothing."""
    width, height = numbers([annotation.findtext(f"size/{side}") or "0" for side in ("width", "height")], shown)
    if (width, height) not in ((0, 0), (picture.width, picture.height)):
        raise AnnotationError(
            f"{shown}: drawn on {width:g} x {height:g} pixels, but its image has {picture.width} x {picture.height}; "
            "expected frames of the image at its stored size: export them again"
        )
