"""Converting a shard: its usable images become pictures, full size and training size, and a table of how."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow import tables
from mammoflow.errors import RenderError
from mammoflow.files import write_bytes
from mammoflow.images.rendering import Record, render
from mammoflow.images.training import training_picture, training_transform
from mammoflow.index.listing import resolve_root
from mammoflow.jobs import progress

log = logging.getLogger("mammoflow")

JPEG_QUALITY = 95
TRAINING_DIRECTORY = "train"


class ShardImage(NamedTuple):
    """An image to convert: its keys, the machine for presets, and its file."""

    image_id: str
    patient_key: str
    machine: str
    file: Path


def convert_shard(
    *,
    dataset: dict[str, Any],
    shard: str,
    settings: dict[str, Any],
    index: str | Path,
    sources: str | Path,
    patients: str | Path,
    table: str | Path,
    pictures: str | Path,
    workers: int = 1,
) -> None:
    """Convert a shard's images and write their table.

    Parameters
    ----------
    dataset : settings of the data set: `name`, `root`, `window` (see `mammoflow.images.render`).
    shard : name of the shard, for example ``other-003``.
    settings : section `images` of the config: `format` of the full-size pictures, ``png`` or ``jpeg`` (those at
        training size are PNG), and see `mammoflow.images.training.training_transform`.
    index, sources, patients : tables to read; images of status ok whose patient is in the shard are converted.
    table : file to write, see `mammoflow.tables.IMAGES`; sorted by image_id.
    pictures : directory to make: ``<image_id>.png`` (or ``.jpg``) and ``train/<image_id>.png``.
    workers : threads; the results don't depend on it.

    Raises
    ------
    ConfigError
        The root isn't there.
    """
    images = shard_images(dataset, shard, index, sources, patients)
    pictures = Path(pictures)
    (pictures / TRAINING_DIRECTORY).mkdir(parents=True, exist_ok=True)
    convert = partial(
        convert_image,
        dataset_name=dataset["name"],
        window=dataset["window"],
        pictures=pictures,
        settings=settings,
    )
    with ThreadPoolExecutor(workers) as pool:
        rows = list(progress(pool.map(convert, images), len(images), f"images of {dataset['name']} {shard}"))
    reasons = Counter(row["reason"] for row in rows if row["status"] == "excluded")
    for reason, count in reasons.most_common():
        log.warning("%d of %d images give no picture: %s", count, len(rows), reason)
    tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, rows), table)


def shard_images(
    dataset: dict[str, Any], shard: str, index: str | Path, sources: str | Path, patients: str | Path
) -> list[ShardImage]:
    """List the usable images of a shard's patients, sorted by image_id."""
    known = tables.read(tables.PATIENTS, patients)
    here = known[(known["dataset"] == dataset["name"]) & (known["shard"] == shard)]
    rows = tables.read(tables.INDEX, index)
    rows = rows[(rows["status"] == "ok") & rows["patient_key"].isin(here["patient_key"])]
    rows = rows.merge(tables.read(tables.SOURCES, sources), on="image_id", validate="one_to_one").sort_values(
        "image_id"
    )
    root = resolve_root(dataset["root"])
    keys = zip(rows["image_id"], rows["patient_key"], rows["machine"], rows["path"], strict=True)
    return [ShardImage(image_id, patient_key, machine, root / path) for image_id, patient_key, machine, path in keys]


def convert_image(
    image: ShardImage, *, dataset_name: str, window: dict[str, Any], pictures: Path, settings: dict[str, Any]
) -> dict[str, Any]:
    """Write one image's two pictures; return its row of `mammoflow.tables.IMAGES`."""
    keys = {"dataset": dataset_name, "image_id": image.image_id, "patient_key": image.patient_key}
    try:
        picture, record = render(image.file, window, image.machine)
    except RenderError as error:
        log.warning("%s: no picture: %s", image.image_id, error.reason)
        return keys | _no_picture(error.reason)
    height, width = picture.shape
    transform = training_transform(width, height, record.breast_box, record.chest_wall, settings)
    suffix = ".jpg" if settings["format"] == "jpeg" else ".png"
    full, small = pictures / f"{image.image_id}{suffix}", pictures / TRAINING_DIRECTORY / f"{image.image_id}.png"
    write_picture(full, picture)
    write_picture(small, training_picture(picture, transform))
    return (
        keys
        | _made(record)
        | {
            "png": str(full),
            "train_png": str(small),
            "width": width,
            "height": height,
            "transform": transform.to_json(),
        }
    )


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a grey picture as a one-channel PNG or, by its suffix, JPEG, whole or not at all."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    # encoded in memory: where OpenCV writes the file itself, it doesn't tell a full disk from other failures
    write_bytes(path, cv2.imencode(path.suffix, picture, settings)[1].tobytes())


def _made(record: Record) -> dict[str, Any]:
    box = record.breast_box or (None, None, None, None)
    edges = dict(zip(("breast_x1", "breast_y1", "breast_x2", "breast_y2"), box, strict=True))
    greys = dict(zip(("grey_p05", "grey_p50", "grey_p95"), record.greys, strict=True))
    made = {"status": "ok", "reason": "", "window": record.window, "pixel_digest": record.pixel_digest}
    return made | edges | greys


def _no_picture(reason: str) -> dict[str, Any]:
    texts = ("png", "train_png", "transform", "window", "pixel_digest")
    numbers = ("breast_x1", "breast_y1", "breast_x2", "breast_y2", "grey_p05", "grey_p50", "grey_p95")
    empty = dict.fromkeys(texts, "") | dict.fromkeys(numbers, None) | {"width": 0, "height": 0}
    return {"status": "excluded", "reason": reason} | empty
