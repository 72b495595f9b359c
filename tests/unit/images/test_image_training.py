import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.geometry import Transform
from mammoflow.images.breast import chest_wall
from mammoflow.images.training import region, training_picture, training_transform

SETTINGS = {"train_size": 100, "breast_crop": True, "breast_margin": 0.1, "same_side": True}


def half_disc(side: str) -> np.ndarray:
    y, x = np.mgrid[:300, :200]
    disc = ((x - 20) / 120) ** 2 + ((y - 150) / 110) ** 2 < 1
    disc &= x >= 20
    return disc if side == "L" else disc[:, ::-1]


def test_the_chest_wall_is_where_the_breast_is_widest():
    assert chest_wall(half_disc("L")) == "L"
    assert chest_wall(half_disc("R")) == "R"
    assert chest_wall(np.zeros((5, 5), bool)) == chest_wall(None) == ""


def test_region_by_hand():
    # longer side 220: 22 pixels more on each side, cut at the picture's left border
    assert region(200, 300, (20, 40, 140, 260), 0.1) == (0, 18, 162, 282)
    assert region(200, 300, None, 0.1) == (0, 0, 200, 300)


def test_both_sides_give_the_same_picture():
    left, right = (training_transform(200, 300, box, side, SETTINGS) for box, side in (
        ((20, 40, 140, 260), "L"), ((60, 40, 180, 260), "R")
    ))  # fmt: skip
    picture = (half_disc("L") * 200).astype(np.uint8)
    picture[100:120, 30:50] = 255
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    assert np.array_equal(training_picture(picture, left), training_picture(mirrored, right))
    assert left.forward([30, 100, 50, 120]) == pytest.approx(right.forward([150, 100, 170, 120]))


def test_off_means_the_whole_image_as_it_is():
    transform = training_transform(
        200, 300, (60, 40, 180, 260), "R", {**SETTINGS, "breast_crop": False, "same_side": False}
    )
    assert transform == Transform.fit_long_side(200, 300, 100)


@given(
    corner=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    side=st.sampled_from(["L", "R", ""]),
    long_side=st.integers(16, 500),
)
def test_a_mark_is_where_the_transform_says(corner, size, side, long_side):
    breast = (*corner, corner[0] + size[0], corner[1] + size[1])
    transform = training_transform(420, 410, breast, side, {**SETTINGS, "train_size": long_side})
    mark = [corner[0] + size[0] // 4, corner[1] + size[1] // 3]
    mark += [mark[0] + size[0] // 4 + 1, mark[1] + size[1] // 4 + 1]
    picture = np.zeros((410, 420), np.uint8)
    cv2.rectangle(picture, (mark[0], mark[1]), (mark[2] - 1, mark[3] - 1), 255, -1)
    small = training_picture(picture, transform)
    assert small.shape == (transform.height, transform.width)
    assert max(small.shape) <= long_side
    y, x = np.nonzero(small)
    found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    assert np.abs(transform.forward(mark)[0] - found).max() < 1
    assert transform.backward(transform.forward(mark))[0] == pytest.approx(mark)
