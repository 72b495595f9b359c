"""Which files lie below a data set's root, without opening one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mammoflow.errors import ConfigError
from mammoflow.provenance import text_digest


class ListedFile(NamedTuple):
    """A file as the file system shows it: `path` below the root (``/`` between parts), bytes, and time in ns."""

    path: str
    size: int
    mtime_ns: int


def resolve_root(root: str, path: str | None = None) -> Path:
    """Return `root`, or `path` below it, with ``$VARIABLES`` and ``~`` expanded.

    Raises
    ------
    ConfigError
        Nothing is there.
    """
    expanded = os.path.expanduser(os.path.expandvars(root))
    full = Path(expanded, path) if path else Path(expanded)
    if not full.exists():
        asked = f"{root}/{path}" if path else root
        unset = " (a $VARIABLE in it isn't set)" if "$" in expanded else ""
        raise ConfigError(
            f"'{asked}' doesn't exist{unset}: give the data set's directory as datasets: root in the config, or by "
            f"--config 'roots={{NAME: DIR}}'; directories and annotation paths are relative to it"
        )
    return full


def list_files(root: str, paths: list[str] | None = None) -> list[ListedFile]:
    """List all files below `root`, or below (or at) each of `paths` in it, once each, sorted by path.

    Links are followed; a link that leads back to a directory it lies in is not.

    Raises
    ------
    ConfigError
        `root` or one of `paths` doesn't exist.
    """
    base = resolve_root(root)
    starts = [resolve_root(root, path) for path in paths] if paths else [base]
    found = {file.path: file for start in starts for file in _below(start, os.path.relpath(start, base))}
    return [found[path] for path in sorted(found)]


def listing_digest(root: str, path: str | None = None) -> str:
    """Digest of names, sizes and times of all files below `root`, or below (or at) `path` in it.

    Parameters
    ----------
    root : directory; ``$VARIABLES`` and ``~`` are expanded.
    path : directory or file below `root`.

    Returns
    -------
    16 hexadecimal digits; they change when a file is added, removed, renamed, resized or written again.

    Raises
    ------
    ConfigError
        The directory or file doesn't exist.
    """
    files = list_files(root, [path] if path else None)
    return text_digest(*(f"{file.path}\0{file.size}\0{file.mtime_ns}" for file in files))


def _below(start: Path, relative: str) -> Iterator[ListedFile]:
    if not start.is_dir():
        status = start.stat()
        yield ListedFile(relative, status.st_size, status.st_mtime_ns)
        return
    prefix = "" if relative == "." else f"{relative}/"
    yield from _walk(str(start), prefix, ())


def _walk(directory: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[ListedFile]:
    status = os.stat(directory)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, here))
                continue
            # a link to nowhere is a file that can't be read, and says so later
            status = entry.stat(follow_symlinks=entry.is_file())
            yield ListedFile(prefix + entry.name, status.st_size, status.st_mtime_ns)
