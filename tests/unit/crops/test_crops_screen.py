import cv2
import numpy as np
import pandas as pd
import pytest

from mammoflow.crops.screen import on_breast, screen_image

SETTINGS = {"min_breast_share": 0.5, "nipple_score": 0.3, "nipple_iou": 0.3}
BREAST, AIR, LABEL = (60, 140, 100, 180), (230, 10, 270, 50), (230, 220, 270, 260)


@pytest.fixture
def picture():
    """A breast at the left on air with a bright label at the lower right, (300, 300)."""
    image = np.random.default_rng(0).integers(0, 6, (300, 300)).astype(np.uint8)
    cv2.ellipse(image, (0, 150), (160, 130), 0, -90, 90, 120, -1)
    image[215:265, 225:280] = 250
    return image


def frames(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["score", "x1", "y1", "x2", "y2"])
    return table.assign(detection_id=[f"d{number}" for number in range(len(table))])


def reasons(accepted, picture, nipples=(), **settings) -> dict[str, str]:
    found = screen_image(accepted, frames(*nipples), picture, SETTINGS | settings, 0.2)
    return dict(zip(found["detection_id"], found["reason"], strict=True))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_frames_off_the_breast_are_told_from_labels(picture, depth):
    image = picture.astype(depth) * (257 if depth is np.uint16 else 1)
    accepted = frames((0.9, *AIR), (0.8, *LABEL), (0.7, *BREAST))
    assert reasons(accepted, image) == {"d0": "off_breast", "d1": "label", "d2": ""}
    assert set(reasons(accepted, image, min_breast_share=0.0).values()) == {""}


def test_share_on_the_breast_by_hand(picture):
    # the half ellipse ends at x = 160 where y = 150: half of a thin frame there is air
    shares, bright = on_breast([[150, 148, 170, 152], [40, 140, 80, 180]], picture)
    assert shares[0] == pytest.approx(0.5, abs=0.15)
    assert shares[1] == 1
    assert not bright.any()


def test_a_picture_without_breast_drops_nothing(picture):
    empty = np.zeros_like(picture)
    assert reasons(frames((0.9, *AIR)), empty) == {"d0": ""}
    assert np.isnan(on_breast([AIR], empty)[0]).all()


def test_only_a_sure_nipple_drops_a_frame(picture):
    accepted = frames((0.9, *BREAST))
    assert reasons(accepted, picture, [(0.5, 62, 142, 100, 180)]) == {"d0": "nipple"}
    assert reasons(accepted, picture, [(0.2, 62, 142, 100, 180)]) == {"d0": ""}
    assert reasons(accepted, picture, [(0.5, 95, 175, 120, 200)]) == {"d0": ""}


def test_of_frames_of_one_place_the_best_stays(picture):
    shifted, inside = (65, 145, 105, 185), (70, 150, 80, 160)
    accepted = frames((0.5, *shifted), (0.9, *BREAST), (0.4, *inside), (0.3, 20, 90, 50, 120))
    assert reasons(accepted, picture) == {"d0": "duplicate", "d1": "", "d2": "duplicate", "d3": ""}


def test_a_dropped_frame_makes_no_duplicate(picture):
    # the higher frame is on the nipple and goes; the lower one beside it isn't its duplicate any more
    accepted = frames((0.9, *BREAST), (0.8, 80, 140, 125, 185))
    assert reasons(accepted, picture, [(0.9, *BREAST)]) == {"d0": "nipple", "d1": ""}
