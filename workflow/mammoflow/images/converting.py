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
from mammoflow.images.burned_in import without_labels
from mammoflow.images.gpu import decoders
from mammoflow.images.kept import Kept
from mammoflow.images.masters import master_table
from mammoflow.images.png import encode_png
from mammoflow.images.rendering import Record, draw, look_up
from mammoflow.images.stored import Stored, read_stored
from mammoflow.images.training import training_picture, training_transform
from mammoflow.index.listing import resolve_root
from mammoflow.jobs import progress
from mammoflow.provenance import code_digest, settings_digest

log = logging.getLogger("mammoflow")

JPEG_QUALITY = 95
TRAINING_DIRECTORY = "train"
MASTERS_DIRECTORY = "masters"
MASTERS_TABLE = "masters.tsv"
INDEXED = ("image_id", "patient_key", "machine", "image_laterality")
SIDE_DISAGREES, REPEATED = "side_disagrees", "repeated_pixels"


class ShardImage(NamedTuple):
    """An image to convert: its keys, machine for presets, side, file, and a digest of what the index says of it."""

    image_id: str
    patient_key: str
    machine: str
    image_laterality: str
    file: Path
    indexed: str


class Target(NamedTuple):
    """What a shard's images become: the data set's name and `window`, section `images` of the config, the directory.

    `mask_labels`: see `mammoflow.images.burned_in`.
    """

    dataset: str
    window: dict[str, Any]
    settings: dict[str, Any]
    pictures: Path
    mask_labels: bool


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
    kept: str | Path | None = None,
    mask_labels: bool = False,
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
    pictures : directory to make: ``<image_id>.png`` (or ``.jpg``) and ``train/<image_id>.png``; where `masters` is
        set, ``masters/<image_id>.png`` and ``masters.tsv`` (see `mammoflow.tables.MASTERS`).
    kept : directory for what the next run may take over, see `mammoflow.images.kept`; None keeps nothing.
    mask_labels : whether to paint out all that lies outside the breast, see `mammoflow.images.burned_in`.
    workers : threads; the results don't depend on it.

    Raises
    ------
    ConfigError
        The root isn't there.
    """
    images = shard_images(dataset, shard, index, sources, patients)
    target = Target(dataset["name"], dataset["window"], settings, Path(pictures), mask_labels)
    (target.pictures / TRAINING_DIRECTORY).mkdir(parents=True, exist_ok=True)
    store = Kept(kept)
    store.forget_others({image.image_id for image in images})
    convert = partial(converted_or_kept, target=target, kept=store)
    with ThreadPoolExecutor(workers) as pool:
        made = list(progress(pool.map(convert, images), len(images), f"images of {dataset['name']} {shard}"))
    rows = _with_repeated([row for row, _ in made])
    _tell(rows, sum(reused for _, reused in made))
    tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, rows), table)
    if settings.get("masters"):
        masters = tables.from_rows(tables.MASTERS, [row for row in rows if row["status"] == "ok"])
        tables.write(tables.MASTERS, masters, target.pictures / MASTERS_TABLE)


def _with_repeated(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Flag pictures whose pixels another SOP Instance of the shard, where all of a patient's images are, has too."""
    repeated = Counter(row["pixel_digest"] for row in rows if row["status"] == "ok")
    return [
        row | {"flag": f"{row['flag']} {REPEATED}".strip()} if repeated[row["pixel_digest"]] > 1 else row
        for row in rows
    ]


def _tell(rows: list[dict[str, Any]], reused: int) -> None:
    if reused:
        log.info("%d of %d images are those of the run before", reused, len(rows))
    reasons = Counter(row["reason"] for row in rows if row["status"] == "excluded")
    for reason, count in reasons.most_common():
        log.warning("%d of %d images give no picture: %s", count, len(rows), reason)
    flagged = Counter(flag for row in rows for flag in row["flag"].split())
    for flag, count in flagged.most_common():
        log.warning("%d of %d images are doubtful: %s", count, len(rows), flag)


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
    return [
        ShardImage(**{name: row[name] for name in INDEXED}, file=root / row["path"], indexed=settings_digest(row))
        for row in rows.to_dict("records")
    ]


def converted_or_kept(image: ShardImage, *, target: Target, kept: Kept) -> tuple[dict[str, Any], bool]:
    """Return an image's row, and whether its pictures are those of the run before; else they are made."""
    try:
        status = image.file.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:
        size = mtime_ns = -1  # rendering tells why
    identity = settings_digest([image.indexed, size, mtime_ns, tuple(target), code_digest("images")])
    row = kept.restore(image.image_id, identity, target.pictures)
    if row is not None:
        return row, True
    row = convert_image(image, target)
    if row["status"] == "ok":
        columns = ("png", "train_png", *(["master_png"] if target.settings.get("masters") else []))
        names = [str(Path(row[column]).relative_to(target.pictures)) for column in columns]
        kept.keep(image.image_id, identity, row, target.pictures, names)
    return row, False


def convert_image(image: ShardImage, target: Target) -> dict[str, Any]:
    """Write one image's pictures; return its row of `mammoflow.tables.IMAGES`, and its master's, when asked for."""
    keys = {"dataset": target.dataset, "image_id": image.image_id, "patient_key": image.patient_key}
    settings, pictures = target.settings, target.pictures
    try:
        picture, record, master = _render(image, target)
    except RenderError as error:
        log.warning("%s: no picture: %s", image.image_id, error.reason)
        return keys | _no_picture(error.reason)
    height, width = picture.shape
    transform = training_transform(width, height, record.breast_box, record.chest_wall, settings)
    suffix = ".jpg" if settings["format"] == "jpeg" else ".png"
    full, small = pictures / f"{image.image_id}{suffix}", pictures / TRAINING_DIRECTORY / f"{image.image_id}.png"
    write_picture(full, picture)
    write_picture(small, training_picture(picture, transform))
    paths = {"png": str(full), "train_png": str(small)} | master
    checked = {"flag": side_flag(image.image_laterality, record), "labels_masked": target.mask_labels}
    return keys | _made(record) | checked | paths | {"width": width, "height": height, "transform": transform.to_json()}


def side_flag(image_laterality: str, record: Record) -> str:
    """Return ``side_disagrees`` when the chest wall is seen at the other side of the picture than the header says.

    Mammograms are stored with the chest wall of a left breast at the left (PS3.3 C.8.11.7.1.4, Patient Orientation A).
    """
    seen = record.chest_wall
    return SIDE_DISAGREES if image_laterality and seen and seen != image_laterality else ""


def _render(image: ShardImage, target: Target) -> tuple[NDArray[np.uint8], Record, dict[str, Any]]:
    """Draw an image, and write its master when asked for; the stored values are let go before anything is encoded."""
    stored = read_stored(image.file, decoders(target.settings.get("jpeg2000", "cpu")))
    stored = without_labels(stored) if target.mask_labels else stored
    picture, record = draw(stored, target.window, image.machine)
    path = target.pictures / MASTERS_DIRECTORY / f"{image.image_id}.png"
    return picture, record, _write_master(stored, path, target.settings)


def _write_master(stored: Stored, path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not settings.get("masters"):
        return {}
    table, offset, slope = master_table(stored)
    write_picture(path, look_up(stored.patterns, table))
    return {"master_png": str(path), "offset": offset, "slope": slope}


def write_picture(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a grey picture as a one-channel PNG or, by its suffix, 8-bit JPEG, whole or not at all."""
    if path.suffix == ".png":
        write_bytes(path, encode_png(picture))
    else:
        write_bytes(path, cv2.imencode(path.suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].data)


def _made(record: Record) -> dict[str, Any]:
    box = record.breast_box or (None, None, None, None)
    edges = dict(zip(("breast_x1", "breast_y1", "breast_x2", "breast_y2"), box, strict=True))
    greys = dict(zip(("grey_p05", "grey_p50", "grey_p95"), record.greys, strict=True))
    made = {"status": "ok", "reason": "", "window": record.window, "pixel_digest": record.pixel_digest}
    return made | edges | greys


def _no_picture(reason: str) -> dict[str, Any]:
    texts = ("png", "train_png", "transform", "window", "pixel_digest", "flag")
    numbers = ("breast_x1", "breast_y1", "breast_x2", "breast_y2", "grey_p05", "grey_p50", "grey_p95")
    empty = dict.fromkeys(texts, "") | dict.fromkeys(numbers, None) | {"width": 0, "height": 0, "labels_masked": False}
    return {"status": "excluded", "reason": reason} | empty
