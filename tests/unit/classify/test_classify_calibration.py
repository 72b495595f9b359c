import numpy as np
import pytest
from scipy.special import expit

from mammoflow.classify.calibration import HIGHEST, LOWEST, Calibration, fit, log_loss


def test_log_loss_by_hand():
    # probabilities 0.75 of a malignant and 0.25 of a benign crop
    margins = np.log([3.0, 1 / 3])
    assert log_loss(margins, np.array([1, 0])) == pytest.approx(-np.log(0.75))
    assert log_loss(margins, np.array([0, 1])) == pytest.approx(-np.log(0.25))


def test_temperature_is_the_best_of_a_fine_grid():
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 3, 400)
    labels = (rng.random(400) < expit(margins / 2.5)).astype(np.int64)
    found = fit(margins, labels, np.array([0, 1]))
    grid = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 4001))
    slow = grid[np.argmin([log_loss(margins / temperature, labels) for temperature in grid])]
    assert found.temperature == pytest.approx(slow, rel=2e-3)
    assert 1.8 < found.temperature < 3.4
    assert found.offset == 0


def test_offset_brings_the_studys_frequency_back():
    # classes weighed alike: a margin of 0 means 30 of 120 here
    found = fit(np.zeros(4), np.array([0, 0, 0, 1]), np.array([1] * 30 + [0] * 90))
    assert Calibration(1.0, found.offset).apply(np.zeros(1))[0] == pytest.approx(0.25)


def test_few_crops_told_apart_dont_make_it_sure():
    found = fit(np.array([-2.0, 3.0]), np.array([0, 1]), np.array([0, 1]))
    assert found.temperature == pytest.approx(LOWEST, rel=1e-3)
    assert fit(np.zeros(0), np.zeros(0, np.int64), np.array([0, 1])).temperature == 1
    assert fit(np.ones(2), np.array([1, 1]), np.array([0, 1])).temperature == 1


def test_order_is_kept():
    margins = np.linspace(-5, 5, 50)
    assert (np.diff(Calibration(3.0, -0.7).apply(margins)) > 0).all()
