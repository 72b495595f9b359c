"""Comparing the files in results/ with the manifests that the jobs left."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mammoflow.errors import DataError
from mammoflow.jobs import progress
from mammoflow.manifest import SUFFIX, Manifest, files_below, read_manifest
from mammoflow.provenance import file_sha256

log = logging.getLogger("mammoflow")
ALTERED, LOST, ADDED = "altered", "lost", "added"


def verify(manifests: str | Path, workers: int = 1) -> None:
    """Name every output that was altered, lost or added since its job wrote it. Nothing is changed.

    Parameters
    ----------
    manifests : directory of the manifests, ``results/manifests``; their paths are relative to the working directory.
    workers : threads that read.

    Raises
    ------
    DataError
        A file isn't as its job left it; each was logged, with how to make it again. Or there are no manifests.
    """
    listed = sorted(Path(manifests).rglob(f"*{SUFFIX}"))
    if not listed:
        raise DataError(f"{manifests}: holds no manifest; run the study, then verify it")
    files = wrong = 0
    again = []
    for path in progress(listed, len(listed), "jobs verified"):
        manifest = read_manifest(path)
        faults = list(compare(manifest, workers))
        for file, fault in faults:
            log.error("%s: %s", fault, file)
        if faults:
            again.append(next(iter([*manifest.files, *manifest.directories])))
        files, wrong = files + len(manifest.files), wrong + len(faults)
    if wrong:
        raise DataError(
            f"{wrong} files are not as their jobs left them, named above. To make them again: "
            f"snakemake --cores all --force {' '.join(again)}, then run the study: what reads them follows. Of results "
            f"that you removed on purpose, remove the manifests below {manifests}"
        )
    log.info("%d files of %d jobs are as they were written", files, len(listed))


def compare(manifest: Manifest, workers: int = 1) -> Iterator[tuple[str, str]]:
    """Yield path and fault (``altered``, ``lost`` or ``added``) of each file that isn't as in `manifest`."""
    with ThreadPoolExecutor(workers) as pool:
        faults = pool.map(_fault, manifest.files, manifest.files.values())
        yield from ((path, fault) for path, fault in zip(manifest.files, faults, strict=True) if fault)
    for directory in manifest.directories:
        if not os.path.isdir(directory):
            yield directory, LOST
        yield from ((path, ADDED) for path in files_below(directory) if path not in manifest.files)


def _fault(path: str, sha256: str) -> str:
    try:
        return "" if file_sha256(path) == sha256 else ALTERED
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return LOST
