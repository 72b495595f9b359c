"""The small study on a real SLURM cluster, through a kill, a lost node and a lack of memory, against the local run."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from small_study import SMALL, Study, new_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("MAMMOFLOW_SLURM" not in os.environ, reason="minutes of jobs: MAMMOFLOW_SLURM=1 asks for them"),
]

HERE = Path(__file__).resolve().parent
UNAVAILABLE = 77
# what one detector, one classifier and one protocol of the small study need: half its jobs, every rule but detect_paper
PART = {
    "detect": SMALL["detect"] | {"architectures": ["yolov6n"]},
    "classify": SMALL["classify"] | {"architectures": ["resnet50"]},
    "crops": SMALL["crops"] | {"protocols": ["out_of_fold"]},
}
# more than labels_leakage asks for at first, and less than at its second attempt; resident, and for several samples
BALLAST = "import time\n\nballast = b'1' * 2_600_000_000\ntime.sleep(5)\ndel ballast\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster's environment variables; skips with the reason where there can be none."""
    state = tmp_path_factory.mktemp("cluster")
    up = subprocess.run([HERE / "up.sh", state, "--install"], capture_output=True, text=True, check=False)
    if up.returncode == UNAVAILABLE:
        pytest.skip(up.stdout.strip().splitlines()[-1])
    assert up.returncode == 0, up.stdout + up.stderr
    yield Cluster(state)
    subprocess.run([HERE / "down.sh", state], check=True, capture_output=True)


class Cluster:
    """Commands of the cluster in `state`."""

    def __init__(self, state: Path):
        self.state = state
        path = [str(state / "bin"), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
        self.environment = os.environ | {
            "SLURM_CONF": str(state / "etc" / "slurm.conf"),
            "SNAKEMAKE_SLURM_PARTITIONS": str(HERE / "partitions.yaml"),
            "PATH": os.pathsep.join(path),
        }

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=check)
        return done.stdout

    def ended(self) -> list[dict[str, str]]:
        """Jobs that ended, one entry each time they did: JobId, Name, JobState, Partition, Tres, ..."""
        lines = (self.state / "log" / "jobs.txt").read_text().splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]


@pytest.fixture(scope="module")
def run(root, cluster, tmp_path_factory):
    """The study after its run on the cluster, what the run said, and the ids of the jobs that were disturbed."""
    study = new_study(root, tmp_path_factory.mktemp("on-cluster"))
    study.configure(**PART)
    leakage = study.code / "workflow" / "scripts" / "labels_leakage.py"
    leakage.write_text(leakage.read_text().replace("\n\n", f"\n\n{BALLAST}\n", 1))
    output = study.directory / "run.txt"
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(study.code / "Snakefile"),
        "--directory", str(study.directory), "--workflow-profile", str(root / "workflow" / "profiles" / "ci-slurm"),
        "--configfile", str(study.directory / "study.yaml"),
    ]  # fmt: skip
    environment = cluster.environment | {"PYTHONPATH": str(study.code / "workflow")}
    with output.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            disturbed = disturb(cluster, study, process)
            process.wait(timeout=3600)
        finally:
            end_all(study)
            process.wait()
    text = output.read_text()
    assert process.returncode == 0, text[-6000:]
    return study, text, disturbed


def end_all(study: Study) -> None:
    """Kill what is left of the run: the main process, and what a node that was set down has forgotten."""
    for process in psutil.process_iter(["cmdline"]):
        if str(study.code / "Snakefile") in (process.info["cmdline"] or []):
            process.kill()


def disturb(cluster: Cluster, study: Study, process: subprocess.Popen) -> dict[str, str]:
    """Cancel the first training and set the node of the second down, both in the middle; give their jobs' ids."""
    cancelled = training(cluster, study, process, but=None)
    cluster.ask("scancel", cancelled)
    lost = training(cluster, study, process, but=cancelled)
    cluster.ask("scontrol", "update", "nodename=node2", "state=down", "reason=drill")
    time.sleep(2)
    # its daemon lives, so it may have come back by itself: then there is nothing to resume
    cluster.ask("scontrol", "update", "nodename=node2", "state=resume", check=False)
    return {"cancelled": cancelled, "lost": lost}


def training(cluster: Cluster, study: Study, process: subprocess.Popen, but: str | None) -> str:
    """Wait until a detector's training, other than job `but`, has done an epoch; give its job's id."""
    while process.poll() is None:
        for line in cluster.ask("squeue", "-h", "-t", "R", "-o", "%i %k").splitlines():
            job, comment = line.split()
            fold = re.search(r"rule_detect_train_wildcards_\w+_(\d)$", comment)
            work = study.directory / "results" / "detect" / "yolov6n"
            if fold and job != but and list(work.glob(f"fold{fold[1]}.work/*/weights/last.pt")):
                return job
        time.sleep(0.5)
    pytest.fail("the study ended before a training was seen:\n" + (study.directory / "run.txt").read_text()[-6000:])


def submitted(text: str, rule: str) -> list[str]:
    """Ids of the jobs that were submitted for `rule`, in order."""
    return re.findall(rf"SLURM jobid (\d+) \(log: \S*/rule_{rule}/", text)


def content(study: Study) -> dict[str, str]:
    """Digest of each table, model and crop of the stages; the report counts what the part leaves out, too."""
    results = study.directory / "results"
    skipped = {"benchmarks", "logs", "report", "figures", "history.tsv", "history.csv", "evaluated"}
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("*.tsv", "*.safetensors", "plan.json", "crops/**/*.png")
        for path in results.glob(kind if "/" in kind else f"**/{kind}")
        if not skipped & set(path.relative_to(results).parts) and ".work" not in str(path)
    }


def evaluated(study: Study) -> set[str]:
    """Rows of the tables that hold the maps of all models."""
    tables = (study.directory / "results" / "explain" / "evaluated").rglob("*.tsv")
    return {line for table in tables for line in table.read_text().splitlines()}


def test_the_cluster_makes_what_one_machine_makes(finished_study, run):
    study, _, _ = run
    here, there = content(finished_study), content(study)
    assert len(there) > 60
    assert {name for name in there if there[name] != here.get(name)} == set()
    assert len(evaluated(study)) > 10
    assert evaluated(study) < evaluated(finished_study)
    json.loads((study.directory / "results/report/metrics.json").read_text())
    assert len(list((study.directory / "results/figures").iterdir())) == 24


def test_a_cancelled_training_is_submitted_again_and_goes_on(cluster, run):
    study, text, disturbed = run
    states = {job["JobId"]: job["JobState"] for job in cluster.ended()}
    trained = submitted(text, "detect_train")
    assert states[disturbed["cancelled"]] == "CANCELLED"
    assert len(trained) == 4  # of three folds
    assert [states[job] for job in trained if job != disturbed["cancelled"]] == ["COMPLETED"] * 3
    logs = [study.directory / f"results/logs/detect_train/yolov6n/fold{fold}.log" for fold in range(3)]
    assert sum("going on after epoch" in log.read_text() for log in logs) == 2  # of the cancelled one and the lost one


def test_a_job_of_a_lost_node_is_requeued_under_its_own_id(cluster, run):
    _, _, disturbed = run
    assert [job["JobState"] for job in cluster.ended() if job["JobId"] == disturbed["lost"]] == [
        "NODE_FAIL",
        "COMPLETED",
    ]


def test_a_lack_of_memory_is_answered_with_more(cluster, run):
    _, text, _ = run
    first, second = submitted(text, "labels_leakage")
    ended = {job["JobId"]: job for job in cluster.ended()}
    memory = [int(re.search(r"mem=(\d+)M", ended[job]["Tres"])[1]) for job in (first, second)]
    assert memory == [memory[0], 2 * memory[0]]
    assert ended[first]["JobState"] in ("FAILED", "OUT_OF_MEMORY")
    assert ended[second]["JobState"] == "COMPLETED"


def test_every_other_job_got_along_with_what_it_asked_for(cluster, run):
    _, text, disturbed = run
    failed = {job["JobId"] for job in cluster.ended() if job["JobState"] != "COMPLETED"}
    assert failed == {disturbed["cancelled"], disturbed["lost"], submitted(text, "labels_leakage")[0]}


def test_trainings_sit_on_the_gpu_node_one_at_a_time_and_nothing_else_does(cluster, run):
    _, text, _ = run
    trained = {*submitted(text, "detect_train"), *submitted(text, "classify_train")}
    on_gpu = [job for job in cluster.ended() if job["Partition"] == "gpu"]
    assert {job["JobId"] for job in on_gpu} == trained
    assert {job["NodeList"] for job in on_gpu} == {"node2"}
    for job in trained:
        assert re.search(r"TresPerJob=\S*gpu:1", cluster.ask("scontrol", "show", "job", job))
    times = sorted((job["StartTime"], job["EndTime"]) for job in on_gpu)
    assert all(ended <= started for (_, ended), (started, _) in pairwise(times))
