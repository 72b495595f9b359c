"""Zones of a picture, and what part of a map lies in them."""

import numpy as np
import pytest

from mammoflow.explain.regions import covered, picture_zones, sampled, share
from mammoflow.geometry import Transform


@pytest.fixture
def picture():
    """Half an ellipse of tissue at the left border, a hole of air in it, letters in the upper right corner."""
    y, x = np.mgrid[:200, :160]
    breast = (x / 90) ** 2 + ((y - 110) / 80) ** 2 < 1
    drawn = np.where(breast, 120, 2).astype(np.uint8)
    drawn[100:104, 30:34] = 0
    drawn[10:20, 130:150] = 250
    return drawn, breast


def test_breast_border_label_and_air_of_a_drawn_picture(picture):
    drawn, breast = picture
    zones = picture_zones(drawn, [0, 30, 90, 190], 110, 120)
    assert (zones.outside == ~breast).all()  # the hole is breast
    assert zones.label[10:20, 130:150].all()
    assert zones.label[7, 140] is np.False_
    assert zones.label[8, 140] is np.True_  # a hundredth of the long side around it
    assert not (zones.label & breast).any()
    # 0.02 of 200 pixels: four along the outline, none along the chest wall
    assert zones.border[110, 86:90].all()
    assert not zones.border[110, :85].any()
    assert not (zones.border & ~breast).any()


def test_a_picture_without_breast_is_all_outside(picture):
    for drawn, box in ((picture[0], [np.nan] * 4), (np.zeros((20, 30), np.uint8), [0, 0, 30, 20])):
        zones = picture_zones(drawn, box, float("nan"), float("nan"))
        assert zones.outside.all()
        assert not zones.border.any()


def test_a_mask_goes_to_another_raster_and_is_false_where_it_doesnt_reach():
    mask = np.zeros((4, 6), bool)
    mask[1, 2] = True  # stored pixels 4..6, 2..4
    place = Transform.resize(12, 8, 6, 4)
    target = Transform.window(3, 1, 9, 5, 6, 4)  # a pixel a stored pixel
    found = sampled(mask, place, target)
    assert np.argwhere(found).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not sampled(np.ones((4, 6), bool), place, Transform.window(-4, 0, 0, 8, 4, 8)).any()


def test_a_mask_of_a_mirrored_picture_comes_back_unmirrored():
    mask = np.zeros((4, 6), bool)
    mask[1, 2] = True  # stored pixels 12 - 6 .. 12 - 4, 2 .. 4
    found = sampled(mask, Transform.resize(12, 8, 6, 4).mirrored(), Transform.resize(12, 8, 12, 8))
    assert np.argwhere(found).tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]


def test_a_speck_is_covered_by_its_area():
    # two stored pixels a map pixel; the mask's one pixel at (5, 3) lies in map pixel (2, 1)
    mask = np.array([[0, 1], [0, 0]], bool)
    cover = covered(mask, [4, 3, 6, 5], Transform.resize(12, 8, 6, 4))
    expected = np.zeros((4, 6))
    expected[1, 2] = 0.25
    assert cover.tolist() == expected.tolist()


def test_shares_by_hand():
    relevance = np.array([[1, -3], [2, 2]], np.float32)
    assert share(relevance, np.array([[1, 0.5], [0, 0]])) == (2.5 / 8, 1.5 / 4)
    inside, area = share(np.zeros((2, 2), np.float32), np.ones((2, 2), bool))
    assert np.isnan(inside)
    assert area == 1
