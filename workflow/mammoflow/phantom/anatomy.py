"""The shape of a phantom breast: outline, nipple and pectoral muscle in both views, and where a place in it projects.

Lengths are mm. Images are drawn with the chest wall at the left border (x = 0), y downwards; `picture` mirrors right
breasts. A place in the breast is ``depth`` (from the chest wall towards the nipple), ``outer`` (towards the arm) and
``upper`` (towards the head), the last two from the nipple.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DENSITIES = ["a", "b", "c", "d"]
DENSITY_SHARES = [0.2, 0.4, 0.3, 0.1]  # of screening populations, roughly (ACR BI-RADS atlas, 5th edition)
FIELD_HEIGHT = 237.0  # of the shortest machine's picture; anatomy is laid out in it
OBLIQUITY = np.radians(25.0)  # how much of `outer` the MLO view shows upwards

Place = tuple[float, float, float]  # depth, outer, upper


@dataclass(frozen=True)
class Breast:
    """Shape of one breast.

    `half_height` is that of the CC outline at the chest wall, `roundness` the exponent of the outline,
    `axilla` the width of the fold of skin where the MLO view leaves the picture at its top.
    """

    density: str
    depth: float
    half_height: float
    roundness: float
    nipple_y_cc: float
    nipple_y_mlo: float
    fold_y: float
    axilla: float
    pectoral_width: float
    pectoral_height: float
    nipple_diameter: float
    wobble_phase: float


def draw_breasts(rng: np.random.Generator) -> dict[str, Breast]:
    """Draw a patient's two breasts, alike but not the same, keyed by laterality L and R."""
    density = str(rng.choice(DENSITIES, p=DENSITY_SHARES))
    size = rng.uniform(0.0, 1.0)
    return {side: _draw_breast(rng, density, np.clip(size + rng.normal(0, 0.06), 0, 1)) for side in ("L", "R")}


def _draw_breast(rng: np.random.Generator, density: str, size: float) -> Breast:
    nipple_y_mlo = rng.uniform(0.52, 0.62) * FIELD_HEIGHT
    return Breast(
        density=density,
        depth=72 + 55 * size,
        half_height=68 + 32 * size,
        roundness=rng.uniform(2.0, 2.5),
        nipple_y_cc=FIELD_HEIGHT / 2 + rng.normal(0, 6),
        nipple_y_mlo=nipple_y_mlo,
        fold_y=min(nipple_y_mlo + 58 + 35 * size + rng.normal(0, 4), FIELD_HEIGHT - 4),
        axilla=rng.uniform(0.35, 0.6) * (72 + 55 * size),
        pectoral_width=rng.uniform(0.5, 0.8) * (40 + 20 * size),
        pectoral_height=rng.uniform(90, 150),
        nipple_diameter=rng.uniform(9.5, 13.5),
        wobble_phase=rng.uniform(0, 2 * np.pi),
    )


def outline(breast: Breast, view_position: str, y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance in mm of the skin from the chest wall at heights `y`; 0 above and below the breast."""
    extent = _outline_cc(breast, y) if view_position == "CC" else _outline_mlo(breast, y)
    wobble = 1 + 0.012 * np.sin(2 * np.pi * y / 70 + breast.wobble_phase)
    return extent * wobble


def _outline_cc(breast: Breast, y: NDArray[np.floating]) -> NDArray[np.floating]:
    away = np.abs(y - breast.nipple_y_cc) / breast.half_height
    return breast.depth * np.sqrt(np.clip(1 - away**breast.roundness, 0, None))


def _outline_mlo(breast: Breast, y: NDArray[np.floating]) -> NDArray[np.floating]:
    above = np.clip((breast.nipple_y_mlo - y) / breast.nipple_y_mlo, 0, None)
    below = np.clip((y - breast.nipple_y_mlo) / (breast.fold_y - breast.nipple_y_mlo), 0, 1)
    upper = breast.axilla + (breast.depth - breast.axilla) * (0.5 + 0.5 * np.cos(np.pi * np.clip(above, 0, 1) ** 1.15))
    lower = breast.depth * np.sqrt(1 - below**breast.roundness)
    return np.where(y < breast.nipple_y_mlo, upper, lower)


def nipple(breast: Breast, view_position: str) -> tuple[float, float]:
    """Centre x, y of the nipple: on the contour."""
    y = breast.nipple_y_cc if view_position == "CC" else breast.nipple_y_mlo
    return float(outline(breast, view_position, np.array([y]))[0]) - 0.02 * breast.nipple_diameter, y


def project(breast: Breast, view_position: str, place: Place) -> tuple[float, float]:
    """Point x, y where a view shows `place`: CC looks from above, MLO obliquely from above the breastbone."""
    depth, outer, upper = place
    if view_position == "CC":
        return depth, breast.nipple_y_cc - outer
    return depth, breast.nipple_y_mlo - (np.cos(OBLIQUITY) * upper + np.sin(OBLIQUITY) * outer)


def inside(breast: Breast, view_position: str, point: tuple[float, float], radius: float) -> bool:
    """Whether a disc of `radius` about `point` lies in the breast, in the picture and off its chest wall border."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = point[0] + radius * np.cos(angles), point[1] + radius * np.sin(angles)
    in_picture = (x > 0).all() and (y > 0).all() and (y < FIELD_HEIGHT).all()
    return bool(in_picture and (x < outline(breast, view_position, y)).all())
