"""How planning and indexing grow with the number of images: studies of tiny real DICOM files, many patients.

    uv run envs/locked.py python benchmarks/scale.py --sizes 1000 10000 94000 --json scale.json

Each study has four views a patient, the same shards at every size, one frame for every twentieth patient. Index and
labels run for real. The outputs behind the shard plan are fabricated (empty files) and taken over by ``snakemake
--touch``, which records the same metadata as a run; so the no-op and the plans cover the whole workflow, but nothing is
decoded or trained.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

PROJECT = Path(__file__).parent.parent
VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
SIDE = 16  # pixels: 512 bytes a picture
PER_FRAME = 20  # patients a frame
NUMBER = "{:08d}"
MARKS = {"patient": NUMBER.format(11111111), "image": NUMBER.format(22222222)}  # replaced in a template's bytes
OUTPUT = re.compile(r"^    output: (.*)$", re.M)


def main() -> None:
    """Measure the sizes asked for, print a line each, and write them as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000, 94000], help="numbers of images")
    parser.add_argument("--shards", type=int, default=64, help="shards of patients without frames, besides 4 with")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--dir", type=Path, help="where to make the studies; a temporary directory when not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mammoflow-scale-") as temporary:
        rows = [measure(asked.dir or Path(temporary), size, asked.shards) for size in asked.sizes]
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(directory: Path, images: int, shards: int) -> dict[str, Any]:
    """Make a study of `images` images and measure it; wall and CPU times in s, memory (peak resident set) in MB."""
    study = directory / f"images-{images}"
    row: dict[str, Any] = {"images": images, "shards": shards + 4}
    started = time.monotonic()
    make_study(study, images, shards)
    row["made_s"] = time.monotonic() - started
    row |= named("planning", snakemake(study, "-n", "all"))
    snakemake(study, "results/labels/plan.json")
    row |= named("index_cold", of_job(study))
    row["jobs"] = len(fabricate(study))
    snakemake(study, "--touch", "all")
    row |= named("no_op", snakemake(study, "all", expect="Nothing to be done"))
    write_patient(study, template(), images // len(VIEWS), 1)
    row |= named("one_added", snakemake(study, "-n", "all", expect="index_scan"))
    snakemake(study, "results/labels/plan.json")
    row |= named("index_warm", of_job(study))
    row |= named("behind_one_added", snakemake(study, "-n", "all", expect="images_convert"))
    shown = " ".join(f"{name}={value:.4g}" for name, value in row.items())
    sys.stdout.write(f"{shown}\n")
    sys.stdout.flush()
    return row


def named(what: str, numbers: dict[str, float]) -> dict[str, float]:
    """Put what was measured before the names of its numbers."""
    return {f"{what}_{name}": value for name, value in numbers.items()}


def make_study(study: Path, images: int, shards: int) -> None:
    """Write the files, the frames and the config of a study."""
    content = template()
    for patient in range(images // len(VIEWS)):
        write_patient(study, content, patient, len(VIEWS))
    framed = range(0, images // len(VIEWS), PER_FRAME)
    with (study / "frames.tsv").open("w") as stream:
        rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
        rows.writerow(["path", "finding", "pathology", "lesion_type", "x1", "y1", "x2", "y2"])
        rows.writerows(
            [path_of(patient, 0), "lesion", "malignant", "mass_spiculated", 2, 2, 8, 8] for patient in framed
        )
    dataset = {
        "name": "many", "role": "internal", "source": "dicom", "root": str(study),
        "directories": {"positive": "raw/positive", "negative": "raw/negative"},
        "annotations": [{"format": "table", "path": "frames.tsv"}], "shards": {"annotated": 4, "other": shards},
        "window": {"mode": "none"},
    }  # fmt: skip
    (study / "study.yaml").write_text(yaml.safe_dump({"title": "Scale", "datasets": [dataset]}))


def path_of(patient: int, view: int) -> str:
    """Path of an image below the root; a thousand patients a directory."""
    label = "negative" if patient % PER_FRAME else "positive"
    return f"raw/{label}/{patient // 1000:03d}/{NUMBER.format(patient)}-{view}.dcm"


def template() -> list[bytes]:
    """One DICOM file a view, whose numbers of patient and image are `MARKS`."""
    return [_template(side, view) for side, view in VIEWS]


def _template(side: str, view: str) -> bytes:
    header = Dataset()
    header.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    header.SOPInstanceUID = f"1.2.826.0.1.{MARKS['image'].replace('0', '9')}"
    header.StudyInstanceUID = f"1.2.826.0.2.{MARKS['patient'].replace('0', '9')}"
    header.PatientID, header.Modality, header.PresentationIntentType = MARKS["patient"], "MG", "FOR PRESENTATION"
    header.Manufacturer, header.ImageLaterality, header.ViewPosition = "Scale", side, view
    header.ImagerPixelSpacing = [0.07, 0.07]
    header.Rows = header.Columns = SIDE
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PixelData = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE), dtype=np.uint16).tobytes()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        header.save_as(file.name, enforce_file_format=True)
        return Path(file.name).read_bytes()


def write_patient(study: Path, content: list[bytes], patient: int, views: int) -> None:
    """Write a patient's first `views` images."""
    for view in range(views):
        path = study / path_of(patient, view)
        path.parent.mkdir(parents=True, exist_ok=True)
        # numbers of a UID mustn't begin with 0
        numbers = {"patient": 10_000_000 + patient, "image": 10_000_000 + patient * len(VIEWS) + view}
        data = content[view]
        for name, mark in MARKS.items():
            data = data.replace(mark.encode(), str(numbers[name]).encode())
        path.write_bytes(data)


def snakemake(study: Path, *arguments: str, expect: str = "") -> dict[str, float]:
    """Run Snakemake in `study`; return its wall time, CPU time with that of its jobs, and peak memory."""
    done = output_of(study, *arguments)
    if expect not in done["output"]:
        raise SystemExit(f"snakemake {' '.join(arguments)} didn't say '{expect}':\n{done['output'][-3000:]}")
    return {"s": done["s"], "cpu_s": done["cpu_s"], "mb": done["mb"]}


def output_of(study: Path, *arguments: str) -> dict[str, Any]:
    """Run Snakemake in `study` and demand success; return times, peak memory and what it printed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--directory", str(study)]
    command += [*arguments, "--cores", "2", "--configfile", str(study / "study.yaml")]
    with tempfile.TemporaryFile("w+") as printed:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        raise SystemExit(f"snakemake {' '.join(arguments)} failed:\n{output[-5000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"s": seconds, "cpu_s": cpu, "mb": usage.ru_maxrss / 1024, "output": output}


def of_job(study: Path) -> dict[str, float]:
    """Return times and memory of the last index job, its processes together, by its own benchmark file."""
    with (study / "results/benchmarks/index_scan/many.tsv").open() as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    return {"s": float(row["s"]), "cpu_s": float(row["cpu_time"]), "mb": float(row["max_rss"])}


def fabricate(study: Path) -> list[str]:
    """Make empty outputs of all jobs behind the shard plan; return one line of outputs a job."""
    jobs = OUTPUT.findall(output_of(study, "-n", "all")["output"])
    for path in (study / name.split(" (")[0] for line in jobs for name in line.split(", ")):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    return jobs


if __name__ == "__main__":
    main()
