import sys
import threading

import pytest

from mammoflow.images.unraised import raising_unraisable


class Fails:
    def __del__(self):
        raise ValueError("in a callback")


def test_raised_in_the_thread_that_listens(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(str(report.exc_value)))
    usual = sys.unraisablehook
    with pytest.raises(RuntimeError, match="in a callback"), raising_unraisable():
        Fails()
    assert sys.unraisablehook is usual
    with raising_unraisable():  # another thread's error isn't this one's
        other = threading.Thread(target=Fails)
        other.start()
        other.join()
    assert reported == ["in a callback"]
    Fails()
    assert len(reported) == 2
