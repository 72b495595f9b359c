"""Explain: which pixels made a detector frame a lesion, and a classifier call it malignant.

Layer-wise relevance propagation (LRP) for YOLO detectors, ResNets and vision transformers by one engine; maps come back
in the geometry of the picture that was explained.
"""

from mammoflow.explain.crops import explain_crop, explain_crops
from mammoflow.explain.detections import explain_detection, explain_detections_shard
from mammoflow.explain.engine import Explainer, Explanation, relevance, relevances

__all__ = [
    "Explainer",
    "Explanation",
    "explain_crop",
    "explain_crops",
    "explain_detection",
    "explain_detections_shard",
    "relevance",
    "relevances",
]
