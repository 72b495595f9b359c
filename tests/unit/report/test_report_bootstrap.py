import numpy as np
import pytest

from mammoflow.report.bootstrap import Resamples, interval


def test_total_counts_a_patient_drawn_twice_twice():
    patients = Resamples.draw(["a", "b", "b"], 200, seed=1)
    weights = patients.weights
    assert (weights.sum(axis=1) == 2).all()  # two patients, two draws
    np.testing.assert_array_equal(patients.total(["a", "b", "b"], [1, 10, 100]), weights @ [1, 110])


def test_rate_by_hand_and_its_interval():
    patients = Resamples.draw(["a", "b"], 4000, seed=1)
    rate = patients.rate(["a", "a", "b", "b"], [1, 1, 0, 0])
    # resamples are aa (rate 1), ab or ba (0.5) and bb (0), so the percentile interval is the whole range
    assert rate == {"value": 0.5, "low": 0.0, "high": 1.0, "count": 4, "note": ""}
    assert set(np.round(patients.total(["a"], [1]))) == {0.0, 1.0, 2.0}


def test_one_patients_many_images_widen_the_interval():
    values = np.tile([0, 1], 50)
    alone = Resamples.draw([f"p{i}" for i in range(100)], 2000, seed=2).rate([f"p{i}" for i in range(100)], values)
    grouped = [f"p{i % 2}" for i in range(100)]  # one patient holds all ones
    together = Resamples.draw(grouped, 2000, seed=2).rate(grouped, values)
    assert (together["low"], together["high"]) == (0.0, 1.0)
    assert alone["low"] > 0.35
    assert alone["high"] < 0.65


def test_interval_agrees_with_the_normal_approximation():
    keys = [f"p{i:03d}" for i in range(400)]
    rate = Resamples.draw(keys, 4000, seed=3).rate(keys, np.arange(400) < 120)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert rate["low"] == pytest.approx(0.3 - half, abs=0.006)
    assert rate["high"] == pytest.approx(0.3 + half, abs=0.006)


def test_nothing_to_count_is_none_with_a_note():
    rate = Resamples.draw([], 50, seed=1).rate([], [])
    assert (rate["value"], rate["low"], rate["high"], rate["count"]) == (None, None, None, 0)
    assert rate["note"]


def test_interval_needs_half_of_the_resamples():
    assert interval(np.array([1.0, np.nan, np.nan])) == (None, None)
    assert interval(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0)


def test_the_same_seed_gives_the_same_weights():
    first, again, other = (Resamples.draw(list("abcdef"), 20, seed=seed).weights for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
