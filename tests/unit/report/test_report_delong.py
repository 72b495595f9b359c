import numpy as np
import pytest
from scipy.stats import norm

from mammoflow.report.delong import compare


def slow(labels, scores):
    """Areas and covariance by the definition: every pair, equations 3 to 7 of DeLong et al. (1988)."""
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    psi = np.array(
        [
            [[1.0 if one[i] > one[j] else 0.5 if one[i] == one[j] else 0.0 for j in negative] for i in positive]
            for one in scores
        ]
    )
    areas = [matrix.mean() for matrix in psi]
    by_positive, by_negative = psi.mean(axis=2), psi.mean(axis=1)
    covariance = np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            s10 = sum((a - areas[r]) * (b - areas[s]) for a, b in zip(by_positive[r], by_positive[s], strict=True))
            s01 = sum((a - areas[r]) * (b - areas[s]) for a, b in zip(by_negative[r], by_negative[s], strict=True))
            m, n = len(positive), len(negative)
            covariance[r, s] = s10 / (m - 1) / m + s01 / (n - 1) / n
    return areas, covariance


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_definition(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(40) < 0.4
    first = np.round(rng.normal(labels, 1), 1)  # rounded: ties
    second = np.round(0.5 * first + rng.normal(0.5 * labels, 0.6), 1)
    found, (areas, covariance) = compare(labels, first, second), slow(labels, [first, second])
    assert found.areas == pytest.approx(areas)
    np.testing.assert_allclose(found.covariance, covariance)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.standard_error == pytest.approx(error)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(areas[0] - areas[1]) / error))


def test_by_hand():
    labels = np.array([True, True, False, False])
    found = compare(labels, np.array([4.0, 2.0, 3.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0]))
    # first: positives above (2, 1) of 2 negatives; negatives below (1, 2) of 2 positives; second: all
    assert found.areas == (0.75, 1.0)
    # variances of (1, 1/2) and of (1/2, 1) are 1/8, each over 2
    np.testing.assert_allclose(found.covariance, [[0.125, 0], [0, 0]])
    assert found.standard_error == pytest.approx(np.sqrt(0.125))


def test_equal_judges_don_t_differ():
    labels, scores = np.array([True, True, False, False]), np.array([0.9, 0.2, 0.5, 0.1])
    assert compare(labels, scores, scores * 2).p_value == 1
    assert np.isnan(compare(labels, np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3, 4])).p_value)


def test_the_p_value_is_uniform_when_nothing_differs():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2 == 0
    p = [compare(labels, *(rng.normal(labels, 1) for _ in range(2))).p_value for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
