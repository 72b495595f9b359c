"""JPEG 2000 and HTJ2K decoded on a GPU by nvImageCodec, an optional library: pixel-equal to the CPU's, or not used.

Only reversible codestreams are taken, which by the standard (ITU-T T.800) come out in one way alone. The first picture
of each process is decoded on the CPU too, and one different pixel ends the use of the GPU there.
"""

import logging
from functools import cache
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoflow.images.decoders import DECODERS, JPEG_2000_FAMILY, Decoders
from mammoflow.images.jpeg2000 import check_jpeg2000, is_reversible

log = logging.getLogger("mammoflow")


@cache
def decoders(jpeg2000: str) -> Decoders:
    """Return the decoders of a setting `images.jpeg2000`: ``cpu``, or ``gpu`` where there is one and the library."""
    if jpeg2000 == "cpu":
        return DECODERS
    try:
        decode = _nvimagecodec()
    except (ImportError, RuntimeError) as error:
        log.warning("images.jpeg2000: gpu, but there is none to decode on (%s): the CPU does", error)
        return DECODERS
    return checked_decoders(decode)


def checked_decoders(decode: Any) -> Decoders:
    """Put `decode` (codestream to array, or None where it can't) before the CPU's decoders of JPEG 2000."""
    checked = _Checked(decode)
    return DECODERS | {syntax: checked.before(DECODERS[syntax]) for syntax in JPEG_2000_FAMILY}


def _nvimagecodec() -> Any:
    """Make nvImageCodec's decoder of pixels as they are stored (its documentation, `Decoder` and `DecodeParams`)."""
    nvimgcodec = import_module("nvidia.nvimgcodec")  # in no stage's environment: whoever wants it installs it
    decoder = nvimgcodec.Decoder()
    settings = nvimgcodec.DecodeParams(allow_any_depth=True, color_spec=nvimgcodec.ColorSpec.UNCHANGED)

    def decode(codestream: bytes) -> NDArray[Any] | None:
        image = decoder.decode(nvimgcodec.CodeStream(codestream), params=settings)
        if image is None:
            return None
        pixels = np.asarray(image.cpu())
        return pixels[..., 0] if pixels.ndim == 3 else pixels  # one component, as the caller has seen to

    return decode


class _Checked:
    """A GPU's decoder while it is trusted; one call at a time."""

    def __init__(self, decode: Any):
        self.decode, self.lock = decode, Lock()
        self.equal: bool | None = None  # None: no picture was compared yet

    def before(self, on_cpu: Any) -> Any:
        """Return a decoder as those of `DECODERS`, which falls back on `on_cpu`."""

        def decode(codestream: bytes) -> tuple[Any, str]:
            check_jpeg2000(codestream)
            found = self._tried(codestream) if is_reversible(codestream) else None
            if self.equal and found is not None:
                return found, "nvimagecodec"
            expected, decoder = on_cpu(codestream)
            if self.equal is None and found is not None:
                self.equal = found.dtype == expected.dtype and np.array_equal(found, expected)
                log.info("the GPU's first picture is %s the CPU's", "equal to" if self.equal else "not")
            return expected, decoder

        return decode

    def _tried(self, codestream: bytes) -> NDArray[Any] | None:
        if self.equal is False:
            return None
        try:
            with self.lock:
                return self.decode(codestream)
        except (RuntimeError, ValueError) as error:
            log.warning("the GPU decodes a picture not (%s): the CPU does", error)
            return None
