"""The mammography machines of phantom hospitals: what their files and their pictures look like."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1


@dataclass(frozen=True)
class Machine:
    """One make of machine.

    Opacity is the phantom's own grey scale before any machine: 0 is air, about 0.4 fat, about 0.8 dense tissue,
    above 1 metal markers.
    """

    name: str
    rows: int  # at scale 1
    columns: int  # at scale 1
    imager_pixel_spacing: float  # mm at scale 1
    bits_stored: int
    transfer_syntax: UID
    photometric_interpretation: str  # MONOCHROME1: stored values are inverted
    voi_lut_function: str  # LINEAR or SIGMOID
    with_voi_lut: bool  # a VOI LUT Sequence beside the window
    windows: tuple[tuple[str, float, float], ...]  # explanation, darkest and brightest opacity shown
    air: float  # stored value of air, share of the full range
    gain: float  # stored value of opacity 1 above air, share of the full range
    gamma: float  # grey-level response: stored = air + gain * opacity ** gamma
    noise: float  # sd of quantum noise, opacity
    grain_mm: float  # correlation length of the noise; 0: pixels are independent
    label_share: float  # of images with a film label rather than letters, 0..1
    snomed: str  # coding scheme designator of view codes: SRT (older software) or SCT

    @property
    def full_range(self) -> int:
        """Largest value that can be stored."""
        return 2**self.bits_stored - 1

    def respond(self, opacity: NDArray[np.float32]) -> NDArray[np.float64]:
        """Grey level before inversion of `opacity`, as a real number in units of stored values, not yet clipped."""
        response = np.power(np.clip(opacity, 0, None, dtype=np.float64), self.gamma)
        return self.full_range * (self.air + self.gain * response)

    def store(self, opacity: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Give the stored values of `opacity`, any shape: response, rounding, inversion for MONOCHROME1."""
        grey = np.rint(np.clip(self.respond(opacity), 0, self.full_range)).astype(np.uint16)
        inverted = self.photometric_interpretation == "MONOCHROME1"
        return np.uint16(self.full_range) - grey if inverted else grey

    def window_values(self) -> list[tuple[str, float, float]]:
        """Explanation, centre and width of each window, in stored values (PS3.3 C.11.2)."""
        ends = [(name, *self.respond(np.array([low, high], np.float32))) for name, low, high in self.windows]
        middle = [(name, (dark + bright) / 2, bright - dark) for name, dark, bright in ends]
        if self.photometric_interpretation == "MONOCHROME1":
            middle = [(name, self.full_range - center, width) for name, center, width in middle]
        return [(name, round(center, 1), round(width, 1)) for name, center, width in middle]


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            name="alpha",
            rows=800,
            columns=640,
            imager_pixel_spacing=0.3,
            bits_stored=12,
            transfer_syntax=ExplicitVRLittleEndian,
            photometric_interpretation="MONOCHROME2",
            voi_lut_function="LINEAR",
            with_voi_lut=True,
            windows=(("NORMAL", 0.08, 1.0),),
            air=0.01,
            gain=0.85,
            gamma=1.0,
            noise=0.012,
            grain_mm=0.0,
            label_share=0.0,
            snomed="SRT",
        ),
        Machine(
            name="beta",
            rows=720,
            columns=576,
            imager_pixel_spacing=0.33,
            bits_stored=14,
            transfer_syntax=JPEGLosslessSV1,
            photometric_interpretation="MONOCHROME1",
            voi_lut_function="SIGMOID",
            with_voi_lut=False,
            windows=(("NORMAL", 0.15, 0.95),),
            air=0.06,
            gain=0.6,
            gamma=0.8,
            noise=0.016,
            grain_mm=0.35,
            label_share=0.1,
            snomed="SRT",
        ),
        Machine(
            name="gamma",
            rows=880,
            columns=704,
            imager_pixel_spacing=0.27,
            bits_stored=16,
            transfer_syntax=JPEG2000Lossless,
            photometric_interpretation="MONOCHROME2",
            voi_lut_function="LINEAR",
            with_voi_lut=False,
            windows=(("NORMAL", 0.1, 0.95), ("HARDER", 0.25, 0.85)),
            air=0.02,
            gain=0.7,
            gamma=1.5,
            noise=0.014,
            grain_mm=0.0,
            label_share=0.0,
            snomed="SCT",
        ),
        Machine(
            name="delta",
            rows=768,
            columns=608,
            imager_pixel_spacing=0.31,
            bits_stored=12,
            transfer_syntax=JPEG2000Lossless,
            photometric_interpretation="MONOCHROME2",
            voi_lut_function="SIGMOID",
            with_voi_lut=False,
            windows=(("NORMAL", 0.2, 0.85), ("SOFTER", 0.0, 1.1)),
            air=0.0,
            gain=0.75,
            gamma=1.2,
            noise=0.022,
            grain_mm=0.5,
            label_share=0.0,
            snomed="SCT",
        ),
        Machine(
            name="epsilon",
            rows=640,
            columns=512,
            imager_pixel_spacing=0.38,
            bits_stored=14,
            transfer_syntax=JPEGLosslessSV1,
            photometric_interpretation="MONOCHROME2",
            voi_lut_function="LINEAR",
            with_voi_lut=False,
            windows=(("NORMAL", 0.0, 1.15),),
            air=0.1,
            gain=0.5,
            gamma=0.7,
            noise=0.02,
            grain_mm=0.8,
            label_share=0.6,
            snomed="SRT",
        ),
    )
}
