"""What goes wrong in a hospital: results altered, a run killed, two at once, a full disk, a source that is gone."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow


def output(done):
    return done.stdout + done.stderr


def test_verify_names_what_was_altered_or_lost_and_changes_nothing(lab):
    assert re.search(r"\d{3,} files of \d{2,} jobs are as they were written", output(lab.run("verify")))

    results = lab.directory / "results"
    crop = min((results / "crops").rglob("*.png"))
    label = min((results / "labels" / "hospital" / "annotated-000").rglob("*.txt"))
    overlay = min((results / "explain").rglob("*.png"))
    maps = min((results / "explain" / "detections").rglob("*.npz"))
    picture = min((results / "images" / "hospital" / "annotated-000" / "train").glob("*.png"))
    kept = {path: path.read_bytes() for path in (crop, label, overlay, maps, picture)}
    for path in (crop, overlay, maps):
        path.write_bytes(kept[path][:-1] + b"!")
    for path in (label, picture):
        path.unlink()

    done = lab.run("verify")
    assert done.returncode != 0
    told = set(re.findall(r"\[verify\] (altered|lost|added): (\S+)", output(done)))
    assert told == {("altered", str(path.relative_to(lab.directory))) for path in (crop, overlay, maps)} | {
        ("lost", str(path.relative_to(lab.directory))) for path in (label, picture)
    }
    assert "DataError: 5 files are not as their jobs left them" in output(done)
    assert "Traceback" not in output(done)
    assert not label.exists()
    for path, content in kept.items():
        path.write_bytes(content)


def wait_for(what, seconds=120):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_second_run_at_once_stops_and_a_killed_one_goes_on_where_it_was(study):
    """Of six figures one at least is made before the kill; the resumed run makes the others and nothing else."""
    names = ("fig04", "fig05", "fig06", "fig09", "fig10", "fig11")
    targets = [f"results/figures/{name}.png" for name in names]
    for name in names:
        for kind in ("png", "pdf"):
            (study.directory / "results" / "figures" / f"{name}.{kind}").unlink()
    terminal = study.directory / "killed.txt"

    with terminal.open("w") as stream:
        run = subprocess.Popen(study.command(*targets), env=study.environment, stdout=stream, stderr=stream)
        wait_for(lambda: list((study.directory / ".snakemake" / "locks").glob("*")))
        second = study.run(*targets)
        wait_for(lambda: "Finished jobid" in terminal.read_text())
        process = psutil.Process(run.pid)
        process.suspend()
        for victim in [*process.children(recursive=True), process]:
            victim.send_signal(signal.SIGKILL)
        run.wait()

    assert second.returncode != 0
    assert "Directory cannot be locked" in output(second)
    assert "Traceback" not in output(second)
    finished = terminal.read_text().count("Finished jobid")
    assert 1 <= finished < len(names)

    assert "--unlock" in output(study.run(*targets))
    assert study.run("--unlock").returncode == 0
    again = study.jobs(*targets)
    assert again < {f"report_figure figure={name}" for name in names}
    assert len(again) == len(names) - finished
    assert study.jobs("--dry-run") <= {"report_page"}
    assert output(study.run("verify")).count("are as they were written") >= 1


@pytest.fixture
def small_disk():
    """Mount a disk of so many bytes on a directory; skips where that isn't permitted."""
    mounted = []

    def mount(directory: Path, size: int) -> None:
        options = f"size={size}"
        if directory in mounted:
            options += ",remount"
        directory.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"this system lets this user mount no file system: {done.stderr.strip()}")
        if directory not in mounted:
            mounted.append(directory)

    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    yield mount
    for directory in mounted:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize(
    ("place", "size", "target"),
    [
        ("results/index", 16 << 10, "results/index/hospital.tsv"),
        ("results/images/hospital", 200 << 10, "results/images/hospital/other-000.tsv"),
        ("results/detect/yolov6n", 4 << 20, "results/detect/yolov6n/fold0/model.safetensors"),
        ("results/report", 32 << 10, "results/report/metrics.json"),
    ],
    ids=["index", "images", "training", "report"],
)
def test_a_full_disk_is_told_in_one_message_and_the_job_resumes(study, small_disk, place, size, target):
    """The stage's directory lies on a disk of its own, which is too small, and then large enough."""
    directory = study.directory / place
    small_disk(directory, size)
    (directory / "kept").touch()  # else Snakemake would try to remove the empty directory, which is a mount point
    done = study.run(target)
    assert done.returncode != 0
    assert "StorageError: " in output(done)
    assert "the disk is full; free space on it, then run the same command again" in output(done)
    assert "Traceback" not in output(done)
    left = [path for path in directory.rglob("*") if path.is_file() and ".cache" not in path.parts]
    assert [path.name for path in left if "partial" in path.name] == []
    assert not (study.directory / target).exists()
    if place == "results/detect/yolov6n":  # a training of its own length; the same goes for its resumption (unit tests)
        return
    small_disk(directory, 256 << 20)
    assert study.run(target).returncode == 0
    assert (study.directory / target).exists()


def test_read_only_results_and_a_vanished_source_stop_the_run_before_it_changes_anything(study, small_disk):
    figure = study.directory / "results" / "figures" / "fig05.png"
    results = figure.parents[1]
    subprocess.run(["mount", "--bind", results, results], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", results], check=True)
        done = study.run(str(figure.relative_to(study.directory)), "--forcerun", "report_figure")
    finally:
        subprocess.run(["umount", results], check=True)
    assert done.returncode != 0
    assert "Write-protected output files" in output(done)
    assert "Traceback" not in output(done)

    study.raw.rename(study.raw.with_name("elsewhere"))
    done = study.run()
    assert done.returncode != 0
    assert "ConfigError: config: root of data set `hospital` is hospital, which is no directory" in output(done)
    assert "Traceback" not in output(done)

    study.raw.with_name("elsewhere").rename(study.raw)
    assert study.jobs("--dry-run") == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('title: !!python/object/apply:os.system ["touch pwned"]', "not valid JSON or YAML"),
        ('datasets: [{name: "$(touch pwned)", role: internal, source: dicom}]', "ConfigError"),
        ('detect: {architectures: ["../../x; touch pwned"]}', "ConfigError"),
        ("datasets: [{name: ../../etc, role: internal, source: dicom}]", "ConfigError"),
    ],
    ids=["yaml tag", "shell in a name", "shell in a model", "path in a name"],
)
def test_a_hostile_config_is_refused_unread(lab, tmp_path, text, message):
    (tmp_path / "hostile.yaml").write_text(text)
    done = subprocess.run(
        [*lab.command("--dry-run"), str(tmp_path / "hostile.yaml")],
        capture_output=True, text=True, env=lab.environment, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert message in output(done)
    assert "Traceback" not in output(done)
    assert not list(lab.directory.rglob("pwned"))
