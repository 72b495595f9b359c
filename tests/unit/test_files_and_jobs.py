import logging

import pytest

from mammoflow.errors import DataError
from mammoflow.files import whole_file, write_text
from mammoflow.jobs import job, log, progress


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    target = tmp_path / "new" / "table.tsv"
    write_text(target, "old")

    def fail_half_way():
        with whole_file(target) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_users_error_ends_in_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, job(tmp_path / "log" / "job.log", "crops_cut"):
        raise DataError("crops.tsv: empty")
    assert stop.value.code == 1
    assert "[crops_cut] DataError: crops.tsv: empty" in capsys.readouterr().err
    assert "Traceback" not in (tmp_path / "log" / "job.log").read_text()


def test_a_programmers_error_keeps_its_traceback_in_the_log(tmp_path):
    with pytest.raises(ZeroDivisionError), job(tmp_path / "job.log", "x"):
        1 / 0  # noqa: B018
    assert "ZeroDivisionError" in (tmp_path / "job.log").read_text()


def test_progress_passes_everything_on_and_reports(monkeypatch, caplog):
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr("mammoflow.jobs.time.monotonic", lambda: next(ticks))
    log.propagate = True
    with caplog.at_level(logging.INFO, logger="mammoflow"):
        assert list(progress("abc", 3, "images")) == ["a", "b", "c"]
    assert caplog.messages[-1].startswith("images: 3/3, 0.1/s")
