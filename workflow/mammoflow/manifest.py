"""What a job wrote, file by file: the list by which `snakemake verify` finds what was altered or lost since.

Snakemake notices a missing output when it is a target or when a job must read it, but no other one, no file inside a
directory, and no changed byte.
A job's manifest lies where its log lies, with `manifests` for `logs`, and is no output itself: it goes when the job
starts and comes when it has succeeded. It is what `sha256sum` writes and `sha256sum --check` reads, and names the
directories among the outputs in comments.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mammoflow.errors import DataError
from mammoflow.files import write_text
from mammoflow.provenance import file_sha256

DIRECTORY, SUFFIX = "manifests", ".sha256"
COMMENT = "# directory: "
ENGINES_OWN = ".snakemake_timestamp"  # left by Snakemake in each directory when its job has ended


class Manifest(NamedTuple):
    """Digests by path of a job's files, in the order of its outputs, and the directories among the outputs."""

    files: dict[str, str]
    directories: list[str]


def manifest_path(log_path: str | Path) -> Path:
    """Path of the manifest of the job that logs to `log_path`: ``results/manifests/....sha256``."""
    first, _, *rest = Path(log_path).with_suffix(SUFFIX).parts
    return Path(first, DIRECTORY, *rest)


def forget_outputs(log_path: str | Path) -> None:
    """Remove the manifest of an earlier run of the job."""
    manifest_path(log_path).unlink(missing_ok=True)


def record_outputs(log_path: str | Path, outputs: Iterable[str]) -> None:
    """Write the manifest of the job's outputs, paths relative to the working directory; without outputs there is none.

    Raises
    ------
    DataError
        An output is missing.
    """
    lines = [line for output in outputs for line in _lines(output)]
    if lines:
        write_text(manifest_path(log_path), "".join(f"{line}\n" for line in lines))


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest.

    Raises
    ------
    DataError
        The file can't be read, or a line isn't of a manifest.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read as a manifest: {error}; remove it, its job wrote another") from error
    files: dict[str, str] = {}
    directories = []
    for number, line in enumerate(lines, start=1):
        digest, gap, name = line.partition("  ")
        if line.startswith(COMMENT):
            directories.append(line.removeprefix(COMMENT))
        elif gap and name and len(digest) == 64:
            files[name] = digest
        else:
            raise DataError(f"{path}, line {number}: expected a SHA-256, two spaces and a path; remove the file")
    return Manifest(files, directories)


def files_below(directory: str | Path) -> Iterator[str]:
    """Yield the path of every file of a job below `directory`, sorted within each directory."""
    for parent, directories, names in os.walk(directory):
        directories.sort()
        yield from (os.path.join(parent, name) for name in sorted(names) if name != ENGINES_OWN)


def _lines(output: str) -> Iterator[str]:
    if os.path.isdir(output):
        yield f"{COMMENT}{output}"
        yield from (f"{file_sha256(path)}  {path}" for path in files_below(output))
        return
    try:
        yield f"{file_sha256(output)}  {output}"
    except FileNotFoundError as error:
        raise DataError(f"{output}: the job has ended without writing it; run it again") from error
