"""Core hours and disk of a study by its number of images, from rates measured here: the table of docs/cluster.md.

    uv run envs/locked.py python benchmarks/costs.py --json costs.json

Rates are CPU seconds on one core, one thread, of a process that has loaded its libraries; the least of `--rounds`.

    convert    all that rule images_convert does with one uncompressed picture of 12.8 megapixels, phantom tissue
    train      forward, backward and a step of AdamW, batch 2, on a canvas of the breast's shape, random weights
    detect     forward on one such canvas
    job        twice what `snakemake -n` takes for the study: on SLURM each job parses the workflow twice

Studies are counted as: half of an annotated patient's views show a lesion, the others are trained on as background
(`detect.background: annotated`); a training sees all folds but one, or, where crops are nested, all but two.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from ultralytics.cfg import get_cfg

from mammoflow.detect.model import build_model
from mammoflow.images.converting import ShardImage, Target, convert_image

PROJECT = Path(__file__).parent.parent
PICTURE = (4096, 3125)  # 12.8 megapixels
CANVAS = (640, 384)  # 0.6 of the square: a breast's box is 0.57 of a mini-MIAS film in the median
IMAGES = {"format": "png", "masters": False, "train_size": 640, "breast_crop": True, "breast_margin": 0.05,
          "same_side": True}  # fmt: skip
# images, images with a lesion that an expert framed, shards
STUDIES = [
    {"images": 4_000, "annotated": 800, "shards": {"annotated": 2, "other": 6}},
    {"images": 94_000, "annotated": 5_000, "shards": {"annotated": 16, "other": 112}},
]
ARCHITECTURES = ["yolov5n", "yolov6n"]
MINER = "yolov6n"  # as shipped: whose detections give crops
FOLDS, EPOCHS = 5, 100


def main() -> None:
    """Measure the rates, print them and each study's costs, and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rates = measured(asked.rounds)
    studies = [costs(study, rates) for study in STUDIES]
    for told in (rates, *studies):
        print(json.dumps(told))
    if asked.json:
        asked.json.write_text(json.dumps({"rates": rates, "studies": studies}, indent=1) + "\n")


def measured(rounds: int) -> dict[str, float]:
    """Return CPU seconds: a picture converted, a picture trained on and detected in by architecture; bytes a pixel."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        target = Target("costs", {"mode": "dicom", "index": 0}, IMAGES, root, mask_labels=False)
        image = ShardImage("picture", "p", "unknown", "", dicom_file(root / "picture.dcm"), "")
        rates = {"convert": least(partial(convert_image, image, target=target), rounds)}
        rates["png_bytes_a_pixel"] = (root / "picture.png").stat().st_size / (PICTURE[0] * PICTURE[1])
    for name in ARCHITECTURES:
        rates[f"train {name}"] = least(training_step(name), rounds) / 2
        rates[f"detect {name}"] = least(detection(name), rounds)
    return {name: round(rate, 3) for name, rate in rates.items()}


def least(call: Callable[[], Any], rounds: int) -> float:
    """Return CPU seconds of a call, the least of `rounds` after one that doesn't count."""
    taken = []
    for _ in range(rounds + 1):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return min(taken[1:])


def dicom_file(path: Path) -> Path:
    """Write half an ellipse of noisy tissue on black air, 12 bits, uncompressed."""
    rows, columns = PICTURE
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    inside = np.clip(1 - (x / (0.55 * columns)) ** 2 - ((y - rows / 2) / (0.42 * rows)) ** 2, 0, None)
    noise = np.random.default_rng(0).normal(0, 15, PICTURE)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = (
        uid.DigitalMammographyXRayImageStorageForPresentation
    )
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.Rows, header.Columns = PICTURE
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.WindowCenter, header.WindowWidth = 2000, 3000
    tissue = np.where(inside > 0, 800 + 2000 * inside + noise, 0).clip(0, 4095).astype("<u2")
    header.add_new("PixelData", "OW", tissue.tobytes())
    header.save_as(path, enforce_file_format=True)
    return path


def training_step(architecture: str) -> Callable[[], Any]:
    """Return a step of AdamW on two pictures with a frame each."""
    model = build_model(architecture).train()
    model.args = get_cfg()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = {
        "img": torch.rand(2, channels(model), *CANVAS),
        "cls": torch.zeros(2, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.1, 0.1]] * 2),
        "batch_idx": torch.tensor([0.0, 1.0]),
    }

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch)[0].sum().backward()
        optimizer.step()

    return step


def detection(architecture: str) -> Callable[[], Any]:
    """Return a forward pass of one picture."""
    model = build_model(architecture).eval()
    picture = torch.rand(1, channels(model), *CANVAS)
    return torch.inference_mode()(lambda: model(picture))


def channels(model: torch.nn.Module) -> int:
    """Return how many channels a model reads."""
    return next(model.parameters()).shape[1]


def planning(shards: dict[str, int]) -> tuple[int, float]:
    """Return the jobs of a study with these shards, and the CPU seconds of the `snakemake -n` that counts them."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("positive", "negative", "annotations"):
            Path(directory, name).mkdir()
        data = {
            "name": "hospital", "role": "internal", "source": "dicom", "root": directory, "shards": shards,
            "directories": {"positive": "positive", "negative": "negative"},
            "annotations": [{"format": "voc", "path": "annotations"}], "window": {"mode": "dicom", "index": 0},
        }  # fmt: skip
        settings = {"datasets": [data], "labels": {"folds": FOLDS}, "detect": {"architectures": ARCHITECTURES}}
        config = Path(directory, "study.yaml")
        config.write_text(json.dumps(settings), "utf-8")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", "-q", "rules", "--snakefile", str(PROJECT / "Snakefile"),
             "--directory", directory, "--configfile", str(config)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = int(re.search(r"^total +(\d+)$", done.stdout + done.stderr, re.MULTILINE)[1])
    return jobs, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def costs(study: dict[str, Any], rates: dict[str, float]) -> dict[str, Any]:
    """Return jobs, core hours, and GB of pictures of a study."""
    images, jobs, parsing = study["images"], *planning(study["shards"])
    trained = 2 * study["annotated"] * (FOLDS - 1) / FOLDS
    of_training = {name: trained * EPOCHS * rates[f"train {name}"] / 3600 for name in ARCHITECTURES}
    nested = trained * (FOLDS - 2) / (FOLDS - 1) * EPOCHS * rates[f"train {MINER}"] / 3600
    # an annotated image is judged by the one model that never saw it; so is every other of an internal data set
    detecting = images * sum(rates[f"detect {name}"] for name in ARCHITECTURES)
    return study | {
        "jobs": jobs,
        "jobs_h": round(jobs * 2 * parsing / 3600, 2),
        "convert_h": round(images * rates["convert"] / 3600, 2),
        **{f"train_{name}_h_each": round(hours, 1) for name, hours in of_training.items()},
        "train_h": round(FOLDS * sum(of_training.values())),
        "nested_train_h_each": round(nested, 1),
        "nested_train_h": round(FOLDS * (FOLDS - 1) / 2 * nested),
        "detect_h": round(detecting / 3600, 2),
        "nested_detect_h": round(images * (FOLDS - 1) * rates[f"detect {MINER}"] / 3600, 2),
        "pictures_gb": round(images * PICTURE[0] * PICTURE[1] * rates["png_bytes_a_pixel"] / 1e9, 1),
    }


if __name__ == "__main__":
    main()
