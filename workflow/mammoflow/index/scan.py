"""Scanning a data set: every file below its root becomes a row of the index."""

import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mammoflow import tables
from mammoflow.errors import DataError
from mammoflow.files import write_text
from mammoflow.index.entries import IDENTIFIERS, PatientRule, Row, content_digest, read_entry
from mammoflow.index.headers import NEVER_USED
from mammoflow.index.identities import read_identities, write_identities
from mammoflow.index.keys import key, secret
from mammoflow.index.listing import ListedFile, list_files, resolve_root
from mammoflow.jobs import progress
from mammoflow.provenance import code_digest, settings_digest

log = logging.getLogger("mammoflow")

CHUNK = 64  # files a worker takes at once
WORTH_PROCESSES = 1000  # files; fewer are read before other processes have started
NOT_AN_IMAGE = "not_an_image"
NO_PERMISSION = "no_permission"
SHOWN_REASONS = 4
FileKey = tuple[str, int, int]  # path, size, mtime_ns


def scan(
    *,
    dataset: dict[str, Any],
    secret_file: str,
    seed: int,
    settings: dict[str, Any],
    table: str | Path,
    sources: str | Path,
    identities: str | None = None,
    workers: int = 1,
) -> None:
    """Write the index of a data set and its private table of paths.

    Rows are remembered in ``.cache`` beside the table by path, size and modification time; only new and changed files
    are opened.

    Parameters
    ----------
    dataset : settings of the data set: `name`, `source` (``dicom``, ``phantom`` or ``raster``), `root`, `directories`
        (label to directory below the root; only these are read when there are any), and optionally `patient_rule` and
        `patient_from` (see `mammoflow.index.entries.PatientRule`).
    secret_file, seed : what salts the keys, see `mammoflow.index.keys.secret`.
    settings : `policy` (kind of object to ``use`` or ``exclude``, see `mammoflow.index.headers.kinds`), `max_pixels`
        (of a usable image), `max_excluded` (largest share of files that can't be used though wanted, 0..1)
        and `verify` (``time``, or ``content``: files are also known by the SHA-256 of their bytes).
    table : file to write, see `mammoflow.tables.INDEX`; rows are sorted by image_id.
    sources : file to write, see `mammoflow.tables.SOURCES`.
    identities : directory outside results/ for the map from keys to original ids, or None; see
        `mammoflow.index.identities`.
    workers : processes that read; the tables don't depend on it.

    Raises
    ------
    ConfigError
        A directory, the secret file or the map can't be used.
    DataError
        No file can be used, or more than `max_excluded` can't.
    """
    salt = secret(secret_file, seed)
    directories = {label: path for label, path in dataset["directories"].items() if path}
    files = list_files(dataset["root"], list(directories.values()))
    cache = Path(table).parent / ".cache" / f"{dataset['name']}.json"
    known = read_identities(identities, dataset["name"]) if identities else None
    rows = _read_all(files, dataset, salt, cache, settings["verify"] == "content", known, workers)
    for row in rows:
        _apply_policy(row, settings["policy"], settings["max_pixels"])
    _mark_duplicates(files, rows)
    for file, row in zip(files, rows, strict=True):
        row |= {"dataset": dataset["name"], "directory_label": directory_label(file.path, directories)}
        row |= {"size": file.size, "mtime_ns": file.mtime_ns, "path": _storable(file.path)}
    _tell(rows)
    check_excluded(rows, dataset["name"], settings["max_excluded"])
    rows.sort(key=lambda row: row["image_id"])
    tables.write(tables.INDEX, tables.from_rows(tables.INDEX, rows), table)
    tables.write(tables.SOURCES, tables.from_rows(tables.SOURCES, rows), sources)
    if identities:
        write_identities(identities, dataset["name"], rows)


def _apply_policy(row: Row, policy: dict[str, str], max_pixels: int) -> None:
    """Exclude a row whose kind isn't wanted, or whose picture is larger than a usable one can be."""
    unwanted = (kind for kind in row["kind"].split() if kind in NEVER_USED or policy[kind] == "exclude")
    reason = next(unwanted, "")
    if not reason and row["status"] == "ok" and row["rows"] * row["columns"] > max_pixels:
        reason = "too_many_pixels"
    if reason:
        row |= {"status": "excluded", "reason": reason}


def directory_label(path: str, directories: dict[str, str]) -> str:
    """Return what the directories say of the file at `path` below the root: the longest directory above it decides."""
    above = {
        len(Path(directory).parts): label
        for label, directory in directories.items()
        if Path(path).is_relative_to(Path(directory))
    }
    return above[max(above)] if above else "unknown"


def check_excluded(rows: list[Row], name: str, max_excluded: float) -> None:
    """Refuse a data set of which too much, or all, is excluded; what the policy leaves out is no fault.

    Raises
    ------
    DataError
        The message counts the most common reasons.
    """
    images = [row for row in rows if row["reason"] != NOT_AN_IMAGE]
    usable = sum(row["status"] == "ok" for row in images)
    left_out = [(row["reason"], row["reason"] in row["kind"].split()) for row in images if row["status"] != "ok"]
    excluded = Counter(reason for reason, planned in left_out if not planned)
    if usable and excluded.total() <= max_excluded * (usable + excluded.total()):
        return
    if not usable:
        excluded = Counter(reason for reason, _ in left_out)
    count = excluded.total()
    common = ", ".join(f"{reason} {number}" for reason, number in excluded.most_common(SHOWN_REASONS))
    raise DataError(
        f"data set '{name}': {count} of {usable + count} files can't be used ({common or 'no image files found'}); "
        f"allowed is a share of {max_excluded}: check root, source and directories of the data set, "
        f"or raise index.max_excluded or change index.policy in the config"
    )


def _read_all(
    files: list[ListedFile],
    dataset: dict[str, Any],
    salt: bytes,
    cache: Path,
    by_content: bool,
    identities: dict[str, Row] | None,
    workers: int,
) -> list[Row]:
    """Read rows, those of unchanged files from the cache of the scan before (which holds keys, no identifiers)."""
    rule = PatientRule(dataset.get("patient_rule") or "patient_id", dataset.get("patient_from") or "", dataset["name"])
    source = "raster" if dataset["source"] == "raster" else "dicom"
    cache_key = key(salt, "cache", settings_digest([code_digest("index"), dataset["root"], source, rule, by_content]))
    root = str(resolve_root(dataset["root"]))
    remembered = _read_cache(cache, cache_key)
    known = _unchanged(files, remembered, root if by_content else "", workers)
    if identities is not None:
        known = {
            file: row | identities[file[0]] for file, row in known.items() if _is_mapped(row, identities.get(file[0]))
        }
    fresh = [file for file in files if _key(file) not in known]
    log.info("%s: %d files, %d of them new or changed", dataset["name"], len(files), len(fresh))
    read = partial(read_entry, root=root, source=source, salt=salt, rule=rule, with_digest=by_content)
    rows = progress(_map(read, fresh, workers), len(fresh), f"headers of {dataset['name']}")
    known |= {_key(file): row for file, row in zip(fresh, rows, strict=True)}
    found = [known[_key(file)] for file in files]
    if fresh or len(remembered) != len(files):
        _write_cache(cache, cache_key, files, found)
    return [dict(row) for row in found]


def _key(file: ListedFile | list[Any]) -> FileKey:
    path, size, mtime_ns = file
    return path, size, mtime_ns


def _is_mapped(row: Row, identity: Row | None) -> bool:
    """Whether the map already holds the original ids of a remembered row, under the same keys."""
    return identity is not None and all(row[name] == identity[name] for name in ("patient_key", "study_key"))


def _unchanged(files: list[ListedFile], remembered: dict[FileKey, Row], root: str, workers: int) -> dict[FileKey, Row]:
    """Keep the remembered rows of files that are as they were; where `root` is given, by their content too."""
    same = [file for file in files if _key(file) in remembered]
    checked = [file for file in same if root and remembered[_key(file)]["content_digest"]]
    digests = progress(_map(partial(content_digest, root=root), checked, workers), len(checked), "contents")
    changed = {
        file
        for file, digest in zip(checked, digests, strict=True)
        if digest != remembered[_key(file)]["content_digest"]
    }
    return {_key(file): remembered[_key(file)] for file in same if file not in changed}


def _map(work: Callable[[ListedFile], Any], files: list[ListedFile], workers: int) -> Iterator[Any]:
    if workers == 1 or len(files) < WORTH_PROCESSES:
        yield from map(work, files)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, files, chunksize=CHUNK)


def _read_cache(cache: Path, cache_key: str) -> dict[FileKey, Row]:
    try:
        stored = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict) or stored.get("key") != cache_key:
        return {}
    columns = stored["columns"]
    return {_key(file): dict(zip(columns, values, strict=True)) for file, values in stored["files"]}


def _write_cache(cache: Path, cache_key: str, files: list[ListedFile], rows: list[Row]) -> None:
    columns = [name for name in next(iter(rows), {}) if name not in IDENTIFIERS]
    stored = [
        [file, [row[name] for name in columns]]
        for file, row in zip(files, rows, strict=True)
        if row["reason"] != NO_PERMISSION  # may be granted without a new modification time
    ]
    write_text(cache, json.dumps({"key": cache_key, "columns": columns, "files": stored}, separators=(",", ":")))


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
