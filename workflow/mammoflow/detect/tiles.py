"""Overlapping tiles of a picture: the same in training, detection and explanation, so lesions keep their pixels."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from mammoflow import boxes
from mammoflow.boxes import Boxes
from mammoflow.errors import DataError
from mammoflow.files import write_text

VISIBLE = 0.5  # share of a frame's area that a tile must show to be labelled there
Tile = tuple[int, int, int, int]


def tile_grid(width: int, height: int, tiles: dict[str, Any] | None) -> list[Tile]:
    """Tiles ``x1, y1, x2, y2`` that cover a picture, row by row, evenly spread.

    Parameters
    ----------
    width, height : of the picture, pixels.
    tiles : `size` (side, pixels) and `overlap` (least share of a side that neighbours share, 0..1); None: one tile, the
        whole picture.
    """
    if tiles is None:
        return [(0, 0, width, height)]
    columns, rows = (_starts(length, tiles["size"], tiles["overlap"]) for length in (width, height))
    size = tiles["size"]
    return [(x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    count = int(np.ceil((length - size) / max(1.0, size * (1 - overlap)))) + 1
    return [round(start) for start in np.linspace(0, length - size, count)]


def tile_of(box: Boxes, grid: list[Tile]) -> Tile:
    """Tile that shows most of a box's area; of equal ones that in whose middle the box lies nearest."""
    b = boxes.as_boxes(box)[0]
    places = np.asarray(grid, np.float64)
    low, high = np.maximum(b[:2], places[:, :2]), np.minimum(b[2:], places[:, 2:])
    shown = np.prod(np.clip(high - low, 0, None), axis=1)
    away = np.abs(boxes.centers(places) - boxes.centers(b)).max(axis=1)
    return grid[int(np.lexsort((away, -shown))[0])]


def merge(found: Boxes, scores: NDArray[np.float64], classes: NDArray[np.int64], overlap: float) -> NDArray[np.int64]:
    """Numbers of the frames that stay where tiles show one place twice: of overlapping ones the highest score.

    Non-maximum suppression by torchvision, class by class. A mean of frames would mix a lesion's whole frame with those
    of its cut parts.

    Parameters
    ----------
    found : (N, 4), in the picture's pixels; scores, classes : (N,).
    overlap : frames of one class with a higher IoU are one, 0..1.
    """
    kept = batched_nms(torch.from_numpy(found), torch.from_numpy(scores), torch.from_numpy(classes), overlap)
    return kept.numpy()


def write_tiles(rows: pd.DataFrame, tiles: dict[str, Any], directory: Path) -> pd.DataFrame:
    """Cut training pictures into tiles and write them with their label files where Ultralytics looks for them.

    A frame is labelled in the tiles that show at least half of it, cut at their border. A tile that shows less than
    half of a lesion and no other is left out: it is neither lesion nor background. Tiles without any grey are left out
    too.

    Parameters
    ----------
    rows : rows of `mammoflow.tables.TRAINING`.
    tiles : see `tile_grid`, in pixels of the training pictures.
    directory : where ``images/`` and ``labels/`` are made.

    Returns
    -------
    Rows like `rows`, one a tile: `image_id`, `train_png`, `label_file` and the counts are the tile's.

    Raises
    ------
    DataError
        A picture can't be read.
    """
    for kind in ("images", "labels"):
        (directory / kind).mkdir(parents=True, exist_ok=True)
    made = [tile for row in rows.to_dict("records") for tile in _tiles_of(row, tiles, directory)]
    return pd.DataFrame(made, columns=rows.columns)


def _tiles_of(row: dict, tiles: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    image = cv2.imread(row["train_png"], cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataError(f"{row['train_png']}: can't be read as a picture; remove its shard's table to convert it again")
    height, width = image.shape
    lines = [line.split() for line in Path(row["label_file"]).read_text("utf-8").splitlines()]
    classes = np.array([int(line[0]) for line in lines], np.int64)
    frames = boxes.from_yolo(np.array([line[1:] for line in lines], np.float64), width, height)
    made = []
    for number, (x1, y1, x2, y2) in enumerate(tile_grid(width, height, tiles)):
        inside = boxes.clip(frames - [x1, y1, x1, y1], x2 - x1, y2 - y1)
        shown = boxes.area(inside) / boxes.area(frames)
        labelled = shown >= VISIBLE
        lesions = int((labelled & (classes == 0)).sum())
        if not image[y1:y2, x1:x2].any() or (lesions == 0 and ((shown > 0) & (classes == 0)).any()):
            continue
        name = f"{row['image_id']}-tile{number:03d}"
        picture, labels = directory / "images" / f"{name}.png", directory / "labels" / f"{name}.txt"
        if not cv2.imwrite(str(picture), image[y1:y2, x1:x2]):
            raise DataError(f"{picture}: can't be written; is the disk full?")
        relative = boxes.to_yolo(inside[labelled], x2 - x1, y2 - y1)
        write_text(labels, "".join(
            f"{kind} " + " ".join(f"{value:.8f}" for value in box) + "\n"
            for kind, box in zip(classes[labelled], relative, strict=True)
        ))  # fmt: skip
        counts = {"lesions": lesions, "nipples": int(labelled.sum()) - lesions}
        made.append(row | counts | {"image_id": name, "train_png": str(picture), "label_file": str(labels)})
    return made
