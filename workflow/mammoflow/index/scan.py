"""Scanning a data set: every file below its root becomes a row of the index."""

import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mammoflow import tables
from mammoflow.errors import DataError
from mammoflow.files import write_text
from mammoflow.index.entries import PatientRule, Row, read_entry
from mammoflow.index.keys import key, secret
from mammoflow.index.listing import ListedFile, list_files, resolve_root
from mammoflow.jobs import progress
from mammoflow.provenance import code_digest, settings_digest

log = logging.getLogger("mammoflow")

CHUNK = 64  # files a worker takes at once
WORTH_PROCESSES = 1000  # files; fewer are read before other processes have started
NOT_AN_IMAGE = "not_an_image"
SHOWN_REASONS = 4


def scan(
    *,
    dataset: dict[str, Any],
    secret_file: str,
    seed: int,
    max_excluded: float,
    table: str | Path,
    sources: str | Path,
    workers: int = 1,
) -> None:
    """Write the index of a data set and its private table of paths.

    Parameters
    ----------
    dataset : settings of the data set: `name`, `source` (``dicom``, ``phantom`` or ``raster``), `root`, `directories`
        (label to directory below the root; only these are read when there are any), and optionally `patient_rule` and
        `patient_from` (see `mammoflow.index.entries.PatientRule`).
    secret_file, seed : what salts the keys, see `mammoflow.index.keys.secret`.
    max_excluded : largest share of excluded files, 0..1; files that are plainly no images don't count.
    table : file to write, see `mammoflow.tables.INDEX`; rows are sorted by image_id.
    sources : file to write, see `mammoflow.tables.SOURCES`.
    workers : processes that read; the tables don't depend on it.

    Raises
    ------
    ConfigError
        A directory or the secret file can't be used.
    DataError
        No file can be used, or more than `max_excluded` can't.
    """
    salt = secret(secret_file, seed)
    directories = {label: path for label, path in dataset["directories"].items() if path}
    files = list_files(dataset["root"], list(directories.values()))
    cache = Path(table).parent / ".cache" / f"{dataset['name']}.json"
    rows = _read_all(files, dataset, salt, cache, workers)
    _mark_duplicates(files, rows)
    for file, row in zip(files, rows, strict=True):
        row |= {"dataset": dataset["name"], "directory_label": directory_label(file.path, directories)}
        row |= {"size": file.size, "mtime_ns": file.mtime_ns}
    _tell(rows)
    check_excluded(rows, dataset["name"], max_excluded)
    by_id = sorted(zip(files, rows, strict=True), key=lambda pair: pair[1]["image_id"])
    tables.write(tables.INDEX, tables.from_rows(tables.INDEX, [row for _, row in by_id]), table)
    paths = [{"image_id": row["image_id"], "path": _storable(file.path)} for file, row in by_id]
    tables.write(tables.SOURCES, tables.from_rows(tables.SOURCES, paths), sources)


def directory_label(path: str, directories: dict[str, str]) -> str:
    """Return what the directories say of the file at `path` below the root: the longest directory above it decides."""
    above = {
        len(Path(directory).parts): label
        for label, directory in directories.items()
        if Path(path).is_relative_to(Path(directory))
    }
    return above[max(above)] if above else "unknown"


def check_excluded(rows: list[Row], name: str, max_excluded: float) -> None:
    """Refuse a data set of which too much, or all, is excluded.

    Raises
    ------
    DataError
        The message counts the most common reasons.
    """
    images = [row for row in rows if row["reason"] != NOT_AN_IMAGE]
    excluded = Counter(row["reason"] for row in images if row["status"] == "excluded")
    count = excluded.total()
    if images and count < len(images) and count <= max_excluded * len(images):
        return
    common = ", ".join(f"{reason} {number}" for reason, number in excluded.most_common(SHOWN_REASONS))
    raise DataError(
        f"data set '{name}': {count} of {len(images)} files can't be used ({common or 'no image files found'}); "
        f"allowed is a share of {max_excluded}: check root, source and directories of the data set, "
        f"or raise index.max_excluded in the config"
    )


def _read_all(files: list[ListedFile], dataset: dict[str, Any], salt: bytes, cache: Path, workers: int) -> list[Row]:
    """Read rows, those of unchanged files from the cache of the scan before (which holds keys, no identifiers)."""
    rule = PatientRule(dataset.get("patient_rule") or "patient_id", dataset.get("patient_from") or "", dataset["name"])
    source = "raster" if dataset["source"] == "raster" else "dicom"
    cache_key = key(salt, "cache", settings_digest([code_digest("index"), dataset["root"], source, rule]))
    known = _read_cache(cache, cache_key)
    fresh = [file for file in files if tuple(file) not in known]
    log.info("%s: %d files, %d of them new or changed", dataset["name"], len(files), len(fresh))
    read = partial(read_entry, root=str(resolve_root(dataset["root"])), source=source, salt=salt, rule=rule)
    rows = progress(_map(read, fresh, workers), len(fresh), f"headers of {dataset['name']}")
    known |= {tuple(file): row for file, row in zip(fresh, rows, strict=True)}
    stored = [[list(file), known[tuple(file)]] for file in files]
    write_text(cache, json.dumps({"key": cache_key, "files": stored}))
    return [dict(known[tuple(file)]) for file in files]


def _map(read: "partial[Row]", files: list[ListedFile], workers: int) -> Iterator[Row]:
    if workers == 1 or len(files) < WORTH_PROCESSES:
        yield from map(read, files)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(read, files, chunksize=CHUNK)


def _read_cache(cache: Path, cache_key: str) -> dict[tuple[Any, ...], Row]:
    try:
        stored = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if stored["key"] != cache_key:
        return {}
    return {tuple(file): row for file, row in stored["files"]}


def _mark_duplicates(files: list[ListedFile], rows: list[Row]) -> None:
    """Exclude all but the first usable file (by path) of each image_id, and give the others an id of their own."""
    first: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for file, row in sorted(zip(files, rows, strict=True), key=lambda pair: (pair[1]["status"] != "ok", pair[0].path)):
        image_id = row["image_id"]
        seen[image_id] += 1
        if image_id not in first:
            first[image_id] = file.path
            continue
        reason = "duplicate_content" if not row["study_key"] and not row["transfer_syntax_uid"] else ""
        if row["status"] == "ok":
            row |= {"status": "excluded", "reason": reason or "duplicate_sop_instance_uid"}
        row["image_id"] = f"{image_id}-{seen[image_id]}"


def _tell(rows: list[Row]) -> None:
    counts = Counter(row["reason"] or "ok" for row in rows)
    log.info("files by status: %s", ", ".join(f"{reason} {count}" for reason, count in counts.most_common()))
    told = Counter(row["patient_from"] for row in rows if row["status"] == "ok")
    for source in ("study", "directory"):
        if told[source] and told["patient_id"]:
            log.warning("%d images have no PatientID: their %s stands for the patient", told[source], source)


def _storable(path: str) -> str:
    """Show bytes of a name that are no UTF-8 as escapes, so that the table is."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
