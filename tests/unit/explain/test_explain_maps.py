"""Maps back in the picture's geometry, their shares, their container and their pictures."""

import cv2
import numpy as np
import pytest

from mammoflow.detect.preprocess import letterbox, letterbox_transform
from mammoflow.explain.maps import blob, coverage, outside_share, relevance_in_box, save_maps, to_picture
from mammoflow.explain.overlays import STRIP, Outline, draw_overlay
from mammoflow.geometry import Transform


@pytest.mark.parametrize(("height", "width"), [(100, 60), (37, 91), (64, 64), (20, 33), (300, 120)])
def test_letterbox_and_back_keeps_the_sum(height, width):
    transform = letterbox_transform(width, height, 64)
    relevance = np.random.default_rng(0).standard_normal((64, 64))
    x1, y1, x2, y2 = transform.forward([0, 0, width, height])[0].astype(int)
    inside = np.zeros((64, 64))
    inside[y1:y2, x1:x2] = relevance[y1:y2, x1:x2]

    found, on_padding = to_picture(relevance, transform, height, width)

    assert found.shape == (height, width)
    assert found.sum() == pytest.approx(inside.sum(), rel=1e-4)
    assert on_padding == pytest.approx(1 - np.abs(inside).sum() / np.abs(relevance).sum())
    assert to_picture(inside, transform, height, width)[1] == pytest.approx(0, abs=1e-12)


def test_relevance_lands_where_the_pixel_came_from():
    picture = np.zeros((90, 40), np.uint8)
    picture[60:70, 10:20] = 255
    x, transform = letterbox(picture, 45)
    found, on_padding = to_picture(x[0, 0].numpy(), transform, 90, 40)
    assert on_padding == 0
    assert found[60:70, 10:20].sum() == pytest.approx(found.sum())


def test_a_pixel_is_shared_by_area():
    # one input pixel covers 2 x 1.5 picture pixels
    transform = Transform.resize(4, 3, 2, 2)
    found, _ = to_picture([[6.0, 0.0], [0.0, 0.0]], transform, 3, 4)
    np.testing.assert_allclose(found, [[2, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_shares_in_a_box_by_hand():
    relevance = np.array([[1, -3, 0], [2, 0, 2]], np.float32)
    assert relevance_in_box(relevance, [1, 0, 3, 1]) == (3 / 8, 2 / 6)
    assert relevance_in_box(relevance, [0.5, 0, 1, 2]) == (1.5 / 8, 1 / 6)
    assert relevance_in_box(relevance, [-5, -5, 9, 9]) == (1, 1)
    assert np.isnan(relevance_in_box(np.zeros((2, 3), np.float32), [0, 0, 1, 1])[0])


def test_a_flat_map_has_the_boxs_share_of_the_area():
    share, area = relevance_in_box(np.full((17, 23), -0.2, np.float32), [3.3, 1.2, 9.9, 12.5])
    assert share == pytest.approx(area)
    assert coverage([3.3, 1.2, 9.9, 12.5], 17, 23).sum() == pytest.approx(6.6 * 11.3)


def test_the_control_blob_is_a_gaussian_at_the_frame():
    drawn = blob([20, 10, 60, 30], 40, 80)
    assert drawn.shape == (40, 80)
    assert np.unravel_index(drawn.argmax(), drawn.shape)[0] in (19, 20)
    # a quarter of the sides of 40 and 20 pixels: half a pixel from the centre, and one deviation further
    assert drawn[19, 39] == pytest.approx(np.exp(-(0.1**2 + 0.05**2) / 2))
    assert drawn[19, 49] / drawn[19, 39] == pytest.approx(np.exp(-(0.95**2 - 0.05**2) / 2))


def test_relevance_beyond_the_image_by_hand():
    relevance = np.array([[1, -3, 0], [2, 0, 2]], np.float32)
    # six stored pixels across, four down; the image ends after four columns, so one of three is beyond
    assert outside_share(relevance, [0, 0, 6, 4], 4, 4) == pytest.approx(2 / 8)
    assert outside_share(relevance, [-2, 0, 4, 4], 4, 4) == pytest.approx(3 / 8)
    assert outside_share(relevance, [0, 0, 6, 4], 6, 4) == 0
    assert outside_share(np.zeros((2, 3), np.float32), [0, 0, 6, 4], 4, 4) == 0


def test_containers_are_the_same_bytes_again_and_may_be_empty(tmp_path):
    maps = {"one": np.arange(6, dtype=np.float32).reshape(2, 3), "two": np.ones((1, 2), np.float32)}
    save_maps(tmp_path / "a.npz", maps)
    save_maps(tmp_path / "b.npz", maps)
    save_maps(tmp_path / "none.npz", {})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as found:
        assert found["one"].tolist() == maps["one"].tolist()
    with np.load(tmp_path / "none.npz") as found:
        assert list(found) == []


def test_overlays_show_sign_frame_and_scale(tmp_path):
    relevance = np.zeros((120, 240), np.float32)
    relevance[30:50, 40:60], relevance[70:90, 160:180] = 2.0, -2.0
    draw_overlay(np.full((120, 240), 100, np.uint8), relevance, [30, 20, 80, 60], tmp_path / "map.png")
    drawn = cv2.imread(str(tmp_path / "map.png")).astype(int)
    assert drawn.shape == (240 + STRIP, 480, 3)
    blue, _, red = drawn[80, 100]
    assert red > blue + 100
    blue, _, red = drawn[160, 340]
    assert blue > red + 100
    assert drawn[10, 10].tolist() == [100, 100, 100]
    assert drawn[40, 100].tolist() != [100, 100, 100]  # the frame's upper edge


def test_overlays_show_the_truths_outline_and_a_bar_of_round_length(tmp_path):
    plain, full = tmp_path / "plain.png", tmp_path / "full.png"
    mask = np.zeros((120, 240), bool)
    mask[40:60, 100:140] = True
    grey = np.full((120, 240), 100, np.uint8)
    draw_overlay(grey, np.zeros((120, 240), np.float32), [30, 20, 80, 60], plain)
    outlines = [Outline(mask, "malignant")]
    draw_overlay(grey, np.zeros((120, 240), np.float32), [30, 20, 80, 60], full, outlines, 0.5)
    first, second = (cv2.imread(str(path)).astype(int) for path in (plain, full))
    changed = (first != second).any(axis=2)
    assert changed[80, 200:280].all()  # the outline's upper edge, the picture is drawn twice as large
    assert not changed[100, 220:260].any()  # and nothing inside
    # 0.25 mm a drawn pixel: 20 mm are 80 pixels, 50 mm would be more than 0.3 of the width
    assert changed[232, 10:86].all()
    assert not changed[232, 95:].any()


def test_a_map_of_zeros_is_drawn(tmp_path):
    draw_overlay(np.full((20, 30), 100, np.uint8), np.zeros((20, 30), np.float32), [1, 1, 5, 5], tmp_path / "map.png")
    assert cv2.imread(str(tmp_path / "map.png")) is not None
