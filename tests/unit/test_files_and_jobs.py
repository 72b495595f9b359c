import errno
import logging
import re
import subprocess
import sys

import pytest

from mammoflow.errors import DataError
from mammoflow.files import whole_file, write_text
from mammoflow.jobs import job, log, progress

HANDED = re.compile(r"with job\(\s*snakemake\.log\[0\],.*?snakemake\.output,?\s*\):", re.DOTALL)


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
        divmod(1, 0)
    assert "ZeroDivisionError" in (tmp_path / "job.log").read_text()


def test_progress_passes_everything_on_and_reports(monkeypatch, caplog):
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr("mammoflow.jobs.time.monotonic", lambda: next(ticks))
    log.propagate = True
    with caplog.at_level(logging.INFO, logger="mammoflow"):
        assert list(progress("abc", 3, "images")) == ["a", "b", "c"]
    assert caplog.messages[-1].startswith("images: 3/3, 0.1/s")


def hidden(cause):
    """Raise a library's error that hides what the system said."""
    try:
        raise cause
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (OSError(errno.ENOSPC, "x", "results/index/a.tsv"), "results/index/a.tsv: the disk is full; free space"),
        (OSError(errno.EROFS, "x", "results/index/a.tsv"), "results/index/a.tsv: the file system is read-only"),
        (PermissionError(errno.EACCES, "x", "/archive/DOE^JANE/1.dcm"), "StorageError: permission is denied"),
    ],
)
def test_what_storage_does_is_told_in_one_message_without_source_paths(tmp_path, capsys, cause, told):
    with pytest.raises(SystemExit) as stop, job(tmp_path / "results" / "job.log", "x"):
        hidden(cause)
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert told in shown
    assert "then run the same command again: nothing finished is lost" in shown
    assert "Traceback" not in shown
    assert "DOE" not in shown


def test_a_disk_that_fills_leaves_nothing_half_written(tmp_path):
    """In a process whose files can't grow beyond 200 kB; each thing it writes is larger."""
    code = """
import contextlib, resource
from pathlib import Path
import numpy as np, torch
from mammoflow.detect.model import save_detector
from mammoflow.detect.trainer import _save
from mammoflow.explain.maps import save_maps
from mammoflow.files import write_text
from mammoflow.images.converting import write_picture
from mammoflow.jobs import job
values = np.random.default_rng(0).random((1000, 1000))
target = Path("results/made/file.png")
target.parent.mkdir(parents=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
kinds = {
    "picture": lambda: write_picture(target, (values * 255).astype(np.uint8)),
    "text": lambda: write_text(target, "1" * 1_000_000),
    "maps": lambda: save_maps(target, {"a": values}),
    "weights": lambda: save_detector(target, {"a": torch.from_numpy(values)}, {}),
    "checkpoint": lambda: _save({"a": torch.from_numpy(values)}, target),
}
for kind, write in kinds.items():
    with contextlib.suppress(SystemExit), job("results/logs/x.log", kind, [str(target)]):
        write()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in told] == ["[picture", "[text", "[maps", "[weights", "[checkpoint"]
    for line in told:
        assert "StorageError: " in line
        assert "the file would be larger than the limit" in line
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "results" / "made").iterdir()) == []
    assert not (tmp_path / "results" / "manifests").exists()


def test_every_rule_hands_its_outputs_to_its_job(root):
    """Without them the job writes no manifest, and `snakemake verify` doesn't see its files."""
    adapters = {path.stem: path.read_text() for path in (root / "workflow" / "scripts").glob("*.py")}
    assert len(adapters) > 20
    assert [name for name, text in adapters.items() if "snakemake.output" in text and not HANDED.search(text)] == []
