import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mammoflow import boxes

whole = st.integers(0, 30)


@st.composite
def pixel_boxes(draw):
    x1, y1, width, height = (draw(whole) for _ in range(4))
    return [x1, y1, x1 + width, y1 + height]


def painted(box, side=64):
    mask = np.zeros((side, side), bool)
    x1, y1, x2, y2 = box
    mask[y1:y2, x1:x2] = True
    return mask


@given(pixel_boxes(), pixel_boxes())
def test_iou_counts_pixels(first, second):
    a, b = painted(first), painted(second)
    union = (a | b).sum()
    expected = (a & b).sum() / union if union else 0.0
    assert np.isclose(boxes.iou([first], [second])[0, 0], expected)


def test_iou_by_hand():
    # 4 x 4 and 4 x 4, sharing 2 x 4: 8 of 24
    assert boxes.iou([[0, 0, 4, 4]], [[2, 0, 6, 4]])[0, 0] == 8 / 24


def test_hit_rule():
    truth = [[10, 10, 20, 20]]
    far_too_large = [[0, 0, 30, 30]]  # IoU 100 / 900, centre (15, 15)
    assert boxes.hits(far_too_large, truth, min_iou=0.3, center=True).all()
    assert not boxes.hits(far_too_large, truth, min_iou=0.3, center=False).any()
    assert boxes.hits(far_too_large, truth, min_iou=1 / 9, center=False).all()


def test_half_open_border_does_not_hold_the_centre():
    assert not boxes.center_in_box([[8, 8, 12, 12]], [[0, 0, 10, 10]])[0, 0]
    assert boxes.center_in_box([[8, 8, 12, 12]], [[10, 10, 11, 11]])[0, 0]


@given(pixel_boxes())
def test_yolo_round_trip(box):
    back = boxes.from_yolo(boxes.to_yolo([box], 200, 100), 200, 100)
    assert np.allclose(back, [box])


def test_yolo_by_hand():
    assert boxes.to_yolo([[10, 20, 30, 40]], 100, 200).tolist() == [[0.2, 0.15, 0.2, 0.1]]


def test_expand_and_clip():
    assert boxes.expand([[10, 10, 20, 30]], 2).tolist() == [[5, 0, 25, 40]]
    assert boxes.clip([[-5, 2, 120, 90]], 100, 80).tolist() == [[0, 2, 100, 80]]


def test_no_boxes():
    assert boxes.iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert boxes.expand([], 2).shape == (0, 4)
