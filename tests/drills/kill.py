"""Kill drill: a study is killed (SIGKILL) at random moments, resumed each time, and compared with an undisturbed one.

    uv run envs/locked.py python tests/drills/kill.py --directory /tmp/drill --kills 30

The moments are drawn evenly over the undisturbed run's time. A moment is carried over to the disturbed run by what was
done then: so many jobs finished, and so many seconds since, or the next job's end if that comes first, since a machine
isn't always as fast. All processes of the run die at once, as when a node does.
No job that a run had finished may begin again in a later one, and all files must be those of the undisturbed run.
"""

import argparse
import bisect
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "workflow")]

from small_study import Study, built_in_study, jobs_by_id, new_study  # noqa: E402

from mammoflow.files import write_text  # noqa: E402
from mammoflow.manifest import read_manifest  # noqa: E402
from mammoflow.provenance import file_sha256  # noqa: E402

# what tells of the run, not of the data: its times, and what it keeps to go on from
OF_THE_RUN = ("logs/", "benchmarks/", "manifests/", ".cache/", ".kept/", ".work/", "history.")
EPOCH = re.compile(r"^\[((?:detect|classify)_train [^\]]*)\] epoch (\d+)/", re.MULTILINE)
RESUMED = re.compile(r"^\[((?:detect|classify)_train [^\]]*)\] going on after epoch", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+) ", re.MULTILINE)
RECORD = "undisturbed.json"
POLL_S = 0.05


def results(study: Study) -> dict[str, str]:
    """Digest of every file of the results, by path, without what tells of the run."""
    base = study.directory / "results"
    files = {str(path.relative_to(base)): path for path in base.rglob("*") if path.is_file()}
    return {name: file_sha256(path) for name, path in files.items() if not any(word in name for word in OF_THE_RUN)}


def manifests(study: Study) -> Iterator[Path]:
    return (study.directory / "results" / "manifests").rglob("*.sha256")


def finished_jobs(study: Study) -> list[float]:
    """Times at which the jobs finished, in seconds of the system's clock: those of their manifests."""
    return sorted(path.stat().st_mtime for path in manifests(study))


def half_files(study: Study) -> list[str]:
    """Files that a manifest names and that aren't as it says."""
    wrong = []
    for path in manifests(study):
        for name, digest in read_manifest(path).files.items():
            file = study.directory / name
            if not file.exists() or file_sha256(file) != digest:
                wrong.append(name)
    return wrong


def kill(process: "subprocess.Popen[bytes]") -> int:
    """Kill the process and all below it, none of which sees another die; return how many there were."""
    parent = psutil.Process(process.pid)
    parent.suspend()
    victims = [parent, *parent.children(recursive=True)]
    for victim in victims:
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    return len(victims)


def started_a_job(study: Study, since: float) -> bool:
    return any(path.stat().st_mtime > since for path in (study.directory / "results" / "logs").rglob("*.log"))


def attempt(study: Study, jobs: int, seconds: float, terminal: Path) -> tuple[bool, int]:
    """Resume the study; kill it `seconds` after `jobs` jobs are done and one of this attempt has started.

    It is killed sooner where one job more is done.

    Returns
    -------
    Whether it was killed (False: it had ended before), and how many processes died.
    """
    subprocess.run(study.command("--unlock"), env=study.environment, check=True, capture_output=True)
    began = time.time()
    with terminal.open("wb") as stream:
        process = subprocess.Popen(
            study.command("--rerun-incomplete"), env=study.environment, stdout=stream, stderr=stream
        )
        while process.poll() is None and (jobs or seconds > 0) and not started_a_job(study, began):
            time.sleep(POLL_S)
        while process.poll() is None and len(finished_jobs(study)) < jobs:
            time.sleep(POLL_S)
        until = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < until and len(finished_jobs(study)) <= jobs:
            time.sleep(POLL_S)
        if process.poll() is None:
            return True, kill(process)
        if process.returncode:
            raise SystemExit(f"the resumed run failed:\n{terminal.read_text()[-4000:]}")
        return False, 0


def run_undisturbed(study: Study, make: Callable[[Path, Path], Study]) -> dict[str, Any]:
    """Make and run the study; return its jobs, the times when they were done, and how long it took.

    They are kept beside it, so that a drill that was stopped needn't run it again.
    """
    record = study.directory / RECORD
    if not record.exists():
        shutil.rmtree(study.directory, ignore_errors=True)
        make(ROOT, study.directory)
        began = time.time()
        jobs = study.jobs()
        whole = {
            "jobs": sorted(jobs),
            "took_s": time.time() - began,
            "done_at_s": [moment - began for moment in finished_jobs(study)],
        }
        write_text(record, json.dumps(whole))
    return json.loads(record.read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory",
        type=Path,
        required=True,
        help="where both runs are made; an undisturbed one that ended there counts",
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", choices=["small", "built-in"], default="small", help="small: 12 patients")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    litter_before = leftovers()

    undisturbed, disturbed = Study(options.directory / "undisturbed"), Study(options.directory / "disturbed")
    whole = run_undisturbed(undisturbed, new_study if options.study == "small" else built_in_study)
    all_jobs, done_at = set(whole["jobs"]), whole["done_at_s"]
    print(f"undisturbed: {len(done_at)} jobs in {whole['took_s']:.0f} s", flush=True)
    # from the same code, whatever was edited meanwhile
    shutil.rmtree(disturbed.directory, ignore_errors=True)
    shutil.copytree(
        undisturbed.directory, disturbed.directory, ignore=shutil.ignore_patterns("results", ".snakemake", RECORD)
    )

    random_moments = random.Random(options.seed)
    moments = sorted(random_moments.uniform(0, done_at[-1]) for _ in range(options.kills))
    epochs: Counter[tuple[str, str]] = Counter()
    resumed: Counter[str] = Counter()
    begun: set[str] = set()
    finished: set[str] = set()
    again: list[str] = []
    killed = died = half = 0
    began = time.time()
    for number, moment in enumerate(moments, start=1):
        jobs = bisect.bisect(done_at, moment)
        seconds = moment - (done_at[jobs - 1] if jobs else 0.0)
        terminal = options.directory / f"attempt{number:02d}.txt"
        was_killed, processes = attempt(disturbed, jobs, seconds, terminal)
        killed, died, half = killed + was_killed, died + processes, half + len(half_files(disturbed))
        count(terminal.read_text(), epochs, resumed)
        again += follow(terminal.read_text(), begun, finished)
        done = len(finished_jobs(disturbed))
        print(f"{number}: at {jobs} jobs + {seconds:.1f} s {processes} processes died; {done} jobs done", flush=True)
    terminal = options.directory / "last.txt"
    subprocess.run(disturbed.command("--unlock"), env=disturbed.environment, check=True, capture_output=True)
    last = disturbed.run("--rerun-incomplete")
    terminal.write_text(last.stdout + last.stderr)
    if last.returncode:
        raise SystemExit(f"the last run failed:\n{terminal.read_text()[-4000:]}")
    count(terminal.read_text(), epochs, resumed)
    again += follow(terminal.read_text(), begun, finished)

    expected, found = results(undisturbed), results(disturbed)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    figures = {
        "study": options.study,
        "jobs": len(done_at),
        "undisturbed_s": round(whole["took_s"]),
        "kills": killed,
        "processes_killed": died,
        "disturbed_s": round(time.time() - began),
        "files_compared": len(expected),
        "files_different": different,
        "half_files_taken_for_whole": half,
        "finished_jobs_run_again": again,
        "jobs_never_run": sorted(all_jobs - begun),
        "trainings_resumed": sum(resumed.values()),
        "epochs_needed": len(epochs),
        "epochs_trained": sum(epochs.values()),
        "temporary_directories_left": len(leftovers() - litter_before),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if different or half or again or all_jobs - begun:
        sys.exit(1)


def count(terminal: str, epochs: "Counter[tuple[str, str]]", resumed: "Counter[str]") -> None:
    """Count the epochs that were trained, by training and number, and the trainings that went on from a state."""
    epochs.update(EPOCH.findall(terminal))
    resumed.update(RESUMED.findall(terminal))


def follow(terminal: str, begun: set[str], finished: set[str]) -> list[str]:
    """Add a run's jobs to `begun` and `finished`; name those that it began though an earlier run had finished them."""
    jobs = jobs_by_id(terminal)
    again = sorted(finished & set(jobs.values()))
    begun |= set(jobs.values())
    finished |= {jobs[number] for number in FINISHED.findall(terminal) if number in jobs}
    return again


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("mammoflow-*")}


if __name__ == "__main__":
    main()
