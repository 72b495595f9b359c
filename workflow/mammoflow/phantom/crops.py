"""Pictures of single phantom lesions, and of tissue without one, drawn as crops: many, cheap, and of nobody."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from mammoflow.phantom.anatomy import DENSITIES, DENSITY_SHARES
from mammoflow.phantom.lesions import KINDS, Lesion, draw_alone, draw_patch
from mammoflow.phantom.picture import UNEVEN
from mammoflow.phantom.streams import stream
from mammoflow.phantom.tissue import PECTORAL, Image, compressed, draw_inner_tissue, power_law

SPACINGS = (0.2, 0.4)  # mm a pixel of the machines
FRAMING = 0.2  # a frame's side differs from the lesion's by up to this share, and its centre by half of it
SKIN_SHARE, MUSCLE_SHARE = 0.25, 0.2  # of crops that show the breast's outline, the muscle's edge


def draw_crops(
    seed: int, count: int, crop_size: int, tissue_share: float, margin: float, side_mm: float | None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Draw crops as a detector would frame them on the pictures of many different machines.

    Half are malignant lesions. The others are benign lesions and, `tissue_share` of them, tissue without a lesion.
    Size of the field, machine, tissue and place are drawn alike for all, so that they tell nothing.

    Parameters
    ----------
    seed : of all randomness; crop n is the same whatever `count` is.
    crop_size : side of the pictures, pixels.
    margin : side of a crop in longer sides of the lesion's frame.
    side_mm : side of every crop instead, mm.

    Yields
    ------
    ``malignant``, ``benign`` or ``tissue``, and the crop, uint8 (crop_size, crop_size).
    """
    for number in range(count):
        rng = stream(seed, "crop", number)
        pathology = list(KINDS)[number % len(KINDS)]
        lesion = draw_alone(rng, pathology)
        shown = pathology == "malignant" or rng.random() >= tissue_share
        side = side_mm or margin * lesion.diameter * (1 + rng.uniform(-FRAMING, FRAMING))
        crop = _exposed(rng, _draw_opacity(rng, lesion if shown else None, side), crop_size)
        yield (pathology if shown else "tissue"), crop


def _draw_opacity(rng: np.random.Generator, lesion: Lesion | None, side: float) -> tuple[Image, float]:
    """Opacity of a square of `side` mm about a lesion or of tissue alone, and mm a pixel."""
    spacing = rng.uniform(*SPACINGS)
    pixels = max(16, round(side / spacing))
    opacity = draw_inner_tissue(rng, str(rng.choice(DENSITIES, p=DENSITY_SHARES)), (pixels, pixels), spacing)
    thickness = np.ones_like(opacity)
    if rng.random() < SKIN_SHARE:
        depth = _inwards(rng, opacity.shape, spacing, rng.uniform(0.1, 0.5) * side)
        thickness = np.where(depth > 0, 0.15 + 0.85 * compressed(np.clip(depth, 0, None)), 0).astype(np.float32)
    if rng.random() < MUSCLE_SHARE:
        depth = _inwards(rng, opacity.shape, spacing, rng.uniform(-0.3, 0.4) * side)
        opacity += PECTORAL / (1 + np.exp(np.clip(depth / 1.2, -50, 50)))
    if lesion is not None:
        opacity = _with_lesion(rng, opacity, lesion, spacing)
    return opacity * thickness, spacing


def _inwards(rng: np.random.Generator, shape: tuple[int, ...], spacing: float, depth: float) -> Image:
    """Distance in mm from a straight edge anywhere in the square, `depth` at the square's centre."""
    turn = rng.uniform(0, 2 * np.pi)
    y, x = ((np.arange(n) - (n - 1) / 2) * spacing for n in shape)
    return (depth + x[None, :] * np.cos(turn) + y[:, None] * np.sin(turn)).astype(np.float32)


def _with_lesion(rng: np.random.Generator, opacity: Image, lesion: Lesion, spacing: float) -> Image:
    patch = draw_patch(rng, lesion, spacing, (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)))
    patch *= np.clip(1 + UNEVEN * power_law(rng, patch.shape, spacing, 3.0, 10), 0.5, 1.5)
    reach = FRAMING / 2 * lesion.diameter / spacing
    half, size = patch.shape[0] // 2, opacity.shape[0]
    row, column = (round(size / 2 + rng.uniform(-reach, reach)) for _ in range(2))
    placed = np.zeros((size + 2 * half + 1,) * 2, np.float32)  # its middle row and column number n are n + half here
    inside = np.clip([row, column], 0, size)
    placed[inside[0] : inside[0] + 2 * half + 1, inside[1] : inside[1] + 2 * half + 1] = patch
    return opacity + placed[half : half + size, half : half + size]


def _exposed(rng: np.random.Generator, drawn: tuple[Image, float], crop_size: int) -> NDArray[np.uint8]:
    """Grey levels as one of many machines and windows would give them."""
    opacity, spacing = drawn
    sd, grain = rng.uniform(0.005, 0.025), rng.choice([0.0, 0.35, 0.8])
    noise = power_law(rng, opacity.shape, spacing, 2.0, 4 * grain) if grain else rng.standard_normal(opacity.shape)
    dark, bright = rng.uniform(0.0, 0.3), rng.uniform(0.8, 1.2)
    grey = np.clip((opacity + sd * noise - dark) / (bright - dark), 0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    full = np.rint(255 * grey).astype(np.uint8)
    shrinks = len(full) > crop_size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(full, (crop_size, crop_size), interpolation=interpolation), np.uint8)
