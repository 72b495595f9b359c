"""How a trained detector runs: layers folded, half precision on a GPU, ONNX Runtime on a CPU when asked and equal."""

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.nn.modules.head import Detect

from mammoflow.detect.infer import forward
from mammoflow.detect.model import Detector, is_rtdetr
from mammoflow.detect.preprocess import letterbox_canvas

log = logging.getLogger("mammoflow")
OPSET = 17
SAME_PIXELS, SAME_SCORE = 0.5, 0.001  # frames of two backends that differ by less are equal


class OnnxNetwork(torch.nn.Module):
    """A detector's network run by ONNX Runtime; input and output as the network's, float32, on the CPU."""

    def __init__(self, model: torch.nn.Module, threads: int):
        import onnxruntime  # heavy, and no part of the environments of other stages that read detectors

        super().__init__()
        self.model = model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(export(model), options, providers=["CPUExecutionProvider"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Dense output, (N, 4 + classes, anchors), for inputs (N, 1, S, T)."""
        (output,) = self._session.run(None, {"picture": np.ascontiguousarray(inputs.numpy())})
        return torch.from_numpy(output)


def export(model: Any) -> bytes:
    """Return the ONNX file of a YOLO's network, any batch and picture size."""
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    head = model.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True
    example = torch.zeros(2, 1, 64, 96)
    with tempfile.TemporaryDirectory(prefix="mammoflow-onnx-") as directory, warnings.catch_warnings():
        file = Path(directory, "model.onnx")
        warnings.simplefilter("ignore")  # tracing's remarks on shapes that are fixed on purpose, and its age
        torch.onnx.export(
            model,
            (example,),
            str(file),
            input_names=["picture"],
            output_names=["dense"],
            dynamic_axes={"picture": {0: "batch", 2: "height", 3: "width"}, "dense": {0: "batch", 2: "anchors"}},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()


def for_inference(detector: Detector) -> Detector:
    """Fold each normalisation into its convolution; half precision on a GPU, channels last on a CPU.

    The detector given stays as it is: explanations need its layers.
    """
    model: Any = copy.deepcopy(detector.model)
    if hasattr(model, "fuse"):
        model = model.fuse(verbose=False)
    on_gpu = next(model.parameters()).device.type == "cuda"
    model = in_half_precision(model) if on_gpu else model.to(memory_format=torch.channels_last)
    return replace(detector, model=model.requires_grad_(False))


def in_half_precision(model: Any) -> Any:
    """Return the network in float16, but for the last step from a YOLO's output to frames and scores.

    From 1024 pixels on, float16 knows whole pixels only.
    """
    model = model.half()
    if isinstance(model.model[-1], Detect):
        head: Any = model.model[-1]
        head.dfl.float()
        head._inference = MethodType(_decode_in_float32, head)
    return model


def _decode_in_float32(head: Detect, output: dict[str, Any]) -> torch.Tensor:
    return type(head)._inference(head, output | {name: output[name].float() for name in ("boxes", "scores")})


def with_backend(
    detector: Detector, backend: str, threads: int, check: Sequence[NDArray[np.uint8]], settings: dict[str, Any]
) -> Detector:
    """Return the detector as it is to run.

    Parameters
    ----------
    detector : see `mammoflow.detect.model.load_detector`.
    backend : ``torch``, or ``onnxruntime``: on a CPU, and only if its frames of the check pictures are those of torch;
        else there is a warning, and torch runs.
    threads : CPU threads.
    check : pictures of the study.
    settings : section `detect` of the config (`min_score`).
    """
    plain = for_inference(detector)
    if backend == "torch":
        return plain
    if is_rtdetr(detector.architecture) or next(detector.model.parameters()).device.type != "cpu":
        log.warning("%s: ONNX Runtime runs YOLOs on a CPU only; torch runs it", detector.architecture)
        return plain
    try:
        exported = replace(plain, model=OnnxNetwork(plain.model, threads))
        equal = all(same_output(plain, exported, picture, settings["min_score"]) for picture in check)
    except Exception as error:  # the exporter and the runtime raise many kinds
        log.warning("%s: ONNX Runtime can't run it (%s); torch runs it", detector.architecture, error)
        return plain
    if not equal:
        log.warning("%s: ONNX Runtime's frames differ from torch's; torch runs it", detector.architecture)
        return plain
    return exported


def same_output(first: Detector, second: Detector, picture: NDArray[np.uint8], min_score: float) -> bool:
    """Whether two ways to run a YOLO frame a picture alike, every anchor at or above `min_score` compared.

    Edges may differ by half a pixel of the input, scores by a thousandth. Anchors are compared, not what non-maximum
    suppression leaves of them: there the smallest difference can change which of two frames stays.
    """
    canvas, _ = letterbox_canvas(picture, first.image_size)
    one, other = (forward(detector, [canvas])[0] for detector in (first, second))
    above = (torch.maximum(one[4:], other[4:]) >= min_score).any(dim=0)
    apart = (one - other).abs()[:, above]
    return bool((apart[:4] <= SAME_PIXELS).all() and (apart[4:] <= SAME_SCORE).all())
