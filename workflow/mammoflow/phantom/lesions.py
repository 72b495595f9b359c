"""Phantom lesions: what they are, where they lie, and the opacity they add to a view.

Malignant and benign kinds overlap in size, contrast, outline and margin, so that nobody who reads
the pictures can always be right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoflow.phantom.anatomy import Breast, Place, inside, project

VIEWS = ["CC", "MLO"]
KINDS = {  # pathology -> finding as radiologists call it -> share
    "malignant": {"spiculated": 0.42, "ill_defined": 0.3, "fine_pleomorphic": 0.28},
    "benign": {"circumscribed": 0.6, "coarse": 0.18, "scattered": 0.22},
}
LESION_TYPES = {
    "spiculated": "mass_spiculated",
    "ill_defined": "mass_ill_defined",
    "circumscribed": "mass_circumscribed",
    "fine_pleomorphic": "calcifications",
    "coarse": "calcifications",
    "scattered": "calcifications",
}
DIAMETERS = {"malignant": (21.0, 0.22), "benign": (19.0, 0.24)}  # mm: median, sd of the logarithm
DIAMETER_RANGE = (11.0, 30.0)
FAINTNESS = (0.25, 1.0)  # of a lesion's contrast where detectors shall learn: in real tissue most are fainter than here
INVISIBLE = 0.1  # opacity below this share of a lesion's peak is cut away, so that a lesion has an edge
TRIES = 200
GAP = 8.0  # mm between lesions

Patch = NDArray[np.floating]


@dataclass(frozen=True)
class Lesion:
    """One lesion of a breast.

    `irregularity` (0 round, 1 wild) and `softness` (0 sharp margin, 1 fading) shape masses; `spicules` is their number;
    `contrast` is the opacity added at the centre, or by a calcification; `specks` is the number of calcifications.
    """

    pathology: str
    kind: str
    place: Place
    diameter: float  # mm
    contrast: float
    irregularity: float
    softness: float
    spicules: int
    specks: int

    @property
    def lesion_type(self) -> str:
        """Value of the lesion table's column."""
        return LESION_TYPES[self.kind]


def draw_lesion(rng: np.random.Generator, pathology: str, breast: Breast, others: list[Lesion], turn: float) -> Lesion:
    """Draw a lesion of a breast that already has `others`; `turn` in 0..1 picks its kind by the kinds' shares."""
    kind, diameter = _kind(pathology, turn), _draw_diameter(rng, pathology)
    place = _draw_place(rng, breast, diameter, others)
    return Lesion(pathology, kind, place, diameter, **_draw_look(rng, kind))


def draw_alone(rng: np.random.Generator, pathology: str) -> Lesion:
    """Draw a lesion that belongs to no breast, for a picture of it alone."""
    kind, diameter = _kind(pathology, rng.random()), _draw_diameter(rng, pathology)
    return Lesion(pathology, kind, (0.0, 0.0, 0.0), diameter, **_draw_look(rng, kind))


def _kind(pathology: str, turn: float) -> str:
    kinds = KINDS[pathology]
    return list(kinds)[int(np.searchsorted(np.cumsum(list(kinds.values()))[:-1], turn, side="right"))]


def _draw_diameter(rng: np.random.Generator, pathology: str) -> float:
    """Diameter in mm."""
    median, spread = DIAMETERS[pathology]
    return float(np.clip(median * np.exp(rng.normal(0, spread)), *DIAMETER_RANGE))


def _draw_look(rng: np.random.Generator, kind: str) -> dict:
    """Margin, outline and contrast; one in seven looks like the other pathology."""
    atypical = rng.random() < 0.14
    malignant_look = (kind in KINDS["malignant"]) != atypical
    if LESION_TYPES[kind] == "calcifications":
        specks = {"fine_pleomorphic": (12, 28), "coarse": (3, 8), "scattered": (7, 17)}[kind]
        contrast, count = 0.5 * np.exp(rng.normal(0, 0.3)), int(rng.integers(*specks))
    else:
        contrast, count = 0.31 * np.exp(rng.normal(0, 0.38)), 0
    return {
        "contrast": float(np.clip(contrast, 0.1, 0.75)),
        "irregularity": float(rng.uniform(0.45, 1.0) if malignant_look else rng.uniform(0.0, 0.4)),
        "softness": float(rng.uniform(0.4, 1.1) if malignant_look else rng.uniform(0.1, 0.5)),
        "spicules": int(rng.integers(9, 19)) if kind == "spiculated" and not atypical else 0,
        "specks": count,
    }


def _draw_place(rng: np.random.Generator, breast: Breast, diameter: float, others: list[Lesion]) -> Place:
    """Draw a place inside the breast in both views, upper outer preferred; the last try is its middle."""
    for shrink in np.linspace(1, 0, TRIES):
        depth = breast.depth * (0.45 + shrink * rng.uniform(-0.3, 0.35))
        outer = shrink * rng.normal(0.18, 0.4) * breast.half_height
        upper = shrink * rng.normal(0.15, 0.4) * breast.half_height
        place = (float(depth), float(outer), float(upper))
        fits = all(inside(breast, view, project(breast, view, place), diameter / 2 + 4) for view in VIEWS)
        if fits and all(_apart(breast, place, diameter, other) for other in others):
            break
    return place


def _apart(breast: Breast, place: Place, diameter: float, other: Lesion) -> bool:
    least = (diameter + other.diameter) / 2 + GAP
    return all(
        np.hypot(*np.subtract(project(breast, view, place), project(breast, view, other.place))) >= least
        for view in VIEWS
    )


def draw_patch(rng: np.random.Generator, lesion: Lesion, spacing: float, offset: tuple[float, float]) -> Patch:
    """Draw the opacity one lesion adds to one view, before the breast's thickness weighs it.

    Parameters
    ----------
    spacing : mm a pixel.
    offset : x, y in -0.5..0.5 pixels from the centre of the patch's middle pixel to the lesion's centre.

    Returns
    -------
    float64 (N, N), N odd: 0 outside the lesion, whose extent is about its diameter.
    """
    half = int(np.ceil(0.62 * lesion.diameter / spacing)) + 2
    axis = np.arange(-half, half + 1)
    x, y = (axis[None, :] - offset[0]) * spacing, (axis[:, None] - offset[1]) * spacing
    shape = _calcifications if lesion.lesion_type == "calcifications" else _mass
    patch = shape(rng, lesion, x, y, spacing)
    floor = INVISIBLE * patch.max()
    return np.clip(patch - floor, 0, None) * patch.max() / (patch.max() - floor)


def _mass(rng: np.random.Generator, lesion: Lesion, x: Patch, y: Patch, spacing: float) -> Patch:
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    core = lesion.diameter / 2 * (0.66 if lesion.spicules else 0.88)
    margin = core * _wavy(rng, lesion.irregularity, angle)
    edge = core * (0.12 + 0.7 * lesion.softness)
    body = _smoothstep((margin + 0.4 * edge - radius) / edge)
    body *= 1 + 0.15 * np.cos(angle * rng.integers(1, 4) + rng.uniform(0, 6.3)) * np.clip(radius / core, 0, 1)
    rays = _spicules(rng, lesion, radius, angle, core, spacing)
    return lesion.contrast * np.maximum(body, rays)


def _wavy(rng: np.random.Generator, irregularity: float, angle: Patch) -> Patch:
    """Outline over the angle, relative to the mean radius: an ellipse with lobes."""
    waves = 1 + (0.06 + 0.06 * rng.random()) * np.cos(2 * angle + rng.uniform(0, 6.3))
    for order in range(3, 9):
        waves = waves + irregularity * rng.normal(0, 0.16 / order**0.7) * np.cos(order * angle + rng.uniform(0, 6.3))
    return np.clip(waves, 0.55, 1.25)


def _spicules(
    rng: np.random.Generator, lesion: Lesion, radius: Patch, angle: Patch, core: float, spacing: float
) -> Patch:
    """Tapering lines that leave the core in all directions and end at the lesion's extent."""
    rays = np.zeros_like(radius)
    for number in range(lesion.spicules):
        direction = 2 * np.pi * (number + rng.uniform(-0.35, 0.35)) / lesion.spicules + rng.normal(0, 0.1)
        length = rng.uniform(0.85, 1.2) * lesion.diameter / 2
        width = max(rng.uniform(0.5, 1.0), spacing)
        turn = np.angle(np.exp(1j * (angle - direction - rng.normal(0, 0.25) * radius / length)))
        across = np.where(np.abs(turn) < np.pi / 2, radius * np.sin(turn), np.inf)
        fade = np.clip(1.15 - radius / length, 0, 1) ** 0.6 * (radius < 1.05 * length)
        rays = np.maximum(rays, rng.uniform(0.5, 0.9) * fade * np.exp(-((across / width) ** 2)))
    return rays * np.clip(radius / core + 0.3, 0, 1)


def _calcifications(rng: np.random.Generator, lesion: Lesion, x: Patch, y: Patch, spacing: float) -> Patch:
    """Specks in an ellipse: fine and uneven (malignant), coarse, or round and scattered (benign), on a faint haze."""
    reach = lesion.diameter / 2 * {"fine_pleomorphic": 0.9, "coarse": 0.8, "scattered": 1.1}[lesion.kind]
    tilt, flat = rng.uniform(0, np.pi), rng.uniform(0.55, 0.95)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for _ in range(lesion.specks):
        away, around = reach * 0.9 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        u, v = away * np.cos(around), flat * away * np.sin(around)
        centre = u * np.cos(tilt) - v * np.sin(tilt), u * np.sin(tilt) + v * np.cos(tilt)
        total = np.maximum(total, _speck(rng, lesion, x - centre[0], y - centre[1], spacing))
    if lesion.kind == "fine_pleomorphic":
        haze = _smoothstep(1.15 - np.hypot(x, y) / reach)
        total = np.maximum(total, 0) + lesion.contrast * rng.uniform(0.15, 0.45) * haze
    return total


def _speck(rng: np.random.Generator, lesion: Lesion, x: Patch, y: Patch, spacing: float) -> Patch:
    low, high, stretch, spread = {
        "fine_pleomorphic": (0.7, 1.6, 2.4, 0.35),
        "coarse": (2.0, 4.5, 1.5, 0.15),
        "scattered": (1.0, 2.0, 1.2, 0.15),
    }[lesion.kind]
    longer = np.sqrt(rng.uniform(1, 1 + (stretch - 1) * (0.4 + 0.6 * lesion.irregularity)))
    radius, tilt = rng.uniform(low, high) / 2, rng.uniform(0, np.pi)
    along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    q = np.hypot(along / max(radius * longer, spacing), across / max(radius / longer, 0.8 * spacing))
    return lesion.contrast * np.exp(rng.normal(0, spread)) * np.clip(1.3 * (1 - q**2), 0, 1)


def _smoothstep(t: Patch) -> Patch:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
