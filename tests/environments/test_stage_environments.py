"""Every stage's smallest job in an environment of that stage's packages alone."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mammoflow.phantom import generate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "MAMMOFLOW_ENVIRONMENTS" not in os.environ, reason="MAMMOFLOW_ENVIRONMENTS=1 builds all of them"
    ),
]

HERE = Path(__file__).resolve().parent
# one job a stage; `outside` is the smaller data set. What the shard plan needs has a run of its own: a checkpoint that
# runs again makes Snakemake forget what else it was to force
BEFORE_PLAN = {
    "phantom": "results/phantom/outside/manifest.tsv",
    "index": "results/index/outside.tsv",
    "labels": "results/labels/outside/lesions.tsv",
}
AFTER_PLAN = {
    "images": "results/images/outside/other-000.tsv",
    "detect": "results/detect/yolov6n/outside/other-000.tsv",
    "crops": "results/crops/out_of_fold/outside/other-000.tsv",
    "mining": "results/mining/yolov6n/round1/frames/hospital/other-000.tsv",
    "classify": "results/classify/out_of_fold/resnet50/outside.tsv",
    "explain": "results/explain/detections/yolov6n/outside/other-000.tsv",
    "anatomy": "results/anatomy/yolov6n/outside/other-000.tsv",
    "report": "results/figures/fig09.png",
    "diagnose": "results/diagnose/findings.json",
}


@pytest.fixture(scope="module")
def environments(root, tmp_path_factory):
    """Directory with one environment a stage, each with the lock's packages of its file and nothing else."""
    generator = runpy.run_path(str(root / "envs" / "generate.py"))
    lock = (root / "requirements.lock").read_text()
    directory = tmp_path_factory.mktemp("environments")
    for stage in generator["STAGES"]:
        # torch without CUDA is in PyTorch's own index only; the CUDA build, which computes on a CPU too, stands for it
        pins = generator["packages"](generator["variants"](stage)[-1], lock).values()
        listed = directory / f"{stage}.txt"
        listed.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
        environment = directory / stage
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, environment], check=True)
        install = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--python",
            environment / "bin" / "python",
        ]
        subprocess.run([*install, "-r", listed], check=True)
    return directory


def test_each_stage_runs_with_its_own_packages_alone(study, environments, tmp_path, monkeypatch):
    scripts = study.code / "workflow" / "scripts"
    shutil.copytree(scripts, environments / "adapters")
    shutil.copy(HERE / "job.py", environments)
    (environments / "ran").mkdir()
    for adapter in scripts.glob("*.py"):
        shutil.copy(HERE / "forward.py", adapter)
    monkeypatch.setenv("STAGE_ENVIRONMENTS", str(environments))
    negative = sorted((study.directory / "results/phantom/outside/raw").rglob("*.dcm"))[0].parent
    study.jobs("--rerun-triggers", "mtime", "--force", *BEFORE_PLAN.values())
    study.jobs("--config", f"study={negative}", "--rerun-triggers", "mtime", "--force", *AFTER_PLAN.values())
    generate("hospital", tmp_path / "held", patients=1, malignant=1, benign=0, machines=["epsilon"], seed=9)
    monkeypatch.setenv("MAMMOFLOW_PREDICT_ROOT", str(tmp_path / "held"))
    study.jobs("predict", "--rerun-triggers", "mtime")
    study.jobs("verify", "--rerun-triggers", "mtime")
    ran = {re.split(r"[_.]", path.name)[0] for path in (environments / "ran").iterdir()}
    assert ran == {path.stem for path in environments.glob("*.txt")}
