"""A whole phantom hospital on disk, made patient by patient in parallel, in bounded memory."""

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from mammoflow.errors import ConfigError, DataError
from mammoflow.files import whole_file, write_text
from mammoflow.jobs import progress
from mammoflow.masks import to_runs
from mammoflow.phantom.dicom import encode_file
from mammoflow.phantom.expert import FORMATS, SUFFIXES, Frame, coco_text, frames_of, voc_text, yolo_text
from mammoflow.phantom.machines import MACHINES
from mammoflow.phantom.patients import SIDES, Patient, draw_header, draw_patient, patients_of
from mammoflow.phantom.picture import Truth, View, draw_view, matrix
from mammoflow.phantom.streams import digest

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("mammoflow")

VIEWS = [(side, view) for side in SIDES for view in ("CC", "MLO")]
TRUTH_COLUMNS = ["path", "finding", "pathology", "lesion_type", "density", "x1", "y1", "x2", "y2"]
MASK_COLUMNS = ["path", "region", "x1", "y1", "x2", "y2", "runs"]
MANIFEST_COLUMNS = ["path", "size", "sha256"]
EARLIEST_MTIME = 1_000_000_000  # 2001, seconds since 1970
MTIME_SPAN = 2**29  # 17 years


@dataclass(frozen=True)
class Made:
    """What a patient's files are: rows of truth, masks and manifest, and the frames of a COCO file."""

    truth: list[list[str]]
    masks: list[list[str]]
    manifest: list[list[str]]
    coco: list[dict]


def generate(
    name: str,
    root: str | Path,
    patients: int,
    malignant: int,
    benign: int,
    machines: list[str],
    seed: int,
    scale: float = 1.0,
    workers: int = 1,
) -> None:
    """Make a hospital below `root`: ``raw/``, ``annotations/``, the hidden truth and, last, ``manifest.tsv``.

    The truth is ``truth.tsv``, a frame a lesion and nipple, and ``masks.tsv``, the pixels of lesions and muscle.

    The seed and the name decide every byte, however many workers there are. More patients of a kind add files and
    change no other. A file's modification time follows from its content, so that a hospital made again with more
    patients looks unchanged where it is.

    Parameters
    ----------
    name : data set; another name is another hospital.
    patients : in all, four views each.
    malignant : patients with a malignant lesion (``raw/positive``).
    benign : of the others (``raw/negative``), those with benign lesions; the rest have none.
    machines : names of `MACHINES`, given to patients in turn.
    scale : enlarges every machine's matrix (5 gives 3200 to 4400 rows).
    workers : processes.

    Raises
    ------
    ConfigError
        Counts or names don't make a hospital.
    DataError
        `root` already holds one.
    """
    counts = _counts(name, patients, malignant, benign)
    _check(name, machines, seed, scale, workers)
    root = Path(root)
    _make_directories(root, machines)
    make = partial(_make_patient, str(root), scale)
    todo = patients_of(name, seed, counts, machines)
    manifest: list[list[str]] = []
    coco: dict[str, list[dict]] = {machine: [] for machine in machines if FORMATS[machine] == "coco"}
    with (
        _mapped(make, todo, workers) as results,
        whole_file(root / "truth.tsv") as path,
        path.open("w", encoding="utf-8") as truth,
        whole_file(root / "masks.tsv") as masks_path,
        masks_path.open("w", encoding="utf-8") as masks,
    ):
        _write_rows(truth.write, [TRUTH_COLUMNS])
        _write_rows(masks.write, [MASK_COLUMNS])
        for machine, made in progress(results, patients, f"phantom {name}: patients"):
            _write_rows(truth.write, made.truth)
            _write_rows(masks.write, made.masks)
            manifest += made.manifest
            if machine in coco:
                coco[machine] += made.coco
    manifest += [
        _put(root, f"annotations/{machine}.json", coco_text(images).encode()) for machine, images in coco.items()
    ]
    table: list[str] = []
    _write_rows(table.append, [MANIFEST_COLUMNS, *sorted(manifest)])
    write_text(root / "manifest.tsv", "".join(table))
    log.info("phantom %s: %d patients, %d images, %d files", name, patients, 4 * patients, len(manifest))


def _counts(name: str, patients: int, malignant: int, benign: int) -> dict[str, int]:
    normal = patients - malignant - benign
    if min(malignant, benign, normal) < 0 or patients < 1:
        raise ConfigError(
            f"data set {name}: phantom has patients {patients}, malignant {malignant}, benign {benign}; expected at "
            "least one patient, counts from 0, malignant + benign at most patients: datasets[].phantom in config.yaml"
        )
    return {"malignant": malignant, "benign": benign, "normal": normal}


def _check(name: str, machines: list[str], seed: int, scale: float, workers: int) -> None:
    unknown = sorted(set(machines) - set(MACHINES))
    if unknown or not machines or len(set(machines)) < len(machines):
        raise ConfigError(
            f"data set {name}: phantom.machines is {machines}, expected different names of {', '.join(MACHINES)}: "
            "datasets[].phantom in config.yaml"
        )
    for what, value, least in (("seed", seed, 0), ("scale", scale, 0.25), ("workers", workers, 1)):
        if value < least:
            raise ConfigError(f"data set {name}: phantom {what} is {value}, expected at least {least}")


def _make_directories(root: Path, machines: list[str]) -> None:
    for part in ("raw", "annotations"):
        if (root / part).exists() and any((root / part).iterdir()):
            raise DataError(f"{root / part} isn't empty, expected a new directory: remove it or name another")
    one_each = [f"annotations/{machine}" for machine in machines if FORMATS[machine] in SUFFIXES]
    for part in ("raw/positive", "raw/negative", "annotations", *one_each):
        (root / part).mkdir(parents=True, exist_ok=True)


@contextmanager
def _mapped(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[Iterator[R]]:
    """Results of `function` in the order of `items`, by `workers` processes (none for one)."""
    if workers == 1:
        yield map(function, items)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield pool.imap(function, items)


def _make_patient(root: str, scale: float, patient: Patient) -> tuple[str, Made]:
    """Make a patient's files; give her machine and what was made."""
    breasts, lesions = draw_patient(patient)
    machine = MACHINES[patient.machine]
    (height, width), spacing = matrix(machine, scale)
    made = Made([], [], [], [])
    (Path(root) / patient.directory).mkdir()
    for number, (side, view_position) in enumerate(VIEWS, start=1):
        view = View(side, view_position, patient.seed, patient.names)
        pixels, truths, pectoral = draw_view(view, breasts[side], lesions[side], machine, scale)
        stem = f"mg-{digest(patient.seed, *patient.names, side, view_position)}"
        path = f"{patient.directory}/{stem}.dcm"
        header = draw_header(patient, side, view_position, number)
        made.manifest.append(_put(Path(root), path, encode_file(pixels, machine, spacing, header)))
        made.truth.extend(_truth_row(path, breasts[side].density, truth) for truth in truths)
        made.masks.extend(_mask_row(path, "lesion", truth) for truth in truths if truth.lesion is not None)
        made.masks.extend(_mask_row(path, "pectoral", truth) for truth in [pectoral] if truth is not None)
        if patient.kind == "malignant":
            frames = frames_of(view.stream("expert"), truths, width, height)
            _annotate(Path(root), patient.machine, stem, frames, width, height, made)
    return patient.machine, made


def _truth_row(path: str, density: str, truth: Truth) -> list[str]:
    if truth.lesion is None:
        what = ["nipple", "", "nipple"]
    else:
        what = ["lesion", truth.lesion.pathology, truth.lesion.lesion_type]
    return [path, *what, density, *map(str, truth.box)]


def _mask_row(path: str, region: str, truth: Truth) -> list[str]:
    return [path, region, *map(str, truth.box), to_runs(truth.mask)]


def _annotate(root: Path, machine: str, stem: str, frames: list[Frame], width: int, height: int, made: Made) -> None:
    """Write the expert's frames of an image, or keep them for the machine's COCO file."""
    if FORMATS[machine] == "coco":
        made.coco.append({"file_name": f"{stem}.dcm", "width": width, "height": height, "frames": frames})
        return
    is_yolo = FORMATS[machine] == "yolo"
    text = yolo_text(frames, width, height) if is_yolo else voc_text(frames, f"{stem}.dcm", width, height)
    path = f"annotations/{machine}/{stem}{SUFFIXES[FORMATS[machine]]}"
    made.manifest.append(_put(root, path, text.encode()))


def _put(root: Path, path: str, content: bytes) -> list[str]:
    """Write a file, its modification time decided by its content, and give its row of the manifest."""
    sha256 = hashlib.sha256(content).hexdigest()
    (root / path).write_bytes(content)
    mtime = EARLIEST_MTIME + int(sha256[:8], 16) % MTIME_SPAN
    os.utime(root / path, (mtime, mtime))
    return [path, str(len(content)), sha256]


def _write_rows(write: Callable[[str], object], rows: list[list[str]]) -> None:
    for row in rows:
        write("\t".join(row) + "\n")
