"""Which image an annotation belongs to."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from mammoflow.errors import AnnotationError

# Annotations are often drawn on an exported picture: `a.png` stands for `a.dcm`. Other dots may be part of a name.
IMAGE_SUFFIXES = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".pgm", ".bmp"}


@dataclass(frozen=True)
class Picture:
    """An image of the index: `path` of its raw file below the data set's root, `width` and `height` in pixels."""

    image_id: str
    path: str
    usable: bool
    width: int
    height: int
    directory_label: str
    patient_key: str


class Pictures:
    """A data set's images, found by path or by file name.

    Parameters
    ----------
    index : INDEX table of the data set.
    sources : SOURCES table of the data set.
    partial : whether annotations of images that aren't there are left out too, and no mistake.

    Attributes
    ----------
    unusable : image ids of excluded images that were asked for; their annotations are left out.
    absent : names of images that were asked for and aren't there, with `partial`.
    """

    def __init__(self, index: pd.DataFrame, sources: pd.DataFrame, partial: bool = False):
        self.unusable: set[str] = set()
        self.absent: set[str] = set()
        self._partial = partial
        self._by_path: dict[str, Picture] = {}
        self._by_name: dict[str, list[Picture]] = defaultdict(list)
        for picture in _pictures(index, sources):
            self._by_path[picture.path] = picture
            path = PurePosixPath(picture.path)
            for name in {path.name, path.stem}:
                self._by_name[name].append(picture)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._by_path.values())

    def at_path(self, path: str, where: str) -> Picture | None:
        """Image whose raw file is `path` below the data set's root; None when it is excluded.

        Raises
        ------
        AnnotationError
            No image has this path; `where` tells what asked for it.
        """
        picture = self._by_path.get(str(PurePosixPath(path)))
        if picture is None and self._partial:
            self.absent.add(path)
            return None
        if picture is None:
            raise AnnotationError(
                f"{where}: `{path}` is no image of the data set, expected an image's path below the data set's root"
            )
        return self._if_usable(picture)

    def named(self, name: str, where: str) -> Picture | None:
        """Image whose file is called `name`, with or without suffix; None when it is excluded.

        Parameters
        ----------
        name : file name or stem; directories before it only choose among images of the same name.
        where : what asked for it, for the message.

        Raises
        ------
        AnnotationError
            No image has this name, or several have.
        """
        path = PurePosixPath(name)
        found = self._by_name.get(path.name, [])
        if not found and path.suffix.lower() in IMAGE_SUFFIXES:
            found = self._by_name.get(path.stem, [])
        found = [picture for picture in found if picture.usable] or found[:1]
        if len(found) > 1:
            found = [picture for picture in found if _lies_below(picture.path, path)] or found
        if not found and self._partial:
            self.absent.add(name)
            return None
        if not found:
            raise AnnotationError(
                f"{where}: no image of the data set is called `{path.name}`; "
                "an annotation carries the name of its image's file: rename or remove it, or add the image"
            )
        if len(found) > 1:
            raise AnnotationError(
                f"{where}: {len(found)} images are called `{path.name}` ({found[0].path}, {found[1].path}), expected "
                "one; put the annotation in directories named as the image's, or give the files names of their own"
            )
        return self._if_usable(found[0])

    def _if_usable(self, picture: Picture) -> Picture | None:
        if picture.usable:
            return picture
        self.unusable.add(picture.image_id)
        return None


def _pictures(index: pd.DataFrame, sources: pd.DataFrame) -> Iterator[Picture]:
    rows = index.merge(sources, on="image_id", how="inner")
    for row in rows.to_dict("records"):
        yield Picture(
            row["image_id"],
            str(PurePosixPath(row["path"])),
            row["status"] == "ok",
            int(row["columns"]),
            int(row["rows"]),
            row["directory_label"],
            row["patient_key"],
        )


def _lies_below(path: str, wanted: PurePosixPath) -> bool:
    """Whether the directories right above an image's file are those of `wanted`."""
    return PurePosixPath(path).parts[-len(wanted.parts) : -1] == wanted.parts[:-1]
