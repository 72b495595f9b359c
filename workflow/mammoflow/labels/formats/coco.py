"""COCO: one JSON file with `images`, `categories` and `annotations`; `bbox` is x, y, width, height in pixels."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from mammoflow.errors import AnnotationError
from mammoflow.labels.frames import Frame, framed, read_text
from mammoflow.labels.pictures import Picture, Pictures


def read(root: Path, entry: dict[str, Any], pictures: Pictures) -> Iterator[Frame]:
    """Frames of a COCO file.

    Parameters
    ----------
    root : the data set's root.
    entry : `path` (file below the root).

    Raises
    ------
    AnnotationError
        The file isn't COCO JSON; an image, category or box is unknown or wrong.
    """
    shown = entry["path"]
    content = _parse(read_text(root / shown, shown), shown)
    names = {number: str(item["name"]) for number, item in _by_id(content, "categories", "name", shown).items()}
    images = _by_id(content, "images", "file_name", shown)
    found = {number: _picture(item, pictures, shown) for number, item in images.items()}
    for position, item in enumerate(content["annotations"]):
        where = f"{shown} annotations[{position}]"
        number, category = _look_up(item, "image_id", found, where), _look_up(item, "category_id", names, where)
        picture = found[number]
        if picture is not None:
            x, y, width, height = _bbox(item, where)
            yield framed(picture, names[category], (x, y, x + width, y + height), "coco", where)


def _parse(text: str, shown: str) -> dict[str, list[Any]]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"the number {constant}")

    try:
        content = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{shown}: no JSON ({error}), expected COCO; export it again") from None
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise AnnotationError(f"{shown}: no list `{key}`, expected COCO JSON; export it again")
    return content


def _by_id(content: dict[str, list[Any]], key: str, needed: str, shown: str) -> dict[Any, dict[str, Any]]:
    """Entries of a list by their `id`, each checked to have `needed`."""
    entries: dict[Any, dict[str, Any]] = {}
    for position, item in enumerate(content[key]):
        where = f"{shown} {key}[{position}]"
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("id"), int | str)
            or not isinstance(item.get(needed), str)
        ):
            raise AnnotationError(
                f"{where}: {item!r:.80}, expected an object with `id` and `{needed}`; export it again"
            )
        if item["id"] in entries:
            raise AnnotationError(f"{where}: id {item['id']} occurs twice, expected ids of their own; export it again")
        entries[item["id"]] = item
    return entries


def _picture(item: dict[str, Any], pictures: Pictures, shown: str) -> Picture | None:
    where = f"{shown} image `{item['file_name']}`"
    picture = pictures.named(item["file_name"], where)
    size = (item.get("width"), item.get("height"))
    if picture is not None and size not in ((None, None), (0, 0), (picture.width, picture.height)):
        raise AnnotationError(
            f"{where}: drawn on {size[0]} x {size[1]} pixels, but its image has {picture.width} x {picture.height}; "
            "expected frames of the image at its stored size: export them again"
        )
    return picture


def _look_up(item: Any, key: str, known: dict[Any, Any], where: str) -> Any:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, int | str) or value not in known:
        raise AnnotationError(f"{where}: {key} {value!r} isn't among the file's {key[:-3]} ids; export it again")
    return value


def _bbox(item: dict[str, Any], where: str) -> list[float]:
    bbox = item.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(value) not in (int, float) for value in bbox):
        raise AnnotationError(f"{where}: bbox {bbox!r}, expected 4 numbers (x, y, width, height); export boxes")
    return [float(value) for value in bbox]
