import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from mammoflow.errors import DataError
from mammoflow.jobs import job
from mammoflow.manifest import manifest_path
from mammoflow.verify import verify

LOG = "results/logs/images_convert/hospital/other-000.log"
MANIFESTS = "results/manifests"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A job's outputs, a table and a directory with a picture in a subdirectory, and their manifest."""
    monkeypatch.chdir(tmp_path)
    shard = tmp_path / "results" / "images" / "hospital" / "other-000"
    with job(LOG, "images_convert", ["results/images/hospital/other-000.tsv", "results/images/hospital/other-000"]):
        (shard / "train").mkdir(parents=True)
        (shard / "a.png").write_bytes(b"picture a")
        (shard / "train" / "a.png").write_bytes(b"small a")
        shard.with_suffix(".tsv").write_text("table")
    return shard


def content(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_manifest_is_what_sha256sum_reads(results):
    digests = [hashlib.sha256(text).hexdigest() for text in (b"table", b"picture a", b"small a")]
    path = Path("results/manifests/images_convert/hospital/other-000.sha256")
    assert path.read_text().splitlines() == [
        f"{digests[0]}  results/images/hospital/other-000.tsv",
        "# directory: results/images/hospital/other-000",
        f"{digests[1]}  results/images/hospital/other-000/a.png",
        f"{digests[2]}  results/images/hospital/other-000/train/a.png",
    ]
    check = ["sha256sum", "--check", "--strict", "--quiet", str(path)]
    assert subprocess.run(check, check=False).returncode == 0
    alter_same_size(results)
    assert subprocess.run(check, check=False, capture_output=True).returncode == 1


def test_untouched_results_are_right(results):
    (results / ".snakemake_timestamp").touch()  # Snakemake's own, made after the job
    before = content(results.parents[2])
    verify(MANIFESTS, workers=2)
    assert content(results.parents[2]) == before


def alter_same_size(shard):
    (shard / "a.png").write_bytes(b"picture b")


def lose(shard):
    (shard / "train" / "a.png").unlink()


def add(shard):
    (shard / "train" / ".b.1.partial.png").write_bytes(b"half")


def alter_table(shard):
    shard.with_suffix(".tsv").write_text("table\n")


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (alter_same_size, ["altered: results/images/hospital/other-000/a.png"]),
        (lose, ["lost: results/images/hospital/other-000/train/a.png"]),
        (add, ["added: results/images/hospital/other-000/train/.b.1.partial.png"]),
        (alter_table, ["altered: results/images/hospital/other-000.tsv"]),
        (
            shutil.rmtree,
            [
                "lost: results/images/hospital/other-000/a.png",
                "lost: results/images/hospital/other-000/train/a.png",
                "lost: results/images/hospital/other-000",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_changed_is_named_and_nothing_is_mended(results, capsys, change, faults):
    change(results)
    before = content(results.parents[2])
    with pytest.raises(SystemExit), job("results/logs/verify.log", "verify"):
        verify(MANIFESTS)
    told = [line.removeprefix("[verify] ") for line in capsys.readouterr().err.splitlines()]
    assert told[: len(faults)] == faults
    assert told[len(faults)].startswith(f"DataError: {len(faults)} files are not as their jobs left them")
    assert "snakemake --cores all --force results/images/hospital/other-000.tsv, then run" in told[len(faults)]
    after = content(results.parents[2])
    assert {path: after[path] for path in before} == before


def test_a_failed_job_leaves_no_manifest(results):
    with pytest.raises(SystemExit), job(LOG, "images_convert", ["results/images/hospital/other-000.tsv"]):
        raise DataError("a broken file")
    assert not manifest_path(LOG).exists()


def test_without_manifests_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(DataError, match="holds no manifest; run the study"):
        verify(tmp_path)


@pytest.mark.parametrize("content", [b"not a manifest\n", b"\xff\xfe", b"00  short.png\n"])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "job.sha256").write_bytes(content)
    with pytest.raises(DataError, match=r"job\.sha256.*remove"):
        verify(tmp_path)


def test_an_output_that_a_job_forgot_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit), job(LOG, "images_convert", ["results/none.tsv"]):
        pass
    assert "results/none.tsv: the job has ended without writing it" in capsys.readouterr().err
