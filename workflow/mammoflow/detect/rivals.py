"""A frame's confidence weighed against what else the patient shows: its rivals in the image and in the other breast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def weigh(confidences: Sequence[NDArray[np.float64]], mirrored: Sequence[bool]) -> list[NDArray[np.float64]]:
    """Geometric mean of each frame's confidence and its share of the confidences of its rivals and its own.

    Most patients have one lesion or none. A detector that frames many places in a patient, or both breasts alike, sees
    tissue that resembles lesions, and each frame is worth less than a frame of the same confidence that stands alone.
    Radiologists compare the breasts for the same reason.

    Rivals are the other frames of the image and, as a mean over its images, those of the other breast. Frames in
    another view of the same breast are none, since a lesion shows in both.

    Parameters
    ----------
    confidences : of one patient, for each image those of its frames, 0..1, possibly none.
    mirrored : for each image whether its picture was mirrored: this tells the breasts apart (`images.same_side`).

    Returns
    -------
    For each image a float64 array like its confidences, 0..1.
    """
    sums = np.array([own.sum() for own in confidences])
    side = np.asarray(mirrored, bool)
    other = [sums[side != own].mean() if (side != own).any() else 0.0 for own in side]
    totals = np.maximum(sums + other, np.finfo(float).tiny)
    return [own / np.sqrt(total) for own, total in zip(confidences, totals, strict=True)]
