"""Grey PNG files (ISO/IEC 15948), 8 and 16 bits: the filter "up", and the project's own deflate for what it leaves."""

import struct

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mammoflow.images.buffers import empty
from mammoflow.images.deflate import compress

Part = bytes | NDArray[np.uint8]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREYSCALE = 0  # colour type
UP = 2  # filter type: difference to the pixel above, which parts a mammogram's noise from its shape well enough


def encode_png(picture: NDArray[np.uint8] | NDArray[np.uint16]) -> memoryview:
    """Encode a grey picture, uint8 or uint16, (H, W), as a PNG of 8 or 16 bits; return its bytes."""
    height, width = picture.shape
    size = picture.dtype.itemsize
    samples = picture if size == 1 else picture.astype(">u2")
    filtered = empty((height, 1 + width * size), np.uint8)
    rows = np.ascontiguousarray(samples).view(np.uint8).reshape(height, width * size)
    filtered[:, 0], filtered[0, 1:] = UP, rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256
    header = struct.pack(">2L5B", width, height, 8 * size, GREYSCALE, 0, 0, 0)
    return _joined(SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", *compress(filtered.ravel())), *_chunk(b"IEND"))


def _chunk(kind: bytes, *data: Part) -> list[Part]:
    crc = isal_zlib.crc32(kind)
    for part in data:
        crc = isal_zlib.crc32(part, crc)
    return [struct.pack(">L", sum(map(len, data))), kind, *data, struct.pack(">L", crc)]


def _joined(*parts: Part) -> memoryview:
    """Join in memory that is used again, which `bytes` isn't."""
    whole, end = empty((sum(map(len, parts)),), np.uint8), 0
    for part in parts:
        whole[end : end + len(part)] = np.frombuffer(part, np.uint8)
        end += len(part)
    return whole.data
