"""Errors inside compiled callbacks, which Python can only report, raised all the same."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Reports:
    """Python's hook for unraisable errors while any thread listens; those of other threads go the usual way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listening = 0
        self.usual = sys.unraisablehook
        self.mine = threading.local()

    def __call__(self, report: Any) -> None:
        heard = getattr(self.mine, "heard", None)
        if heard is None:
            self.usual(report)
        else:
            heard.append(str(report.exc_value))

    @contextmanager
    def heard(self) -> Iterator[list[str]]:
        with self.lock:
            self.listening += 1
            if self.listening == 1:
                self.usual, sys.unraisablehook = sys.unraisablehook, self
        self.mine.heard = []
        try:
            yield self.mine.heard
        finally:
            self.mine.heard = None
            with self.lock:
                self.listening -= 1
                if not self.listening:
                    sys.unraisablehook = self.usual


_reports = _Reports()


@contextmanager
def raising_unraisable() -> Iterator[None]:
    """Raise RuntimeError at the end of the block for an error that this thread could only report inside it."""
    with _reports.heard() as heard:
        yield
    if heard:
        raise RuntimeError(heard[0])
