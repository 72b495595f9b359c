"""A 12-patient study that is run once, whole, and copied for each promise that is tested on it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mammoflow.phantom import generate

# the smallest study in which every stage has work to do
SMALL = {
    "title": "Small study",
    "seed": 1,
    "images": {"train_size": 192},
    "labels": {"folds": 2},
    "detect": {"image_size": 192, "epochs": 30},
    "crops": {"false_frames_per_image": 3.0, "protocols": ["out_of_fold", "paper"]},
    "classify": {"epochs": 2, "crop_size": 32, "validation_share": 0.4, "patience": 2},
    "explain": {
        "detections_per_shard": 2,
        "crops_per_fold": 2,
        "faithfulness": {"images": 1, "methods": ["epsilon"]},
    },
    "report": {"bootstrap": 50},
}
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$(.*?)(?=^\[|^(?:local)?(?:rule|checkpoint) |\Z)", re.M | re.S)


@dataclass(frozen=True)
class Study:
    """A working directory with its own copy of the workflow, so that tests may change files of it."""

    directory: Path

    @property
    def code(self) -> Path:
        return self.directory / "project"

    @property
    def raw(self) -> Path:
        return self.directory / "hospital"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["snakemake", "--snakefile", str(self.code / "Snakefile"), "--directory", str(self.directory)]
        # last, since --configfile takes all that follows
        configs = ["--configfile", str(self.directory / "study.yaml")]
        # the study's own copy of the library, before the installed one
        environment = os.environ | {"PYTHONPATH": str(self.code / "workflow")}
        return subprocess.run(
            [sys.executable, "-m", *command, *arguments, "--cores", "2", *configs],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip

    def jobs(self, *arguments: str) -> set[str]:
        """Run, demand success and return what ran: `rule` or `rule wildcard=value,...`."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return set(_jobs(done.stdout + done.stderr))

    def configure(self, **changes) -> None:
        """Lay `changes` over the study's settings."""
        path = self.directory / "study.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def _jobs(text: str) -> Iterable[str]:
    for rule, body in JOB.findall(text):
        wildcards = re.search(r"^    wildcards: (.*)$", body, re.M)
        if rule != "all":
            yield f"{rule} {wildcards[1].replace(' ', '')}" if wildcards else rule


def _internal(root: str) -> dict:
    return {
        "name": "hospital",
        "role": "internal",
        "source": "dicom",
        "root": root,
        "directories": {"positive": "raw/positive", "negative": "raw/negative"},
        "annotations": [
            {"format": "yolo", "path": "annotations/alpha", "classes": ["malignant", "nipple"]},
            {"format": "voc", "path": "annotations/beta"},
        ],
        "truth": {"format": "table", "path": "truth.tsv"},
        "masks": "masks.tsv",
        "shards": {"annotated": 1, "other": 2},
        "window": {"mode": "dicom", "index": 0},
    }


def _external() -> dict:
    return {
        "name": "outside",
        "role": "external",
        "source": "phantom",
        "root": "results/phantom/outside",
        "directories": {"positive": "raw/positive", "negative": "raw/negative"},
        "annotations": [{"format": "coco", "path": "annotations/epsilon.json"}],
        "truth": {"format": "table", "path": "truth.tsv"},
        "masks": "masks.tsv",
        "shards": {"annotated": 0, "other": 1},
        "window": {"mode": "dicom", "index": 0},
        "phantom": {"patients": 2, "malignant": 1, "benign": 1, "machines": ["epsilon"]},
    }


@pytest.fixture(scope="session")
def finished_study(root, tmp_path_factory) -> Study:
    """The study after one whole run; tests that change something take `study`, a copy."""
    study = new_study(root, tmp_path_factory.mktemp("study"))
    study.jobs()
    return study


def new_study(root: Path, directory: Path) -> Study:
    """The study before its first run, in `directory`: a copy of the workflow, raw files, settings."""
    study = Study(directory)
    study.code.mkdir()
    shutil.copy(root / "Snakefile", study.code)
    shutil.copy(root / "config.yaml", study.code)
    shutil.copytree(root / "workflow", study.code / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "envs", study.code / "envs")
    generate("hospital", study.raw, patients=10, malignant=6, benign=3, machines=["alpha", "beta"], seed=1)
    settings = SMALL | {"datasets": [_internal("hospital"), _external()]}
    (study.directory / "study.yaml").write_text(yaml.safe_dump(settings))
    return study


@pytest.fixture
def study(finished_study, tmp_path) -> Study:
    copy = Study(tmp_path / "study")
    shutil.copytree(finished_study.directory, copy.directory, copy_function=shutil.copy2)
    # absolute paths of the first directory are part of what Snakemake compares; keep the copy's the same
    return copy
