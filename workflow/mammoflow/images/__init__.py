"""Images: windowed 8-bit pictures of stored values, exact by the standard.

The stage, which converts shards and needs tables besides, is `mammoflow.images.converting`.
"""

from mammoflow.images.breast import breast_box, breast_mask
from mammoflow.images.rendering import Record, render

__all__ = ["Record", "breast_box", "breast_mask", "render"]
