"""What a workflow job shows of itself: a log, progress in it and in the terminal, errors in one message."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mammoflow.errors import MammoflowError

T = TypeVar("T")
log = logging.getLogger("mammoflow")


@contextmanager
def job(log_path: str | Path, label: str) -> Iterator[None]:
    """Log to `log_path` and to the terminal; end with one message, not a traceback, when the user can mend it.

    Parameters
    ----------
    log_path : file that the job's rule declares as `log`.
    label : short name of the job, shown before each line in the terminal, for example ``images_convert hospital``.
    """
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log_path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"[{label}] %(message)s"))
    log.setLevel(logging.INFO)
    log.handlers = [to_file, to_terminal]
    log.propagate = False
    started = time.monotonic()
    try:
        yield
        log.info("done in %.1f s", time.monotonic() - started)
    except MammoflowError as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    except Exception:
        log.exception("stopped by an error that is not the data's or the config's")
        raise
    finally:
        to_file.close()
        log.handlers = []


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
