"""Passes over all pixels of a picture, compiled: brightness shrunk by whole numbers, counts inside a region."""

import numba
import numpy as np
from numpy.typing import NDArray

Place = np.uint64  # that no place can be negative spares a check at each pixel
FINEST = 1024  # pixels: the long side from which a shrunk picture holds all that the breast's outline needs


def shrink_factor(height: int, width: int) -> int:
    """Whole number by which a picture is shrunk so that its long side stays at `FINEST` pixels or more; at least 1."""
    return max(1, max(height, width) // FINEST)


def shrunk_brightness(patterns: NDArray[np.uint16], table: NDArray[np.uint16], factor: int) -> NDArray[np.uint16]:
    """Look brightness up and average it over blocks.

    Parameters
    ----------
    patterns : uint8 or uint16 array, (H, W), below ``len(table)``.
    table : uint16 array, (2^bits,): brightness of each pattern.
    factor : side of a block, pixels. Of large blocks every second row is read, which halves the time.

    Returns
    -------
    uint16 array, (ceil(H / factor), ceil(W / factor)); blocks at the right and bottom edge may be smaller.
    """
    if factor == 1:
        return table[patterns]
    return _block_means(patterns, table, factor)


@numba.njit(nogil=True, cache=True)
def _block_means(patterns, table, factor):  # type: ignore[no-untyped-def]
    height, width = patterns.shape
    out = np.empty((-(-height // factor), -(-width // factor)), np.uint16)
    sums = np.empty(out.shape[1], np.int64)
    step = 2 if factor >= 4 else 1
    for y in range(out.shape[0]):
        sums[:] = 0
        rows = 0
        for source in range(y * factor, min((y + 1) * factor, height), step):
            rows += 1
            for x in range(out.shape[1]):
                total = np.int64(0)
                for column in range(x * factor, min((x + 1) * factor, width)):
                    total += table[patterns[Place(source), Place(column)]]
                sums[x] += total
        for x in range(out.shape[1]):
            out[y, x] = sums[x] // (rows * (min((x + 1) * factor, width) - x * factor))
    return out


def counts(patterns: NDArray[np.uint16], bits: int, region: NDArray[np.bool_] | None, factor: int) -> NDArray[np.int64]:
    """Count each pattern.

    Parameters
    ----------
    patterns : uint8 or uint16 array, (H, W), below 2^bits.
    region : bool array, (ceil(H / factor), ceil(W / factor)): blocks whose pixels count; all when None.

    Returns
    -------
    int64 array, (2^bits,).
    """
    if region is None:
        region, factor = np.ones((1, 1), np.bool_), max(patterns.shape)
    return _counts(patterns, bits, region, factor)


@numba.njit(nogil=True, cache=True)
def _counts(patterns, bits, region, factor):  # type: ignore[no-untyped-def]
    height, width = patterns.shape
    out = np.zeros(1 << bits, np.int64)
    for y in range(height):
        row = region[y // factor]
        for block in range(row.size):
            if row[block]:
                for x in range(block * factor, min((block + 1) * factor, width)):
                    out[patterns[Place(y), Place(x)]] += 1
    return out
