"""Maps beside the truth: how much relevance lies on true lesions, the breast's border, muscle, labels and air.

Nothing here reaches a model. Maps and frames were made without the truth, which is read for these figures and for
the outlines in the overlays alone.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mammoflow import boxes, tables
from mammoflow.crops.cut import cut
from mammoflow.errors import DataError
from mammoflow.explain.maps import EDGES, FloatMap, blob
from mammoflow.explain.overlays import Outline, draw_overlay
from mammoflow.explain.regions import Zones, covered, picture_zones, sampled, share
from mammoflow.geometry import Transform
from mammoflow.jobs import progress
from mammoflow.masks import from_runs

FLAGGED = 0.5  # share of relevance outside the breast from which a map is flagged
ZONES = ("border", "label", "outside")

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Truth:
    """A data set's hidden truth and the rule by which a frame finds a lesion; see `mammoflow.boxes.hits`."""

    lesions: pd.DataFrame
    masks: pd.DataFrame
    min_iou: float
    center: bool


class Shown:
    """An image with what is known of it: zones of its picture, true lesions, masks, spacing."""

    def __init__(self, image: Any, spacing: float, truth: Truth):
        self.image, self.spacing = image, spacing
        self._truth = truth
        self.place = Transform.from_json(image.transform)
        lesions, masks = (_of_image(table, image.image_id) for table in (truth.lesions, truth.masks))
        self.lesions: list[Any] = list(lesions.itertuples())
        self._masks: list[Any] = list(masks.itertuples())

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """Training picture, (H, W)."""
        return _read(self.image.train_png)

    @cached_property
    def zones(self) -> Zones:
        """Zones of the training picture."""
        image = self.image
        box = self.place.forward([image.breast_x1, image.breast_y1, image.breast_x2, image.breast_y2])
        return picture_zones(self.picture, box, image.grey_p05, image.grey_p50)

    def found(self, frame: Sequence[float]) -> Any | None:
        """Return the true lesion that a frame finds, that of the largest IoU, or None."""
        if not self.lesions:
            return None
        framed = [[getattr(lesion, edge) for edge in EDGES] for lesion in self.lesions]
        hit = boxes.hits(frame, framed, self._truth.min_iou, self._truth.center)[0]
        overlap = np.where(hit, boxes.iou(frame, framed)[0], -1.0)
        return self.lesions[int(np.argmax(overlap))] if hit.any() else None

    def lesion_cover(self, lesion: Any, target: Transform) -> FloatMap:
        """Share of each pixel that a true lesion covers: by its mask, or by its frame when there is none."""
        box = [getattr(lesion, edge) for edge in EDGES]
        for mask in self._masks:
            if mask.region == "lesion" and [getattr(mask, edge) for edge in EDGES] == box:
                return covered(_mask(mask), box, target)
        width, height = np.rint(np.subtract(box[2:], box[:2])).astype(int)
        return covered(np.ones((max(height, 1), max(width, 1)), np.bool_), box, target)

    def pectoral(self, target: Transform) -> NDArray[np.floating] | None:
        """Pectoral muscle in a map's pixels; None without masks."""
        if not self._masks and not len(self._truth.masks):
            return None
        total = np.zeros((target.height, target.width), np.float32)
        for mask in self._masks:
            if mask.region == "pectoral":
                total += covered(_mask(mask), [getattr(mask, edge) for edge in EDGES], target)
        return total

    def seen(self, row: Any) -> NDArray[np.uint8]:
        """Return what a map covers: the training picture, or a cut of the full-size one."""
        if row.kind == "detection":  # maps lie as the stored image does
            return np.ascontiguousarray(self.picture[:, ::-1]) if self.place.scale_x < 0 else self.picture
        x1, y1, x2, y2 = (round(getattr(row, edge)) for edge in EDGES)
        return cut(_read(self.image.png), (x1, y1, x2, y2))


def evaluate(
    maps: Sequence[str | Path],
    containers: Sequence[str | Path],
    images: list[str] | list[Path],
    index: str | Path,
    truth: str | Path,
    masks: str | Path,
    hit_iou: float,
    hit_center: bool,
    detections: str | Path,
    crops: str | Path,
    overlays: str | Path,
) -> None:
    """Lay a data set's maps beside the truth and draw them.

    Parameters
    ----------
    maps : tables of `mammoflow.tables.MAPS`.
    containers : the ``.npz`` files beside them, in the same order.
    images : tables of `mammoflow.tables.IMAGES` of the data set.
    index : its INDEX table.
    truth : its LESIONS table of every known lesion.
    masks : its MASKS table, possibly empty.
    hit_iou, hit_center : when a frame finds a lesion; see `mammoflow.boxes.hits`.
    detections, crops : tables of `mammoflow.tables.RELEVANCE` to write, by kind of map.
    overlays : directory to make, with one PNG per ``map_id``.

    Raises
    ------
    DataError
        Maps don't belong to these images, or a picture can't be read.
    """
    Path(overlays).mkdir(parents=True, exist_ok=True)
    lesions = tables.read(tables.LESIONS, truth)
    lesions = lesions[lesions["finding"] == "lesion"].dropna(subset=EDGES)
    known = Truth(lesions, tables.read(tables.MASKS, masks), hit_iou, hit_center)
    shown = {row.image_id: row for row in tables.read_all(tables.IMAGES, images).itertuples(index=False)}
    spacing = tables.read(tables.INDEX, index).set_index("image_id")["imager_pixel_spacing"]
    rows = []
    for path, container in progress(zip(maps, containers, strict=True), len(maps), "tables of maps"):
        table = tables.read(tables.MAPS, path).sort_values(["image_id", "map_id"], kind="stable")
        missing = sorted(set(table["image_id"]) - set(shown))
        if missing:
            raise DataError(f"{path}: image {missing[0]} isn't in the images' tables; remove it to make it again")
        rows += list(_evaluated(table, container, shown, spacing, known, Path(overlays)))
    for kind, written in (("detection", detections), ("crop", crops)):
        chosen = [row for row in rows if row["kind"] == kind]
        tables.write(tables.RELEVANCE, tables.from_rows(tables.RELEVANCE, chosen), written)
    flagged = sum(row["flag"] == "outside_breast" for row in rows)
    log.info("%d maps, %d of them mostly outside the breast", len(rows), flagged)


def _evaluated(
    table: pd.DataFrame, container: str | Path, images: dict[Any, Any], spacing: pd.Series, truth: Truth, overlays: Path
) -> Iterator[dict[str, Any]]:
    current: Shown | None = None
    rows: Iterator[Any] = table.itertuples(index=False)
    with np.load(container) as arrays:
        for row in rows:
            if current is None or current.image.image_id != row.image_id:
                current = Shown(images[row.image_id], float(spacing.get(row.image_id, np.nan)), truth)
            if row.reason:
                nothing = dict.fromkeys(tables.RELEVANCE.columns, float("nan"))
                words = {"lesion_type": "", "flag": "not_explained", "overlay_png": ""}
                yield nothing | row._asdict() | words
                continue
            path = overlays / f"{row.map_id}.png"
            figures = shares(row, arrays[row.map_id], current)
            _draw(row, arrays[row.map_id], current, path)
            yield {**row._asdict(), **figures, "overlay_png": str(path)}


def shares(row: Any, relevance: FloatMap, shown: Shown) -> dict[str, Any]:
    """Columns of `mammoflow.tables.RELEVANCE` that the truth and the picture's zones give a map."""
    target, frame = _target(row, relevance), [getattr(row, f"frame_{edge}") for edge in EDGES]
    lesion, nothing = shown.found(frame), (float("nan"), float("nan"))
    figures = {"lesion": nothing, "pectoral": nothing}
    on_blob = float("nan")
    if lesion is not None:
        cover = shown.lesion_cover(lesion, target)
        figures["lesion"] = share(relevance, cover)
        on_blob = share(blob(target.forward(frame), *relevance.shape), cover)[0]
    muscle = shown.pectoral(target)
    if muscle is not None:
        figures["pectoral"] = share(relevance, muscle)
    for zone in ZONES:
        region = sampled(getattr(shown.zones, zone), shown.place, target)
        if zone == "outside":  # what lies beyond the training picture is no breast either
            region |= ~sampled(np.ones(shown.picture.shape, np.bool_), shown.place, target)
        figures[zone] = share(relevance, region)
    return {
        **{f"on_{zone}": inside for zone, (inside, _) in figures.items()},
        **{f"area_{zone}": area for zone, (_, area) in figures.items()},
        "blob_on_lesion": on_blob,
        "lesion_type": "" if lesion is None else lesion.lesion_type,
        "flag": _flag(figures["outside"][0]),
    }


def _flag(outside: float) -> str:
    if np.isnan(outside):
        return "no_relevance"
    return "outside_breast" if outside > FLAGGED else ""


def _draw(row: Any, relevance: FloatMap, shown: Shown, path: Path) -> None:
    target = _target(row, relevance)
    frame = target.forward([getattr(row, f"frame_{edge}") for edge in EDGES])[0]
    outlines = [Outline(shown.lesion_cover(lesion, target) >= 0.5, lesion.pathology) for lesion in shown.lesions]
    spacing = shown.spacing / target.scale_x if np.isfinite(shown.spacing) else None
    draw_overlay(shown.seen(row), relevance, frame, path, outlines, spacing)


def _target(row: Any, relevance: FloatMap) -> Transform:
    height, width = relevance.shape
    return Transform.window(row.x1, row.y1, row.x2, row.y2, width, height)


def _mask(row: Any) -> NDArray[np.bool_]:
    return from_runs(row.runs, int(row.y2 - row.y1), int(row.x2 - row.x1))


def _of_image(table: pd.DataFrame, image_id: str) -> pd.DataFrame:
    return table[table["image_id"] == image_id]


def _read(path: str) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise DataError(f"{path}: can't be read as a picture; remove its shard's table to convert it again")
    return np.asarray(picture, np.uint8)
