"""Masks as text: the pixels a region covers inside its box, as lengths of alternating runs."""

import numpy as np
from numpy.typing import NDArray

from mammoflow.errors import DataError


def to_runs(mask: NDArray[np.bool_]) -> str:
    """Write a mask, (H, W), row by row as lengths of runs joined by commas; the first is outside, possibly 0."""
    flat = np.asarray(mask, np.bool_).ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return ",".join(map(str, np.diff(changes, prepend=0, append=flat.size).tolist()))


def from_runs(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Read what `to_runs` wrote of a mask of `height` x `width` pixels.

    Raises
    ------
    DataError
        The runs aren't whole numbers, or don't fill the mask.
    """
    try:
        lengths = np.array([int(length) for length in text.split(",")])
    except ValueError:
        raise DataError(f"runs `{text[:40]}` of a mask: expected whole numbers joined by commas") from None
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise DataError(f"runs of a mask cover {lengths.sum()} pixels, expected its box's {width} x {height}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
