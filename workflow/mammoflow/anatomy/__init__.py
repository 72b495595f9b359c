"""Where in the breast: nipple, half-plane and quadrant of each lesion detection, distance from the nipple."""

from mammoflow.anatomy.locate import locate, locate_shard

__all__ = ["locate", "locate_shard"]
