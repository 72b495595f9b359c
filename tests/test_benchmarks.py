"""The benchmarks run and write the rows that their documentation names; what they measure is for idle machines."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.slow


def _rows(directory: Path, name: str, *arguments: str) -> list[dict[str, Any]]:
    rows = directory / "rows.json"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json", str(rows), *arguments]
    subprocess.run(command, check=True, cwd=directory, capture_output=True, timeout=300)
    return json.loads(rows.read_text("utf-8"))


def test_dicom(tmp_path: Path) -> None:
    small = ["--images", "2", "--rows", "512", "--columns", "384", "--rounds", "1"]
    rows = _rows(tmp_path, "dicom", *small, "--workers", "2", "--syntax", "Explicit")
    found = {row["method"]: row for row in rows}
    assert {"plain", "render+write", "stage", "stage+workers", "floor"} <= set(found)
    named = {"syntax", "method", "cpu_ms", "wall_ms", "peak_mib", "ratio_vs_plain", "pixels_equal"}
    assert all(named <= set(row) for row in rows)
    assert all(found[method]["pixels_equal"] for method in ("render+write", "stage", "stage+workers"))
    assert found["stage+workers"]["times_one_worker"] > 0


def test_detect(tmp_path: Path) -> None:
    rows = _rows(tmp_path, "detect", "--images", "4", "--image-size", "320")
    named = {"backend", "device", "image_size", "images_per_s", "ratio_vs_yolo_predict", "boxes_equal"}
    assert [row["backend"] for row in rows] == ["torch", "onnxruntime"]
    assert all(named <= set(row) and row["boxes"] > 0 for row in rows)


def test_explain(tmp_path: Path) -> None:
    rows = _rows(tmp_path, "explain", "--rounds", "1", "yolov6n")
    named = {"model", "method", "ms_per_map", "peak_mib", "ratio_vs_gradient"}
    assert all(named <= set(row) for row in rows)
    assert {"gradient", "LRP epsilon", "zennit epsilon", "captum integrated gradients, 32 steps"} <= {
        row["method"] for row in rows
    }
