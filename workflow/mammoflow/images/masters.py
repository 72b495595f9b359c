"""16-bit masters: all that a file's modality values tell, before any window, dense tissue bright."""

import numpy as np
from numpy.typing import NDArray

from mammoflow.images.stored import Stored
from mammoflow.images.windows import is_inverted, modality_values, padding

HIGHEST = 65535


def master_table(stored: Stored) -> tuple[NDArray[np.uint16], float, float]:
    """Compose the way from stored pattern to master: modality LUT or rescale, inversion (once), padding (0).

    Evenly spaced values, as every rescale gives, come back exactly; those of an uneven modality LUT to half a
    65,535th of their range.

    Returns
    -------
    uint16 array, (2^bits,), the master's grey of each pattern; `offset` and `slope`: the modality value of a grey that
    isn't padding is ``offset + slope * grey`` (`slope` is negative where low values are bright).

    Raises
    ------
    RenderError
        The modality LUT or rescale can't be used.
    """
    x = modality_values(stored)
    levels = np.unique(x)
    steps = np.diff(levels)
    even = np.allclose(steps, steps[0], rtol=1e-6, atol=0)
    step = float((levels[-1] - levels[0]) / (len(steps) if even else HIGHEST))
    offset, slope = (float(levels[-1]), -step) if is_inverted(stored) else (float(levels[0]), step)
    table = np.rint((x - offset) / slope).astype(np.uint16)
    table[padding(stored)] = 0
    return table, offset, slope
