"""A 12-patient study that is run once, whole, and copied for each promise that is tested on it; for drills, too."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pydicom
import pytest
import yaml

from mammoflow.phantom import generate

# the smallest study in which every stage has work to do
SMALL = {
    "title": "Small study",
    "seed": 1,
    "images": {"train_size": 192},
    "labels": {"folds": 3},
    "detect": {"image_size": 192, "epochs": 30, "batch": 2, "min_score": 0.0001},
    "crops": {"false_frames_per_image": 3.0, "protocols": ["out_of_fold", "paper"]},
    "classify": {"epochs": 2, "crop_size": 32, "validation_folds": 2, "patience": 2},
    "explain": {
        "detections_per_shard": 2,
        "crops_per_fold": 2,
        "faithfulness": {"images": 1, "methods": ["epsilon"]},
    },
    "report": {"bootstrap": 50},
}
JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$(.*?)(?=^\[|^(?:local)?(?:rule|checkpoint) |\Z)", re.M | re.S)
PLANTED = "PLANTED"  # in every tag of the raw files that may identify somebody
PLANTED_BIRTH_DATE = "18971231"
HOSTILE = "PLANTED $(touch pwned) `touch pwned` {shard} 'a' \"b\" ; touch pwned & #.dcm"  # a file's name
WRITTEN_AT = 1_700_000_000  # of all raw files: their times are in the index, and two studies must be comparable
IDENTIFYING = [
    "PatientName", "PatientBirthName", "OtherPatientNames", "OtherPatientIDs", "PatientAddress", "PatientComments",
    "PatientMotherBirthName", "PatientTelephoneNumbers", "MilitaryRank", "EthnicGroup", "Occupation",
    "MedicalRecordLocator", "IssuerOfPatientID", "InstitutionName", "InstitutionAddress",
    "InstitutionalDepartmentName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "AccessionNumber", "StudyID",
    "StationName", "DeviceSerialNumber", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
    "PaddleDescription", "RequestedProcedureDescription", "PerformedProcedureStepID",
]  # fmt: skip


@cache
def without_network() -> list[str]:
    """Command that runs another one in a network namespace without any route; empty where that isn't permitted."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
        ):
            return command
    return []


@dataclass(frozen=True)
class Study:
    """A working directory with its own copy of the workflow, so that tests may change files of it.

    `all_jobs` are the jobs of its first, whole run.
    """

    directory: Path
    all_jobs: set[str] = field(default_factory=set)

    @property
    def code(self) -> Path:
        return self.directory / "project"

    @property
    def raw(self) -> Path:
        return self.directory / "hospital"

    @property
    def environment(self) -> dict[str, str]:
        # the study's own copy of the library, before the installed one
        return os.environ | {"PYTHONPATH": str(self.code / "workflow")}

    def command(self, *arguments: str) -> list[str]:
        """What the study's user would give, without a network where the system permits it."""
        snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(self.code / "Snakefile")]
        where = ["--directory", str(self.directory), "--cores", "2"]
        # last, since --configfile takes all that follows
        return [*without_network(), *snakemake, *arguments, *where, "--configfile", str(self.directory / "study.yaml")]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=self.environment, check=False
        )

    def jobs(self, *arguments: str) -> set[str]:
        """Run, demand success and return what ran: `rule` or `rule wildcard=value,...`."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return set(jobs_in(done.stdout + done.stderr))

    def configure(self, **changes) -> None:
        """Lay `changes` over the study's settings."""
        path = self.directory / "study.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def jobs_in(text: str) -> Iterable[str]:
    """Name the jobs that a run's terminal shows, `rule` or `rule wildcard=value,...`."""
    return jobs_by_id(text).values()


def jobs_by_id(text: str) -> dict[str, str]:
    """Name the jobs that a run's terminal shows, by the number that Snakemake gave each in this run."""
    jobs = {}
    for rule, body in JOB.findall(text):
        wildcards = re.search(r"^    wildcards: (.*)$", body, re.M)
        number = re.search(r"^    jobid: (\d+)$", body, re.M)[1]
        if rule != "all":
            jobs[number] = f"{rule} {wildcards[1].replace(' ', '')}" if wildcards else rule
    return jobs


def plant_identities(raw: Path) -> None:
    """Write PLANTED into every identifying tag of the files below `raw`, in a sequence and in a private tag."""
    for path in raw.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        for tag in IDENTIFYING:
            setattr(dataset, tag, PLANTED)
        dataset.PatientBirthDate = PLANTED_BIRTH_DATE
        dataset.RequestAttributesSequence = [pydicom.Dataset()]
        dataset.RequestAttributesSequence[0].RequestedProcedureID = PLANTED
        dataset.private_block(0x0011, PLANTED, create=True).add_new(0x01, "LO", PLANTED)
        dataset.save_as(path)


def name_one_hostile(hospital: Path) -> None:
    """Give a negative file that no annotation names the name HOSTILE, in truth and masks, too."""
    annotated = {path.stem for path in (hospital / "annotations").rglob("*.*")}
    path = min(path for path in (hospital / "raw" / "negative").rglob("*.dcm") if path.stem not in annotated)
    path.rename(path.with_name(HOSTILE))
    for truth in (hospital / "truth.tsv", hospital / "masks.tsv"):
        truth.write_text(truth.read_text().replace(path.name, HOSTILE))


def new_study(root: Path, directory: Path) -> Study:
    """The study before its first run, in `directory`: a copy of the workflow, raw files, settings."""
    study = built_in_study(root, directory)
    generate("hospital", study.raw, patients=10, malignant=6, benign=3, machines=["alpha", "beta"], seed=1)
    plant_identities(study.raw / "raw")
    name_one_hostile(study.raw)
    for path in study.raw.rglob("*"):
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
    settings = SMALL | {"datasets": [_internal("hospital"), _external()]}
    (study.directory / "study.yaml").write_text(yaml.safe_dump(settings))
    return study


def built_in_study(root: Path, directory: Path) -> Study:
    """Lay out the study of config.yaml as shipped, in the same way."""
    study = Study(directory)
    study.code.mkdir(parents=True)
    shutil.copy(root / "Snakefile", study.code)
    shutil.copy(root / "config.yaml", study.code)
    shutil.copytree(root / "workflow", study.code / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "envs", study.code / "envs")
    shutil.copytree(root / "profiles", study.code / "profiles")
    (study.directory / "study.yaml").write_text("{}\n")
    return study


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
    return Study(study.directory, study.jobs())


@pytest.fixture
def study(finished_study, tmp_path) -> Study:
    return copied(finished_study, tmp_path / "study")


@pytest.fixture(scope="module")
def lab(finished_study, tmp_path_factory) -> Study:
    """A copy for tests that put back what they change and run nothing."""
    return copied(finished_study, tmp_path_factory.mktemp("lab") / "study")


def copied(study: Study, directory: Path) -> Study:
    """Copy a finished study with its times, which Snakemake compares; models, most of its bytes, are linked."""

    def copy(source: str, target: str) -> None:
        if source.endswith(".safetensors"):
            os.link(source, target)  # a job that writes one removes the old one first
        else:
            shutil.copy2(source, target)

    shutil.copytree(study.directory, directory, copy_function=copy)
    return Study(directory, study.all_jobs)
