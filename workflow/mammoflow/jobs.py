"""What a workflow job shows of itself: a log, progress in it and in the terminal, errors in one message."""

import errno
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mammoflow.errors import MammoflowError, StorageError
from mammoflow.manifest import forget_outputs, record_outputs

T = TypeVar("T")
log = logging.getLogger("mammoflow")

RESULTS = "results"  # below the working directory; paths elsewhere may carry a patient's name and are never shown
# What storage does to a job: no fault of the data, the config or the code
STORAGE_FAULTS = {
    errno.ENOSPC: "the disk is full; free space on it",
    errno.EDQUOT: "the disk quota is used up; free space or have it raised",
    errno.EFBIG: "the file would be larger than the limit (ulimit -f) or the file system allows; raise it",
    errno.EROFS: "the file system is read-only; make it writable",
    errno.EACCES: "permission is denied; give this user the right to read the data and to write results/",
    errno.EPERM: "the operation isn't permitted; give this user the right to read the data and to write results/",
    errno.EIO: "the disk answers with an input/output error; check it",
    errno.ESTALE: "the network file system lost the file; check that it is mounted",
}


class _LogFile(logging.FileHandler):
    """A log that goes quiet where nothing can be written, so that the terminal still tells why."""

    def __init__(self, path: str | Path):
        super().__init__(path, mode="w", encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Stay silent about what storage did; show any other mistake."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file even if its last lines can't be written."""
        with suppress(OSError):
            super().close()


def fold_left_out(wildcards: Mapping[str, str]) -> int | None:
    """Fold that a job of nested crops or rounds goes without (wildcard `without`); None where its rule has none."""
    without = wildcards.get("without")
    return None if without is None else int(without)


@contextmanager
def job(log_path: str | Path, label: str, outputs: Iterable[str] = ()) -> Iterator[None]:
    """Log to `log_path` and to the terminal; end with one message, not a traceback, when the user can mend it.

    Parameters
    ----------
    log_path : file that the job's rule declares as `log`.
    label : short name of the job, shown before each line in the terminal, for example ``images_convert hospital``.
    outputs : files and directories that the rule declares as `output`; their manifest is written at the end (see
        `mammoflow.manifest`).
    """
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"[{label}] %(message)s"))
    log.setLevel(logging.INFO)
    log.handlers = [to_terminal]
    log.propagate = False
    started = time.monotonic()
    try:
        Path(log_path).parent.mkdir(parents=True, exist_ok=True)
        log.addHandler(_LogFile(log_path))
        forget_outputs(log_path)
        yield
        record_outputs(log_path, outputs)
        log.info("done in %.1f s", time.monotonic() - started)
    except Exception as error:
        known = error if isinstance(error, MammoflowError) else storage_fault(error)
        if known is None:
            log.exception("stopped by an error that is not the data's or the config's")
            raise
        log.error("%s: %s", type(known).__name__, known)
        sys.exit(1)
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers = []


def storage_fault(error: BaseException) -> StorageError | None:
    """Return what storage did to the job, when that is why `error` was raised; None otherwise.

    Libraries hide the system's error behind one of their own: it is looked for among the errors that led to `error`,
    and in the words of those written in Rust ("os error 28").
    """
    seen: BaseException | None = error
    while seen is not None:
        told = re.search(r"\(os error (\d+)\)", str(seen))
        number = seen.errno if isinstance(seen, OSError) else int(told[1]) if told else None
        if number in STORAGE_FAULTS:
            path = str(getattr(seen, "filename", None) or "")
            where = f"{path}: " if Path(path).parts[:1] == (RESULTS,) else ""
            return StorageError(
                f"{where}{STORAGE_FAULTS[number]}, then run the same command again: nothing finished is lost"
            )
        seen = seen.__cause__ or seen.__context__
    return None


def progress(items: Iterable[T], total: int, what: str, every_s: float = 5.0) -> Iterator[T]:
    """Pass `items` on and log ``what: 120/4000, 31/s, 125 s left`` every `every_s` seconds."""
    started = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown >= every_s or (count == total and now - started >= every_s):
            shown = now
            rate = count / (now - started)
            log.info("%s: %d/%d, %.1f/s, %.0f s left", what, count, total, rate, (total - count) / rate)
