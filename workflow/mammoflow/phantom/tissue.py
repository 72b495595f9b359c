"""Opacity of a breast without lesions: fat and gland of power-law texture, fibres, skin, nipple, pectoral muscle.

Mammographic texture has a power spectrum near ``1 / f**3`` (Burgess, Jacobson and Judy, Med Phys 28, 2001).
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from mammoflow.phantom.anatomy import Breast, nipple, outline

Image = NDArray[np.float32]

GLAND_SHARE = {"a": 0.1, "b": 0.28, "c": 0.5, "d": 0.75}  # of the breast's area
FAT = 0.36
GLAND = 0.25  # opacity of gland above fat
PECTORAL = 0.3  # opacity of muscle above fat
SKIN_FAT = 7.0  # mm of fat below the skin, without gland


def power_law(
    rng: np.random.Generator,
    shape: tuple[int, int],
    spacing: float,
    exponent: float,
    longest: float,
    stretch: float = 1.0,
) -> Image:
    """Gaussian texture with power spectrum ``1 / f**exponent``, mean 0, standard deviation 1, shape `shape`.

    Parameters
    ----------
    spacing : mm a pixel.
    exponent : of the power spectrum.
    longest : wavelength in mm above which the spectrum is flat.
    stretch : how many times longer structures are along x than along y.
    """
    rows, columns = (scipy.fft.next_fast_len(n, real=True) for n in shape)
    white = rng.standard_normal((rows, columns), dtype=np.float32)
    fy = scipy.fft.fftfreq(rows, spacing)[:, None]
    fx = scipy.fft.rfftfreq(columns, spacing)[None, :] * stretch
    amplitude = np.maximum(np.hypot(fy, fx), 1 / longest) ** (-exponent / 2)
    texture = scipy.fft.irfft2(scipy.fft.rfft2(white) * amplitude.astype(np.float32), s=(rows, columns))
    texture = texture[: shape[0], : shape[1]]
    return ((texture - texture.mean()) / texture.std()).astype(np.float32)


def breast_mask(breast: Breast, view_position: str, shape: tuple[int, int], spacing: float) -> NDArray[np.bool_]:
    """Pixels of the breast without its nipple, shape `shape`."""
    y, x = _centres(shape, spacing)
    return x[None, :] < outline(breast, view_position, y)[:, None]


def nipple_mask(breast: Breast, view_position: str, shape: tuple[int, int], spacing: float) -> NDArray[np.bool_]:
    """Pixels of the nipple, an ellipse on the contour, shape `shape`."""
    return _nipple_distance(breast, view_position, shape, spacing) < 1


def _nipple_distance(
    breast: Breast, view_position: str, shape: tuple[int, int], spacing: float
) -> NDArray[np.floating]:
    """Distance from the nipple's centre, 1 at its edge."""
    y, x = _centres(shape, spacing)
    centre_x, centre_y = nipple(breast, view_position)
    radius = breast.nipple_diameter / 2
    return np.hypot((x[None, :] - centre_x) / (0.85 * radius), (y[:, None] - centre_y) / radius)


def draw_tissue(
    rng: np.random.Generator, breast: Breast, view_position: str, shape: tuple[int, int], spacing: float
) -> tuple[Image, Image, NDArray[np.bool_]]:
    """Draw the opacity of a breast and the thickness that weighs everything in it.

    Returns
    -------
    opacity : float32 (H, W), 0 in air.
    thickness : float32 (H, W), 0 in air, 1 where the breast is fully compressed.
    pectoral : bool (H, W), pixels that are muscle by more than half; none in a CC view.
    """
    body = breast_mask(breast, view_position, shape, spacing)
    depth = _distance(body, spacing)
    thickness = compressed(depth)
    gland = _gland(rng, breast, view_position, body, depth, spacing)
    opacity = _with_texture(rng, gland, spacing)
    pectoral = np.zeros(shape, np.bool_)
    if view_position == "MLO":
        muscle = _pectoral(rng, breast, shape, spacing)
        opacity += muscle * (PECTORAL - 0.7 * GLAND * gland)
        pectoral = (muscle > 0.5) & body
    skin = np.exp(-(((depth - 1.2) / 0.9) ** 2)) * 0.07
    opacity = np.where(body, opacity * (0.15 + 0.85 * thickness) + skin, 0).astype(np.float32)
    return _with_nipple(opacity, breast, view_position, spacing), thickness, pectoral


def compressed(depth: Image) -> Image:
    """Thickness of the compressed breast, share of the fullest, `depth` mm inside its outline."""
    return np.sqrt(1 - (1 - np.clip(depth / 26, 0, 1)) ** 2).astype(np.float32)


def draw_inner_tissue(rng: np.random.Generator, density: str, shape: tuple[int, int], spacing: float) -> Image:
    """Draw the opacity of a piece of fully compressed breast without skin, nipple and muscle, float32 `shape`.

    Parameters
    ----------
    density : of the breast; a piece of it has more or less gland than that.
    spacing : mm a pixel.
    """
    score = _gland_texture(rng, shape, spacing)
    share = np.clip(GLAND_SHARE[density] * np.exp(rng.normal(0, 0.6)), 0.02, 0.98)
    gland = _soft_step(score - np.quantile(score, 1 - share))
    return _with_texture(rng, gland, spacing).astype(np.float32)


def _with_texture(rng: np.random.Generator, gland: Image, spacing: float) -> Image:
    """Opacity of fat, `gland` (share, 0..1) and fibres."""
    shape = gland.shape
    cloudy, fine = power_law(rng, shape, spacing, 3.4, 60), power_law(rng, shape, spacing, 3.0, 14, stretch=1.6)
    fat = FAT + 0.025 * cloudy + 0.012 * fine
    return fat + gland * GLAND * (1 + 0.1 * fine) + _fibres(rng, shape, spacing) * (0.06 + 0.02 * gland)


def _gland_texture(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> Image:
    return power_law(rng, shape, spacing, 3.5, 80, stretch=1.3) + 0.25 * power_law(rng, shape, spacing, 2.8, 20, 1.8)


def _soft_step(score: Image) -> Image:
    return (1 / (1 + np.exp(-score / 0.4))).astype(np.float32)


def _centres(shape: tuple[int, int], spacing: float) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return (np.arange(shape[0]) + 0.5) * spacing, (np.arange(shape[1]) + 0.5) * spacing


def _distance(mask: NDArray[np.bool_], spacing: float) -> Image:
    """Distance in mm of each pixel inside `mask` from the nearest outside, where the picture's border is no outside."""
    return (distance_transform_edt(mask) * spacing).astype(np.float32)


def _gland(
    rng: np.random.Generator,
    breast: Breast,
    view_position: str,
    body: NDArray[np.bool_],
    depth: Image,
    spacing: float,
) -> Image:
    """Share of gland in 0..1: where texture, and a cone behind the nipple, are densest; its area is the density's."""
    y, x = _centres(body.shape, spacing)
    nipple_x, nipple_y = nipple(breast, view_position)
    cone = np.hypot(
        (x[None, :] - 0.62 * nipple_x) / (0.5 * breast.depth), (y[:, None] - nipple_y + 8) / breast.half_height
    )
    score = _gland_texture(rng, body.shape, spacing) - 2.4 * cone - 2.5 * np.exp(-depth / SKIN_FAT)
    return _soft_step(score - np.quantile(score[body], 1 - GLAND_SHARE[breast.density]))


def _fibres(rng: np.random.Generator, shape: tuple[int, int], spacing: float) -> Image:
    """Thin bright curves in 0..1: the zero crossings of smooth texture, like ligaments, ducts and vessels."""
    ridges = []
    for longest, stretch in ((26, 2.0), (14, 1.5)):
        texture = power_law(rng, shape, spacing, 6.0, longest, stretch)
        patches = power_law(rng, shape, spacing, 4.0, 40)
        ridges.append(np.clip(1 - np.abs(texture) / 0.09, 0, 1) * np.clip(patches, 0, 1.5))
    return np.clip(ridges[0] + 0.7 * ridges[1], 0, 1.5).astype(np.float32)


def _pectoral(rng: np.random.Generator, breast: Breast, shape: tuple[int, int], spacing: float) -> Image:
    """Muscle in 0..1: a triangle in the upper corner at the chest wall, its edge slightly convex and soft."""
    y, x = _centres(shape, spacing)
    along = np.clip(y / breast.pectoral_height, 0, 1.2)
    edge = breast.pectoral_width * (1 - along) + rng.uniform(2, 7) * np.sin(np.pi * np.clip(along, 0, 1))
    return (1 / (1 + np.exp((x[None, :] - edge[:, None]) / 1.2))).astype(np.float32)


def _with_nipple(opacity: Image, breast: Breast, view_position: str, spacing: float) -> Image:
    distance = _nipple_distance(breast, view_position, opacity.shape, spacing)
    dome = np.sqrt(np.clip(1.25 * (1 - distance), 0, 1))
    return np.where(distance < 1, np.maximum(opacity, 0.2 + 0.4 * dome), opacity).astype(np.float32)
