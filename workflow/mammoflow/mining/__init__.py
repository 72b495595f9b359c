"""Mining in rounds: detectors that learn, besides the expert's frames, from frames that earlier detectors made.

`frames` says which frames of a round are accepted, `labels` writes what the next round learns from.
"""

from mammoflow.mining.frames import accept_frames
from mammoflow.mining.labels import write_round

__all__ = ["accept_frames", "write_round"]
