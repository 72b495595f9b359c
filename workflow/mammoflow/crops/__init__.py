"""Crops: malignant and benign cut-outs of mammograms, both kinds gathered the same way, with their provenance.

`match` says which detections become crops and of which kind, `cut` cuts them out.
"""

from mammoflow.crops.cut import crop_box, crop_side, cut, cut_shard, pixel_spacings, read_source
from mammoflow.crops.match import Candidate, expert_frames, mine

__all__ = [
    "Candidate",
    "crop_box",
    "crop_side",
    "cut",
    "cut_shard",
    "expert_frames",
    "mine",
    "pixel_spacings",
    "read_source",
]
