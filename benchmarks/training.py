"""Time of a detector's training step by the shape of its input and its precision, in turns on the same machine.

    uv run envs/locked.py python benchmarks/training.py --json training.json

CPU milliseconds a picture, forward and backward of a batch of four on one thread, random weights, medians over rounds;
ratios are taken inside a round, against the square in float32. `--width` is that of the input beside a height of 640
pixels: 480 suits 95 % of mini-MIAS's breasts.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from ultralytics.cfg import get_cfg

from mammoflow.detect.model import build_model
from mammoflow.detect.trainer import prepared

BATCH, HEIGHT = 4, 640
WAYS = [("square", "float32"), ("breast", "float32"), ("breast", "bfloat16")]


def step(model: Any, width: int) -> float:
    """CPU milliseconds a picture of one forward and backward pass, (BATCH, 1, HEIGHT, width)."""
    batch = {
        "img": torch.rand(BATCH, 1, HEIGHT, width),
        "batch_idx": torch.arange(BATCH, dtype=torch.float32),
        "cls": torch.zeros(BATCH, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.1, 0.1]] * BATCH),
    }
    started = time.process_time()
    model(batch)[0].sum().backward()
    return 1000 * (time.process_time() - started) / BATCH


def main() -> None:
    """Print one row a way and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["yolov5n", "yolov6n"])
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for architecture in arguments.architectures:
        models: dict[str, Any] = {p: prepared(build_model(architecture), p).train() for p in ("float32", "bfloat16")}
        for model in models.values():
            model.args = get_cfg()
        widths = {"square": HEIGHT, "breast": arguments.width}
        rounds = [
            {way: step(models[way[1]], widths[way[0]]) for way in WAYS}
            for _ in range(arguments.rounds + 1)  # the first one warms up
        ][1:]
        for way in WAYS:
            rows.append(
                {
                    "architecture": architecture,
                    "input": way[0],
                    "precision": way[1],
                    "ms": round(statistics.median(each[way] for each in rounds), 1),
                    "ratio_vs_square": round(statistics.median(each[way] / each[WAYS[0]] for each in rounds), 2),
                }
            )
            print(*rows[-1].values(), sep="\t", flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as stream:
            json.dump(rows, stream, indent=1)


if __name__ == "__main__":
    main()
