"""Frames of detectors in pictures, and the frames of several detectors as one set."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from ensemble_boxes import weighted_boxes_fusion
from numpy.typing import NDArray
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy

from mammoflow import boxes
from mammoflow.boxes import Boxes
from mammoflow.detect.model import Detector, is_rtdetr
from mammoflow.detect.preprocess import BACKGROUND, letterbox_canvas
from mammoflow.detect.tiles import Tile, merge, tile_grid
from mammoflow.geometry import Transform

MAX_FRAMES = 100  # a picture; far above what one shows at any useful score
# pictures or tiles that go through the network at once: a GPU wants many, a CPU as few as stay in its cache
PIECES = {"cpu": 2, "cuda": 16}
NO_TIME_LIMIT = 1e9  # s; Ultralytics gives up on overlaps after a while, which would make results depend on the load


@dataclass(frozen=True)
class Frames:
    """Frames in one picture, highest score first.

    Attributes
    ----------
    boxes : float64 array, (N, 4), ``x1, y1, x2, y2`` in the picture's pixels.
    scores : float64 array, (N,), confidence, 0..1.
    classes : int64 array, (N,), numbers of the detector's classes.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]


def detect_images(
    detector: Detector, images: Sequence[NDArray[np.uint8]], min_score: float, nms_iou: float
) -> list[Frames]:
    """Let a detector frame pictures.

    Parameters
    ----------
    detector : see `mammoflow.detect.model.load_detector`; it runs where its weights are.
    images : uint8 arrays, (H, W), windowed pictures as in training, of any sizes; one batch.
    min_score : frames below are dropped, 0..1.
    nms_iou : of two frames of one class overlapping more, the lower score goes, 0..1.

    Returns
    -------
    Frames of each picture in that picture's pixels, cut at its border.
    """
    if not images:
        return []
    grids = [tile_grid(image.shape[1], image.shape[0], detector.tiles) for image in images]
    pieces = [image[y1:y2, x1:x2] for image, grid in zip(images, grids, strict=True) for x1, y1, x2, y2 in grid]
    of_pieces = iter(_frames_of(detector, pieces, min_score, nms_iou))
    return [_joined(grid, list(islice(of_pieces, len(grid))), nms_iou) for grid in grids]


def detect_views(
    detector: Detector, images: Sequence[NDArray[np.uint8]], settings: dict[str, Any]
) -> list[list[Frames]]:
    """Let a detector frame every picture as it is and, where `test_time` asks for it, in other views.

    Returns
    -------
    Of each view the frames of each picture, in that picture's pixels.
    """
    found = []
    for scale, mirrored in views(settings["test_time"]):
        seen = [_seen(image, scale, mirrored) for image in images]
        frames = detect_images(detector, seen, settings["min_score"], settings["nms_iou"])
        found.append([_unseen(one, image, scale, mirrored) for one, image in zip(frames, images, strict=True)])
    return found


def views(test_time: dict[str, Any] | None) -> list[tuple[float, bool]]:
    """Scale and mirroring of each view of a picture; the picture as it is comes first."""
    if test_time is None:
        return [(1.0, False)]
    sides = (False, True) if test_time["mirror"] else (False,)
    return [(scale, mirrored) for scale in (1.0, *test_time["smaller"]) for mirrored in sides]


def _seen(image: NDArray[np.uint8], scale: float, mirrored: bool) -> NDArray[np.uint8]:
    """Return the picture shrunk into its upper left corner, the rest background, and mirrored."""
    if scale != 1:
        shrunk = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image = np.full_like(image, BACKGROUND)
        image[: shrunk.shape[0], : shrunk.shape[1]] = shrunk
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image


def _unseen(frames: Frames, image: NDArray[np.uint8], scale: float, mirrored: bool) -> Frames:
    """Return the frames of a view in the picture's own pixels; those beyond its border are dropped."""
    height, width = image.shape
    framed = frames.boxes
    if mirrored:
        framed = np.stack([width - framed[:, 2], framed[:, 1], width - framed[:, 0], framed[:, 3]], axis=1)
    framed = boxes.clip(framed / scale, width, height)
    inside = boxes.area(framed) > 0
    return Frames(framed[inside], frames.scores[inside], frames.classes[inside])


def _frames_of(
    detector: Detector, pieces: Sequence[NDArray[np.uint8]], min_score: float, nms_iou: float
) -> list[Frames]:
    """Frames of each piece in its own pixels."""
    square = is_rtdetr(detector.architecture)
    prepared = [letterbox_canvas(piece, detector.image_size, square) for piece in pieces]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, (canvas, _) in enumerate(prepared):
        by_shape.setdefault(canvas.shape, []).append(number)
    found: dict[int, Frames] = {}
    at_once = PIECES[next(detector.model.parameters()).device.type]
    for numbers in by_shape.values():
        for start in range(0, len(numbers), at_once):
            batch = numbers[start : start + at_once]
            rows = _decode(detector, forward(detector, [prepared[n][0] for n in batch]), min_score, nms_iou)
            found |= {n: _of_piece(kept, prepared[n][1], pieces[n]) for n, kept in zip(batch, rows, strict=True)}
    return [found[number] for number in range(len(pieces))]


def forward(detector: Detector, canvases: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Return the network's dense output, float32, for inputs of one shape."""
    weight = next(detector.model.parameters())
    inputs = torch.from_numpy(np.stack(canvases))[:, None].to(weight.device).to(weight.dtype) / 255
    with torch.inference_mode():
        output = detector.model(inputs)
    prediction = output[0] if isinstance(output, list | tuple) else output
    assert isinstance(prediction, torch.Tensor)
    return prediction.float()


def _of_piece(kept: NDArray[np.float64], transform: Transform, piece: NDArray[np.uint8]) -> Frames:
    kept = kept[np.argsort(-kept[:, 4], kind="stable")]
    framed = boxes.clip(transform.backward(kept[:, :4]), piece.shape[1], piece.shape[0])
    inside = boxes.area(framed) > 0
    return Frames(framed[inside], kept[inside, 4], kept[inside, 5].astype(np.int64))


def _joined(grid: list[Tile], found: list[Frames], nms_iou: float) -> Frames:
    """Frames of a picture from those of its tiles, highest score first."""
    if len(grid) == 1:
        return found[0]
    shifted = [frames.boxes + np.array([x, y, x, y]) for (x, y, _, _), frames in zip(grid, found, strict=True)]
    every = np.concatenate(shifted)
    scores = np.concatenate([frames.scores for frames in found])
    classes = np.concatenate([frames.classes for frames in found])
    kept = merge(every, scores, classes, nms_iou)
    return Frames(every[kept], scores[kept], classes[kept])


def fuse(found: Sequence[Frames], width: int, height: int, overlap: float) -> Frames:
    """Merge what several detectors, or one in several views, framed in one picture by weighted boxes fusion.

    A frame that only some of them made loses score in proportion (Solovyev et al. 2021).

    Parameters
    ----------
    found : frames of each detector and view.
    width, height : of the picture, pixels.
    overlap : frames of one class with at least this IoU are one, 0..1.
    """
    size = np.array([width, height, width, height])
    merged, scores, classes = weighted_boxes_fusion(
        [frames.boxes / size for frames in found],
        [frames.scores for frames in found],
        [frames.classes for frames in found],
        iou_thr=overlap,
    )
    return Frames(boxes.as_boxes(merged) * size, np.asarray(scores, np.float64), np.asarray(classes, np.int64))


def _decode(
    detector: Detector, prediction: torch.Tensor, min_score: float, nms_iou: float
) -> list[NDArray[np.float64]]:
    """Rows ``x1, y1, x2, y2, score, class`` of each picture, in pixels of the input."""
    if is_rtdetr(detector.architecture):
        corners = xywh2xyxy(prediction[..., :4]) * detector.image_size
        kept = [torch.cat([c, p[:, 4:]], 1)[p[:, 4] >= min_score] for c, p in zip(corners, prediction, strict=True)]
    else:
        kept = non_max_suppression(
            prediction,
            conf_thres=min_score,
            iou_thres=nms_iou,
            max_det=MAX_FRAMES,
            nc=len(detector.classes),
            max_time_img=NO_TIME_LIMIT,
        )
    return [rows.double().cpu().numpy() for rows in kept]
