"""Masks as run lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mammoflow.errors import DataError
from mammoflow.masks import from_runs, to_runs


def test_runs_by_hand():
    assert to_runs(np.array([[0, 1, 1], [1, 0, 0]], bool)) == "1,3,2"
    assert to_runs(np.ones((2, 2), bool)) == "0,4"
    assert to_runs(np.zeros((2, 2), bool)) == "4"


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_mask_comes_back(mask):
    assert from_runs(to_runs(mask), *mask.shape).tolist() == mask.tolist()


def test_runs_that_are_no_mask_are_refused():
    with pytest.raises(DataError, match=r"cover 5 pixels.*3 x 2"):
        from_runs("2,3", 2, 3)
    with pytest.raises(DataError, match="expected whole numbers"):
        from_runs("2,a", 2, 3)
    with pytest.raises(DataError, match="cover"):
        from_runs("8,-2", 2, 3)
