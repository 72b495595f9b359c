r"""Half-planes of a view and quadrants of a breast.

The line through the nipple perpendicular to the chest wall parts a view in two, and two views in four quadrants
(Fig. 5 of the paper). The chest wall is taken for upright, as it is on the stored image, so the line is a row.

The images are taken to be in the usual orientation of display, for both breasts: the armpit at the top of MLO, ML and
LM views, the lateral (outer) side at the top of CC views, as radiologists hang them (radiologyreview.net, Mammography:
display protocol) and as DICOM's Patient Orientation says of them (PS3.3 C.7.6.1.1.1: ``A\R`` of a left, ``P\L`` of a
right CC view, columns running towards the other breast). The tables don't carry Patient Orientation; images stored
upside down give the opposite half.

MLO views are oblique: their line should be perpendicular to the pectoral muscle instead, which isn't measured yet, so
lesions near the line and deep in the breast may fall on its wrong side.
"""

from collections.abc import Sequence

import numpy as np

VERTICAL = ("MLO", "ML", "LM", "LMO")  # side views: upper and lower
HORIZONTAL = ("CC", "XCCL", "XCCM")  # views from above: outer and inner
INDETERMINATE = "indeterminate"


def half(view_position: str, nipple_y: float, center_y: float) -> str:
    """Half-plane of a lesion: upper or lower in side views, outer or inner in views from above.

    ``indeterminate`` for other views, without a nipple, and for a centre exactly on the line.

    Parameters
    ----------
    view_position : as in DICOM.
    nipple_y, center_y : rows of the nipple and of the lesion's centre, pixels of the stored image, downwards.
    """
    if np.isnan(nipple_y) or nipple_y == center_y:
        return INDETERMINATE
    above = center_y < nipple_y
    if view_position in VERTICAL:
        return "upper" if above else "lower"
    if view_position in HORIZONTAL:
        return "outer" if above else "inner"
    return INDETERMINATE


def quadrant(first: str, second: str) -> str:
    """Quadrant from the halves of two views, in any order; ``indeterminate`` unless they are of two kinds."""
    vertical = {"upper", "lower"} & {first, second}
    horizontal = {"outer", "inner"} & {first, second}
    if len(vertical) == len(horizontal) == 1:
        return f"{vertical.pop()}_{horizontal.pop()}"
    return INDETERMINATE


def match(first_mm: Sequence[float], second_mm: Sequence[float], tolerance_mm: float) -> list[tuple[int, int]]:
    """Pair the lesions of two views of a breast by their distances from the nipple, which both views show alike.

    The pair with the smallest difference goes first; no lesion is paired twice.

    Parameters
    ----------
    first_mm, second_mm : distances in each view, mm; NaN where unknown.
    tolerance_mm : largest difference of a pair.

    Returns
    -------
    Pairs of indices into the two.
    """
    pairs = sorted(
        (abs(a - b), i, j)
        for i, a in enumerate(first_mm)
        for j, b in enumerate(second_mm)
        if abs(a - b) <= tolerance_mm  # false for NaN
    )
    matched: list[tuple[int, int]] = []
    for _, i, j in pairs:
        if all(i != k and j != m for k, m in matched):
            matched.append((i, j))
    return matched
