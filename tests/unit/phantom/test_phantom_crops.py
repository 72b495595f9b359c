from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mammoflow.phantom import crops
from mammoflow.phantom.crops import draw_crops
from mammoflow.phantom.lesions import KINDS, draw_alone


def test_crops_are_those_of_the_seed_whatever_their_number():
    few, many = list(draw_crops(1, 4, 32, 0.5, 1.5, None)), list(draw_crops(1, 9, 32, 0.5, 1.5, None))
    for (shows, crop), (again, same) in zip(few, many[:4], strict=True):
        assert shows == again
        assert (crop == same).all()
        assert crop.dtype == np.uint8
        assert crop.shape == (32, 32)
    other = list(draw_crops(2, 4, 32, 0.5, 1.5, None))
    assert not (few[0][1] == other[0][1]).all()


def test_half_are_malignant_and_the_share_of_the_others_shows_tissue():
    shows = Counter(what for what, _ in draw_crops(0, 120, 16, 0.5, 1.5, None))
    assert shows["malignant"] == 60
    assert 20 <= shows["tissue"] <= 40
    assert "tissue" not in Counter(what for what, _ in draw_crops(0, 20, 16, 0, 1.5, None))


@pytest.mark.parametrize("pathology", KINDS)
def test_lesion_lies_in_the_middle_of_its_field(monkeypatch, pathology):
    """On empty tissue the lesion alone is left: its middle is the crop's, and it fills about 1 / margin of it."""
    monkeypatch.setattr(crops, "draw_inner_tissue", lambda rng, density, shape, spacing: np.zeros(shape, np.float32))
    monkeypatch.setattr(crops, "SKIN_SHARE", 0)
    monkeypatch.setattr(crops, "MUSCLE_SHARE", 0)
    for number in range(5):
        rng = np.random.default_rng(number)
        lesion = draw_alone(rng, pathology)
        opacity, spacing = crops._draw_opacity(rng, lesion, 2 * lesion.diameter)
        rows, columns = (np.flatnonzero((opacity > 0).any(axis=axis)) for axis in (1, 0))
        assert opacity.shape[0] == pytest.approx(2 * lesion.diameter / spacing, abs=1)
        for found in (rows, columns):
            middle = (found[0] + found[-1]) / 2 - opacity.shape[0] / 2
            assert abs(middle) * spacing < 0.3 * lesion.diameter  # jittered by a tenth, and uneven
            assert 0.3 * lesion.diameter < len(found) * spacing <= 1.3 * lesion.diameter


def test_a_field_in_mm_is_the_same_for_all(monkeypatch):
    sides = []
    real = crops._draw_opacity
    monkeypatch.setattr(crops, "_draw_opacity", lambda rng, lesion, side: sides.append(side) or real(rng, lesion, side))
    list(draw_crops(0, 3, 16, 0.5, 1.5, 30.0))
    assert sides == [30.0] * 3
    list(draw_crops(0, 3, 16, 0.5, 1.5, None))
    assert len(set(sides[3:])) == 3


def test_lesion_larger_than_its_field_is_cut_off():
    rng = np.random.default_rng(0)
    lesion = replace(draw_alone(rng, "malignant"), diameter=30.0)
    assert crops._with_lesion(rng, np.zeros((20, 20), np.float32), lesion, 0.4).shape == (20, 20)
