"""Images a second of detection, against the `yolo predict` command on the same weights and pictures in one run.

    uv run envs/locked.py python benchmarks/detect.py --json results.json [--device cuda] [--image-size 1280]

Both read the same PNG files. The command's time is the slope between a run on some and a run on all pictures, so that
its start, import and loading don't count; ours is measured after loading too. The pictures' sides are multiples of 32
and the long one is the input's, so that neither pads: Ultralytics pads with grey, this project with air. They are
smooth noise, or drawn breasts where `--weights` are given. A GPU runs half precision, as in a study, and float32, as
the command does, both without TF32, so that frames can be compared.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from mammoflow import boxes
from mammoflow.detect import offline
from mammoflow.detect.backend import for_inference, with_backend
from mammoflow.detect.infer import Frames, forward
from mammoflow.detect.model import Detector, build_model, load_detector
from mammoflow.detect.shard import AHEAD, BATCH, CHECKED, Judge, judge_images, prefetched, read_picture
from mammoflow.phantom.pictures import draw_pictures

SETTINGS = {"min_score": 0.05, "nms_iou": 0.4, "test_time": None, "ensemble_iou": 0.5}
SHARE = 0.995  # of the anchors that random weights give no frame
EQUAL = 0.99  # of the frames of both: rounding may swap two that suppress each other
YOLO = """
import torch
torch.backends.cudnn.allow_tf32 = False
from ultralytics.cfg import entrypoint  # the command `yolo`
entrypoint()
"""
DRAWN = 8  # drawn breasts, each in many shades: drawing takes a second
ROUNDS = 3  # of each, taking turns; medians are reported


def main() -> None:
    """Run both, print the rows and write them."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        draw = _drawn if arguments.weights else _noise
        pictures = _pictures(root / "pictures", draw(arguments.images, arguments.image_size))
        detector = _detector(arguments, read_picture(pictures[0]))
        checkpoint = root / "model.pt"
        torch.save({"model": detector.model, "train_args": {}}, checkpoint)
        running = _backends(detector, [read_picture(path) for path in pictures[:CHECKED]], arguments)
        theirs, found = _command(root, checkpoint, pictures, arguments)
        rows = []
        times: dict[str, list[float]] = {name: [] for name in running}
        commands = [theirs]
        for number in range(ROUNDS):
            for name, one in running.items():
                speed, ours = _ours(one, pictures, arguments)
                times[name].append(speed)
                if number == 0:
                    matched = [same for a, b in zip(ours, found, strict=True) for same in _matched(a, b)]
                    rows.append({"backend": name, "device": arguments.device, "image_size": arguments.image_size,
                                 "architecture": detector.architecture,
                                 "boxes_equal": bool(matched) and float(np.mean(matched)) >= EQUAL,
                                 "boxes_matched": round(float(np.mean(matched)), 4) if matched else None,
                                 "boxes": sum(len(frames.scores) for frames in ours)})  # fmt: skip
            if number:
                commands.append(_command(root, checkpoint, pictures, arguments)[0])
    for row in rows:
        row["images_per_s"] = round(median(times[row["backend"]]), 2)
        row["yolo_predict_images_per_s"] = round(median(commands), 2)
        row["ratio_vs_yolo_predict"] = round(row["images_per_s"] / row["yolo_predict_images_per_s"], 2)
        print(row)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a detector of detect_train; random weights when not given")
    parser.add_argument("--architecture", default="yolov5n", help="of random weights")
    parser.add_argument("--image-size", type=int, default=640, help="pixels, a multiple of 64")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    parser.add_argument("--readers", type=int, default=4, help="threads that read pictures for a GPU, as in a study")
    parser.add_argument("--json", help="file to write")
    arguments = parser.parse_args()
    offline.go_offline()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    return arguments


def _detector(arguments: argparse.Namespace, picture: np.ndarray) -> Detector:
    """Load a detector, or make one whose random weights answer to the picture."""
    if arguments.weights:
        return replace(load_detector(arguments.weights, arguments.device), image_size=arguments.image_size)
    torch.manual_seed(0)
    model = build_model(arguments.architecture).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics of the picture, so that the features differ from place to place
    with torch.no_grad():
        model(torch.from_numpy(picture)[None, None].float() / 255)
    for branch in model.model[-1].cv3:
        torch.nn.init.normal_(branch[-1].weight, std=0.05)
        torch.nn.init.constant_(branch[-1].bias, 0.0)
    model = model.eval().requires_grad_(False)
    detector = Detector(model, arguments.architecture, ("lesion", "nipple"), arguments.image_size, 0, "0" * 16)
    highest = float(torch.quantile(forward(detector, [picture])[0, 4:].amax(0), SHARE))
    for branch in model.model[-1].cv3:  # so that a picture has some frames, as of a trained detector
        branch[-1].bias += float(np.log(SETTINGS["min_score"] / (1 - SETTINGS["min_score"]))) - float(
            np.log(highest / (1 - highest))
        )
    return replace(detector, model=model.to(arguments.device))


def _pictures(directory: Path, pictures: Iterable[np.ndarray]) -> list[str]:
    """Write pictures; return their paths."""
    directory.mkdir()
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(str(directory / f"{number:04d}.png"))
        cv2.imwrite(paths[-1], picture)
    return paths


def _noise(count: int, size: int) -> Iterator[np.ndarray]:
    """Smooth noise of a breast's proportions: sides of `size` and about 0.6 `size` pixels."""
    random = np.random.default_rng(0)
    for _ in range(count):
        coarse = random.integers(0, 256, (size // 8, size * 19 // 32 // 8), dtype=np.uint8)
        yield cv2.resize(coarse, (size * 19 // 32 // 32 * 32, size), interpolation=cv2.INTER_CUBIC)


def _drawn(count: int, size: int) -> Iterator[np.ndarray]:
    """Drawn breasts of the same size as `_noise`."""
    shape = (size * 19 // 32 // 32 * 32, size)
    drawn = [cv2.resize(one, shape, interpolation=cv2.INTER_AREA) for one, _ in draw_pictures(0, DRAWN, size)]
    for number in range(count):
        gain = 1 - 0.5 * (number // DRAWN) * DRAWN / count
        yield np.rint(drawn[number % DRAWN] * gain).astype(np.uint8)


def _backends(detector: Detector, check: list[np.ndarray], arguments: argparse.Namespace) -> dict[str, Detector]:
    """Return what is to be timed, by name; each has judged the check pictures once."""
    if arguments.device == "cuda":
        whole = for_inference(replace(detector, model=copy.deepcopy(detector.model).cpu()))
        running = {
            "torch, float16": with_backend(detector, "torch", arguments.threads, check, SETTINGS),
            "torch, float32": replace(whole, model=whole.model.to(arguments.device)),
        }
    else:
        names = ("torch", "onnxruntime")
        running = {name: with_backend(detector, name, arguments.threads, check, SETTINGS) for name in names}
    for one in running.values():
        judge_images(Judge((one,), 0, True), check * (BATCH // CHECKED), SETTINGS)
    return running


def _ours(detector: Detector, pictures: list[str], arguments: argparse.Namespace) -> tuple[float, list[Frames]]:
    judge, found = Judge((detector,), 0, True), []
    started = time.perf_counter()
    stream = prefetched(read_picture, pictures, AHEAD, 1 if arguments.device == "cpu" else arguments.readers)
    for start in range(0, len(pictures), BATCH):
        found += judge_images(judge, [next(stream) for _ in pictures[start : start + BATCH]], SETTINGS)
    return len(pictures) / (time.perf_counter() - started), found


def _command(
    root: Path, checkpoint: Path, pictures: list[str], arguments: argparse.Namespace
) -> tuple[float, list[Frames]]:
    """Images a second of the command between a quarter of the pictures and all, and its frames of all."""
    few = max(1, len(pictures) // 4)
    took = []
    for number, paths in enumerate((pictures[:few], pictures)):
        listed, project = root / f"{number}.txt", root / f"predict{number}"
        listed.write_text("\n".join(paths))
        started = time.perf_counter()
        subprocess.run(
            [
                sys.executable, "-c", YOLO, "predict", f"model={checkpoint}", f"source={listed}",
                f"imgsz={arguments.image_size}", f"conf={SETTINGS['min_score']}", f"iou={SETTINGS['nms_iou']}",
                f"device={0 if arguments.device == 'cuda' else 'cpu'}", "save=False", "save_txt=True",
                "save_conf=True", f"project={project}", "name=run", "exist_ok=True", "max_det=100", "verbose=False",
            ],
            check=True, capture_output=True, text=True, cwd=root,
        )  # fmt: skip
        took.append(time.perf_counter() - started)
    labels = root / "predict1" / "run" / "labels"
    return (len(pictures) - few) / (took[1] - took[0]), [_read(labels, path) for path in pictures]


def _matched(first: Frames, second: Frames) -> list[bool]:
    """Whether each frame of either list has its like in the other: half a pixel, a thousandth of score."""
    near = np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=2) <= 0.5
    near &= np.abs(first.scores[:, None] - second.scores[None]) <= 0.001
    near &= first.classes[:, None] == second.classes[None]
    return [*near.any(axis=1), *near.any(axis=0)]


def _read(labels: Path, picture: str) -> Frames:
    file = labels / f"{Path(picture).stem}.txt"
    rows = np.array([line.split() for line in file.read_text().splitlines()] if file.exists() else [], float)
    rows = rows.reshape(-1, 6)
    height, width = cv2.imread(picture, cv2.IMREAD_GRAYSCALE).shape
    return Frames(boxes.from_yolo(rows[:, 1:5], width, height), rows[:, 5], rows[:, 0].astype(np.int64))


if __name__ == "__main__":
    main()
