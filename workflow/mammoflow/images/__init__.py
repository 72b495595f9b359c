"""Images: windowed 8-bit pictures of stored values, exact by the standard, in shards."""

from mammoflow.images.breast import breast_box, breast_mask
from mammoflow.images.converting import convert_shard
from mammoflow.images.rendering import Record, render

__all__ = ["Record", "breast_box", "breast_mask", "convert_shard", "render"]
