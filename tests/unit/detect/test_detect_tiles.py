from itertools import pairwise

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.boxes import from_yolo
from mammoflow.detect.infer import detect_images
from mammoflow.detect.model import Detector
from mammoflow.detect.tiles import merge, tile_grid, tile_of, write_tiles

TILES = {"size": 40, "overlap": 0.25}


@given(
    width=st.integers(1, 500), height=st.integers(1, 500), size=st.integers(8, 200), overlap=st.floats(0, 0.8)
)  # fmt: skip
def test_tiles_cover_the_picture_and_overlap(width, height, size, overlap):
    grid = tile_grid(width, height, {"size": size, "overlap": overlap})
    covered = np.zeros((height, width), int)
    for x1, y1, x2, y2 in grid:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(size, width), min(size, height))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() >= 1
    columns = sorted({x1 for x1, *_ in grid})
    # a pixel of rounding at each end
    assert all(b - a <= max(1, size * (1 - overlap)) + 1 for a, b in pairwise(columns))


def test_tiles_by_hand():
    # 100 wide: three tiles of 40 would overlap by 10 of 40 each
    assert tile_grid(100, 40, TILES) == [(0, 0, 40, 40), (30, 0, 70, 40), (60, 0, 100, 40)]
    assert tile_grid(30, 20, TILES) == [(0, 0, 30, 20)]
    assert tile_grid(100, 40, None) == [(0, 0, 100, 40)]


def test_the_tile_of_a_box_shows_most_of_it():
    grid = tile_grid(100, 40, TILES)
    assert tile_of([58, 5, 69, 15], grid) == (30, 0, 70, 40)  # 8 of 11 columns are in the last tile, all in the second
    assert tile_of([31, 5, 39, 15], grid) == (0, 0, 40, 40)  # both show it; the first has it nearer to its middle
    assert tile_of([80, 5, 90, 15], grid) == (60, 0, 100, 40)


def test_of_one_places_frames_the_best_stays_class_by_class():
    found = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [50, 50, 60, 60]], float)
    kept = merge(found, np.array([0.5, 0.9, 0.4, 0.1]), np.array([0, 0, 1, 0]), 0.4)
    assert kept.tolist() == [1, 2, 3]


class BrightSpot(torch.nn.Module):
    """A YOLO that frames the brightest pixel, 6 x 6 input pixels, with its grey level as score."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, batch):
        self.seen += len(batch)
        output = torch.zeros(len(batch), 6, 8)
        for number, image in enumerate(batch[:, 0]):
            y, x = divmod(int(image.argmax()), image.shape[1])
            output[number, :5, 0] = torch.tensor([x + 0.5, y + 0.5, 6.0, 6.0, float(image.max())])
        return output


def detector(tiles=None) -> Detector:
    return Detector(BrightSpot(), "yolov8n", ("lesion", "nipple"), 64, 0, "0" * 16, tiles)


def test_frames_of_tiles_come_back_to_the_picture_once():
    image = np.zeros((64, 100), np.uint8)
    image[20, 35] = 250  # in two tiles across and two down
    image[50, 90] = 200
    found = detect_images(detector({"size": 64, "overlap": 0.5}), [image, image[:, :64]], 0.3, 0.4)
    assert found[0].scores == pytest.approx([250 / 255, 200 / 255])
    assert found[0].boxes[0] == pytest.approx([32.5, 17.5, 38.5, 23.5])
    assert found[0].boxes[1] == pytest.approx([87.5, 47.5, 93.5, 53.5])
    assert found[1].boxes == pytest.approx(np.array([[32.5, 17.5, 38.5, 23.5]]))


def test_one_tile_as_large_as_the_picture_is_the_whole_picture():
    image = np.random.default_rng(0).integers(0, 255, (50, 60), dtype=np.uint8)
    whole, tiled = (
        detect_images(detector(tiles), [image], 0.1, 0.4)[0] for tiles in (None, {"size": 60, "overlap": 0})
    )
    assert np.array_equal(whole.boxes, tiled.boxes)


def test_training_tiles_hold_their_lesions_and_no_half_ones(tmp_path):
    image = np.full((40, 100), 50, np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), image)
    # tiles 0-40, 30-70, 60-100; the lesion 33-43 is 70 % in the first and whole in the second; the other is whole in
    # the third, and a fifth of it in the second; the nipple is in the first
    rows = [(0, 38, 20, 10, 8), (0, 73, 10, 10, 8), (1, 5, 5, 4, 4)]
    text = "".join(f"{kind} {x / 100} {y / 40} {w / 100} {h / 40}\n" for kind, x, y, w, h in rows)
    (tmp_path / "p.txt").write_text(text)
    row = {"image_id": "p", "train_png": str(tmp_path / "p.png"), "label_file": str(tmp_path / "p.txt"), "lesions": 2}
    made = write_tiles(pd.DataFrame([row | {"nipples": 1, "patient_key": "a"}]), TILES, tmp_path / "work")
    assert list(made["lesions"]) == [1, 1, 1]
    assert list(made["nipples"]) == [1, 0, 0]
    assert set(made["patient_key"]) == {"a"}
    first = np.loadtxt(made["label_file"][0], ndmin=2)
    assert from_yolo(first[:, 1:], 40, 40) == pytest.approx(np.array([[33, 16, 40, 24], [3, 3, 7, 7]]), abs=1e-4)
    second = np.loadtxt(made["label_file"][1], ndmin=2)
    assert from_yolo(second[:, 1:], 40, 40) == pytest.approx(np.array([[3, 16, 13, 24]]), abs=1e-4)
    assert cv2.imread(made["train_png"][2]).shape == (40, 40, 3)


def test_a_tile_with_a_rest_of_a_lesion_or_nothing_at_all_is_no_background(tmp_path):
    image = np.full((40, 100), 50, np.uint8)
    image[:, 60:] = 0
    cv2.imwrite(str(tmp_path / "p.png"), image)
    (tmp_path / "p.txt").write_text(f"0 {26 / 100} {20 / 40} {10 / 100} {8 / 40}\n")  # columns 21 to 31
    row = {"image_id": "p", "train_png": str(tmp_path / "p.png"), "label_file": str(tmp_path / "p.txt")}
    made = write_tiles(pd.DataFrame([row | {"lesions": 1, "nipples": 0}]), TILES, tmp_path / "work")
    assert list(made["image_id"]) == ["p-tile000"]
