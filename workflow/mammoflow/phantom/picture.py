"""One view of one breast as a machine stores it, with the exact box of everything in it that has a truth."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.phantom.anatomy import Breast, project
from mammoflow.phantom.lesions import Lesion, draw_patch
from mammoflow.phantom.machines import Machine
from mammoflow.phantom.streams import stream
from mammoflow.phantom.tissue import Image, draw_tissue, nipple_mask, power_law

Box = tuple[int, int, int, int]  # x1, y1, x2, y2, half-open
Mask = NDArray[np.bool_]
MARKER = 1.15  # opacity of lead letters and film labels
UNEVEN = 0.13  # sd of a lesion's opacity over its extent, relative


@dataclass(frozen=True)
class Truth:
    """What is at a place of an image; `lesion` is None for the nipple and the pectoral muscle.

    `mask` says which pixels of `box` it covers, (y2 - y1, x2 - x1).
    """

    lesion: Lesion | None
    box: Box
    mask: Mask = field(compare=False, repr=False)


@dataclass(frozen=True)
class View:
    """Which view of which breast, and the names of its random streams."""

    image_laterality: str
    view_position: str
    seed: int
    names: tuple[str | int, ...]

    def stream(self, what: str) -> np.random.Generator:
        """Return the random stream of `what` in this view."""
        return stream(self.seed, *self.names, self.image_laterality, self.view_position, what)


def matrix(machine: Machine, scale: float) -> tuple[tuple[int, int], float]:
    """Rows and columns of a machine's pictures and mm a pixel, its matrix enlarged by `scale`."""
    shape = round(machine.rows * scale), round(machine.columns * scale)
    return shape, machine.imager_pixel_spacing * machine.rows / shape[0]


def draw_view(
    view: View, breast: Breast, lesions: list[Lesion], machine: Machine, scale: float
) -> tuple[NDArray[np.uint16], list[Truth], Truth | None]:
    """Draw a view.

    Everything but the lesions' own opacity is the same whatever `lesions` are.

    Returns
    -------
    pixels : uint16 (rows, columns), stored values of the machine.
    truths : the lesions in the order given, then the nipple.
    pectoral : the muscle, None where the view shows none.
    """
    shape, spacing = matrix(machine, scale)
    opacity, thickness, muscle = draw_tissue(view.stream("tissue"), breast, view.view_position, shape, spacing)
    nipple = nipple_mask(breast, view.view_position, shape, spacing)
    truths = [
        _add_lesion(view, number, lesion, breast, opacity, thickness, spacing) for number, lesion in enumerate(lesions)
    ]
    truths.append(_truth_of(nipple))
    pectoral = _truth_of(muscle) if muscle.any() else None
    body = opacity > 0
    opacity += _noise(view, machine, shape, spacing) * (0.35 + 0.65 * thickness)
    if view.image_laterality == "R":
        opacity, body = opacity[:, ::-1], body[:, ::-1]
        truths = [_mirror(truth, shape[1]) for truth in truths]
        pectoral = pectoral and _mirror(pectoral, shape[1])
    label = _draw_label(view, machine, body, spacing)
    return machine.store(np.where(label > 0, label, opacity)), truths, pectoral


def _add_lesion(
    view: View, number: int, lesion: Lesion, breast: Breast, opacity: Image, thickness: Image, spacing: float
) -> Truth:
    """Add a lesion to `opacity` in place and return where it changed it."""
    rng = view.stream(f"lesion {number}")
    x, y = (coordinate / spacing - 0.5 for coordinate in project(breast, view.view_position, lesion.place))
    column, row = round(x), round(y)
    patch = draw_patch(rng, lesion, spacing, (x - column, y - row))
    patch *= np.clip(1 + UNEVEN * power_law(rng, patch.shape, spacing, 3.0, 10), 0.5, 1.5)
    half = patch.shape[0] // 2
    top, left = max(0, half - row), max(0, half - column)
    region = np.s_[row - half + top : row + half + 1, column - half + left : column + half + 1]
    added = (patch[top:, left:][: opacity[region].shape[0], : opacity[region].shape[1]] * thickness[region]).astype(
        np.float32
    )
    opacity[region] += added
    return _truth_of(added > 0, lesion, (column - half + left, row - half + top))


def _truth_of(mask: Mask, lesion: Lesion | None = None, corner: tuple[int, int] = (0, 0)) -> Truth:
    """Truth of a mask whose upper left pixel is at `corner` (x, y) of the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    box = x1 + corner[0], y1 + corner[1], x2 + corner[0], y2 + corner[1]
    return Truth(lesion, box, mask[y1:y2, x1:x2].copy())


def _mirror(truth: Truth, width: int) -> Truth:
    x1, y1, x2, y2 = truth.box
    return Truth(truth.lesion, (width - x2, y1, width - x1, y2), truth.mask[:, ::-1])


def _noise(view: View, machine: Machine, shape: tuple[int, int], spacing: float) -> Image:
    rng = view.stream("noise")
    if machine.grain_mm == 0:
        return machine.noise * rng.standard_normal(shape, dtype=np.float32)
    return machine.noise * power_law(rng, shape, spacing, 2.0, 4 * machine.grain_mm)


def _draw_label(view: View, machine: Machine, body: NDArray[np.bool_], spacing: float) -> Image:
    """Draw the opacity of lead letters or a film label in the upper corner away from the chest wall, 0 elsewhere.

    Half of the pictures have none, and none is drawn where it would touch the breast.
    """
    rng = view.stream("label")
    label, none = np.zeros(body.shape, np.uint8), np.zeros(body.shape, np.float32)
    is_film, has_letters, x, y = rng.random() < machine.label_share, rng.random() < 0.5, *rng.uniform(5, 12, 2)
    if not (is_film or has_letters):
        return none
    font, size, thick = cv2.FONT_HERSHEY_SIMPLEX, 0.25 / spacing, max(1, round(0.7 / spacing))
    text = f"{view.image_laterality} {view.view_position}"
    (width, height), _ = cv2.getTextSize(text, font, size, thick)
    left = x / spacing if view.image_laterality == "R" else body.shape[1] - x / spacing - width
    origin, pad = (round(left), round(y / spacing) + height), round(2.5 / spacing)
    if is_film:
        corner = origin[0] - pad, origin[1] - height - pad
        cv2.rectangle(label, corner, (origin[0] + width + pad, origin[1] + pad), 255, cv2.FILLED)
    cv2.putText(label, text, origin, font, size, 30 if is_film else 255, thick, cv2.LINE_AA)
    return none if (body & (label > 0)).any() else (label * np.float32(MARKER / 255))
