import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.images.sampling import counts, shrink_factor, shrunk_brightness


def test_factor():
    assert [shrink_factor(*shape) for shape in ((300, 200), (1023, 5), (2047, 9), (5, 2048), (4096, 3328))] == [
        1,
        1,
        1,
        2,
        4,
    ]


@pytest.mark.parametrize("shape", [(8, 12), (7, 11), (1, 1)])
@pytest.mark.parametrize("factor", [2, 3])
def test_brightness_is_a_mean_of_blocks(shape, factor):
    rng = np.random.default_rng(0)
    patterns, table = rng.integers(0, 4096, shape).astype(np.uint16), rng.integers(0, 65536, 4096).astype(np.uint16)
    small = shrunk_brightness(patterns, table, factor)
    assert small.shape == (-(-shape[0] // factor), -(-shape[1] // factor))
    for y, x in np.ndindex(small.shape):
        block = patterns[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert small[y, x] == int(table[block].mean())


def test_every_second_row_of_large_blocks():
    patterns = np.array([[1] * 4, [9] * 4, [3] * 4, [9] * 4], np.uint8)
    assert shrunk_brightness(patterns, np.arange(256, dtype=np.uint16), 4).tolist() == [[2]]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_counts_inside_a_region(height, width, factor, seed):
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 64, (height, width)).astype(np.uint8)
    region = rng.random((-(-height // factor), -(-width // factor))) < 0.5
    inside = np.kron(region, np.ones((factor, factor), bool))[:height, :width]
    assert np.array_equal(counts(patterns, 6, region, factor), np.bincount(patterns[inside], minlength=64))
    assert np.array_equal(counts(patterns, 6, None, 1), np.bincount(patterns.ravel(), minlength=64))
