"""Invertible steps between the stored image and what a model sees.

A `Transform` maps points of the source image (pixels, origin at the top left corner of the top left pixel) to points of
another raster: crop, mirror, scale and shift only, so boxes stay axis-aligned.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from mammoflow.boxes import Boxes, as_boxes


@dataclass(frozen=True)
class Transform:
    """``u = scale_x * x + shift_x``, ``v = scale_y * y + shift_y`` onto a raster of `width` x `height` pixels.

    A negative scale mirrors. `width` and `height` are those of the target raster.
    """

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float
    width: int
    height: int

    @classmethod
    def resize(cls, source_width: int, source_height: int, width: int, height: int) -> "Transform":
        """Stretch a whole source image onto `width` x `height`."""
        return cls(width / source_width, height / source_height, 0.0, 0.0, width, height)

    @classmethod
    def fit_long_side(cls, source_width: int, source_height: int, long_side: int) -> "Transform":
        """Shrink (never enlarge) a whole source image so that its long side is at most `long_side`."""
        factor = min(1.0, long_side / max(source_width, source_height))
        width, height = max(1, round(source_width * factor)), max(1, round(source_height * factor))
        return cls.resize(source_width, source_height, width, height)

    @classmethod
    def window(cls, x1: float, y1: float, x2: float, y2: float, width: int, height: int) -> "Transform":
        """Cut the source region ``x1, y1, x2, y2`` and stretch it onto `width` x `height`."""
        sx, sy = width / (x2 - x1), height / (y2 - y1)
        return cls(sx, sy, -x1 * sx, -y1 * sy, width, height)

    def then(self, step: "Transform") -> "Transform":
        """Apply this transform, then `step` (whose source is this one's target)."""
        return Transform(
            self.scale_x * step.scale_x,
            self.scale_y * step.scale_y,
            self.shift_x * step.scale_x + step.shift_x,
            self.shift_y * step.scale_y + step.shift_y,
            step.width,
            step.height,
        )

    def mirrored(self) -> "Transform":
        """Apply this transform, then turn left and right around."""
        return Transform(-self.scale_x, self.scale_y, self.width - self.shift_x, self.shift_y, self.width, self.height)

    def forward(self, boxes: ArrayLike) -> Boxes:
        """Boxes of the source image as boxes of the target, shape (N, 4)."""
        return self._map(as_boxes(boxes), self.scale_x, self.scale_y, self.shift_x, self.shift_y)

    def backward(self, boxes: ArrayLike) -> Boxes:
        """Boxes of the target as boxes of the source image, shape (N, 4)."""
        sx, sy = 1 / self.scale_x, 1 / self.scale_y
        return self._map(as_boxes(boxes), sx, sy, -self.shift_x * sx, -self.shift_y * sy)

    @staticmethod
    def _map(boxes: Boxes, sx: float, sy: float, dx: float, dy: float) -> Boxes:
        corners = boxes * [sx, sy, sx, sy] + [dx, dy, dx, dy]
        low = np.minimum(corners[:, :2], corners[:, 2:])
        return np.hstack([low, np.maximum(corners[:, :2], corners[:, 2:])])

    def to_json(self) -> str:
        """One line of JSON, as the `transform` column of tables holds it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Transform":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))
