"""From a compressed frame to its pixels, or an error: never a picture of half a codestream."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import libjpeg
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from mammoflow.errors import RenderError
from mammoflow.images.buffers import give_back
from mammoflow.images.huffman import NotCovered, TruncatedStream
from mammoflow.images.jpeg import check_sequential, decode_lossless
from mammoflow.images.jpeg2000 import check_jpeg2000
from mammoflow.images.unraised import raising_unraisable

Decoders = dict[UID, Callable[[bytes], tuple[Any, str]]]
END_OF_IMAGE = b"\xff\xd9"


def decode(codestream: bytes, syntax: UID, decoders: Decoders) -> tuple[NDArray[Any], str]:
    """Decode a frame.

    Parameters
    ----------
    codestream : the frame, its fragments joined.
    syntax : transfer syntax, one of `decoders`.
    decoders : `DECODERS`, or those of `mammoflow.images.gpu`.

    Returns
    -------
    integer array, (H, W) or, for colour, (H, W, C); and the name of the decoder.

    Raises
    ------
    RenderError
        The codestream is truncated, or `syntax` isn't read.
    BadStream, ValueError, RuntimeError
        The codestream is damaged.
    """
    if syntax not in decoders:
        raise RenderError("unsupported_transfer_syntax", f"transfer syntax {syntax} is not read")
    try:
        frame, decoder = decoders[syntax](codestream)
    except TruncatedStream as error:
        raise RenderError("truncated_pixel_data", f"the compressed picture ends early: {error}") from error
    return np.asarray(frame), decoder


def _lossless(data: bytes) -> tuple[Any, str]:
    try:
        return decode_lossless(data), "mammoflow.jpeg"
    except NotCovered:
        return _told_apart(data), "imagecodecs.jpeg8"


def _told_apart(data: bytes) -> Any:
    """Decode a rare kind of JPEG lossless, and see by decoding twice more whether it was whole.

    The library fills missing pixels in without a word. A complete stream ignores a tail, a truncated one decodes it.
    """
    end = data.rfind(END_OF_IMAGE)
    if end < 0:
        raise TruncatedStream("no end marker")
    first, second = (imagecodecs.jpeg8_decode(data[:end] + tail * 64 + END_OF_IMAGE) for tail in (b"\0", b"\x55"))
    if not np.array_equal(first, second):
        raise TruncatedStream("the data end before the last pixel")
    return imagecodecs.jpeg8_decode(data)


def _sequential(data: bytes) -> tuple[Any, str]:
    """Decode JPEG baseline or extended, whose libraries fill missing blocks in without a word."""
    if check_sequential(data) == 8:
        return imagecodecs.jpeg8_decode(data), "imagecodecs.jpeg8"
    return libjpeg.decode(data), "libjpeg"


def _jpeg_ls(data: bytes) -> tuple[Any, str]:
    if data.rfind(END_OF_IMAGE) < 0:  # the two bytes can't occur inside
        raise TruncatedStream("no end marker")
    return imagecodecs.jpegls_decode(data), "imagecodecs.jpegls"


def _jpeg2000(data: bytes) -> tuple[Any, str]:
    check_jpeg2000(data)
    give_back()  # OpenJPEG takes 4 bytes a pixel, and copies them
    return imagecodecs.jpeg2k_decode(data), "imagecodecs.jpeg2k"


def _htj2k(data: bytes) -> tuple[Any, str]:
    check_jpeg2000(data)
    with raising_unraisable():  # imagecodecs 2026.3 gives half a picture where OpenJPH stops with an error
        return imagecodecs.htj2k_decode(data), "imagecodecs.htj2k"


JPEG_2000_FAMILY = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
DECODERS: Decoders = {
    JPEGBaseline8Bit: _sequential,
    JPEGExtended12Bit: _sequential,
    JPEGLossless: _lossless,
    JPEGLosslessSV1: _lossless,
    JPEGLSLossless: _jpeg_ls,
    JPEGLSNearLossless: _jpeg_ls,
    JPEG2000Lossless: _jpeg2000,
    JPEG2000: _jpeg2000,
    HTJ2KLossless: _htj2k,
    HTJ2KLosslessRPCL: _htj2k,
    HTJ2K: _htj2k,
}
