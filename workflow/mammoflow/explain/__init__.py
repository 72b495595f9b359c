"""Explain: which pixels made a detector frame a lesion, and a classifier call it malignant.

Layer-wise relevance propagation (LRP) for YOLO detectors, ResNets and vision transformers by one engine; maps come back
in the geometry of the picture that was explained.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mammoflow.explain.crops import explain_crop, explain_crops
    from mammoflow.explain.detections import explain_detection, explain_detections_shard
    from mammoflow.explain.engine import Explainer, Explanation, relevance, relevances
    from mammoflow.explain.evaluation import evaluate
    from mammoflow.explain.trials import try_classifier, try_detector

__all__ = [
    "Explainer",
    "Explanation",
    "evaluate",
    "explain_crop",
    "explain_crops",
    "explain_detection",
    "explain_detections_shard",
    "relevance",
    "relevances",
    "try_classifier",
    "try_detector",
]

_MODULES = {
    "crops": ("explain_crop", "explain_crops"),
    "detections": ("explain_detection", "explain_detections_shard"),
    "engine": ("Explainer", "Explanation", "relevance", "relevances"),
    "evaluation": ("evaluate",),
    "trials": ("try_classifier", "try_detector"),
}


def __getattr__(name: str) -> Any:
    # evaluation needs no torch, whose import takes longer than its whole job
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"mammoflow.explain.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
