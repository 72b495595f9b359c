"""Which pixels made a detector frame a lesion: the class score of the anchor that gave the detection, explained."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mammoflow import boxes, tables
from mammoflow.boxes import Boxes
from mammoflow.detect.model import Detector, is_rtdetr, load_detector
from mammoflow.detect.preprocess import letterbox
from mammoflow.detect.shard import read_picture
from mammoflow.detect.tiles import Tile, tile_grid, tile_of
from mammoflow.errors import DataError, ModelError
from mammoflow.explain.engine import Explainer, Explanation, Target
from mammoflow.explain.maps import EDGES, FloatMap, RelevanceMap, map_row, row_without_map, to_picture, write_maps
from mammoflow.geometry import Transform
from mammoflow.jobs import progress
from mammoflow.tables import MAP_PARTS

SAME_IOU = 0.5  # an anchor whose frame overlaps the detection less is another finding

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Anchor:
    """An anchor of a YOLO or a query of an RT-DETR: its number, its class's, the score it gave, its frame's IoU."""

    index: int
    category: int
    score: float
    iou: float


@dataclass(frozen=True)
class DetectionMap(RelevanceMap):
    """Relevance of one detection, in the picture's pixels; see `RelevanceMap`.

    Attributes
    ----------
    value : class score of the anchor before the sigmoid, minus the class's bias: what the picture added to the score
        that the detector gives to nothing. For an edge, see `ExplainedPicture.explain`.
    anchor : anchor that was explained.
    """

    anchor: Anchor


class ExplainedPicture:
    """One forward pass of a detector on a picture, from which its detections can be explained.

    Parameters
    ----------
    detector : see `mammoflow.detect.model.load_detector`.
    explainer : made from `detector.model`.
    image : uint8 array, (H, W), windowed picture as in training.
    tile : ``x1, y1, x2, y2``, the part of the picture that the detector saw; None: the whole.
    square : pad it to the square that the detector was trained on, not to the rectangle that it detects on.

    Raises
    ------
    ModelError
        The detector's head isn't that of an Ultralytics YOLO or RT-DETR.
    """

    def __init__(
        self,
        detector: Detector,
        explainer: Explainer,
        image: NDArray[np.uint8],
        square: bool = False,
        tile: Tile | None = None,
    ):
        self._detector = detector
        self._height, self._width = image.shape
        left, top, right, bottom = tile or (0, 0, self._width, self._height)
        square = square or is_rtdetr(detector.architecture)
        x, step = letterbox(image[top:bottom, left:right], detector.image_size, square)
        self._letterbox = Transform(1.0, 1.0, float(-left), float(-top), right - left, bottom - top).then(step)
        self._input = tuple(x.shape[-2:])
        self._biases = class_biases(detector.model)
        if not self._biases.size:  # told before the forward pass, which is slow for other families
            raise ModelError(
                f"detections of {detector.architecture} can't be explained: its head isn't that of a YOLO or RT-DETR; "
                "explain yolov5*, yolov6*, yolov8*, yolo11* or rtdetr-*"
            )
        self._replay = explainer.replay(x.to(next(detector.model.parameters()).device))
        self._decoded = decoded(self._replay.output, self._input)

    @cached_property
    def frames(self) -> Boxes:
        """Frame of every anchor in the picture's pixels, cut at its border, (A, 4)."""
        centre, side = self._decoded[:2].T, self._decoded[2:4].T
        corners = np.hstack([centre - side / 2, centre + side / 2])
        return boxes.clip(self._letterbox.backward(corners), self._width, self._height)

    def find(self, box: ArrayLike, finding: str, score: float | None = None) -> Anchor:
        """Find the anchor that gave a detection: that of its class with the most similar frame and score.

        Parameters
        ----------
        box : the detection, ``x1, y1, x2, y2`` in the picture's pixels.
        finding : class name.
        score : confidence of the detection, 0..1, if known.

        Raises
        ------
        DataError
            The box lies outside the picture, or the detector has no such class.
        """
        if boxes.area(boxes.clip(box, self._width, self._height))[0] == 0:
            raise DataError(
                f"detection {boxes.as_boxes(box)[0].tolist()} lies outside its picture of {self._width} x "
                f"{self._height} pixels; they don't belong together, remove the detections' table to make it again"
            )
        if finding not in self._detector.classes:
            raise DataError(
                f"finding '{finding}' is no class of the detector; it has {', '.join(self._detector.classes)}"
            )
        category = self._detector.classes.index(finding)
        scores = self._decoded[4 + category]
        overlaps = boxes.iou(self.frames, box)[:, 0]
        likeness = overlaps if score is None else overlaps - np.abs(scores - score)
        index = int(np.argmax(likeness))
        return Anchor(index, category, float(scores[index]), float(overlaps[index]))

    def explain(self, anchor: Anchor, part: str = "score") -> DetectionMap:
        """Explain the anchor's class score before the sigmoid, minus the class's bias, or an edge of its frame.

        Parameters
        ----------
        anchor : see `find`.
        part : ``score``, or ``left``, ``top``, ``right``, ``bottom``: how far that edge lies from the anchor's centre.

        Notes
        -----
        A YOLO head gives each edge as a distribution over distances of 0, 1, 2 ... cells, the softmax of one number a
        distance, and its mean is the edge. With the probabilities ``p`` taken as constants, as CP-LRP takes attention,
        what is explained is ``sum p_i (i - mean) z_i`` of the numbers ``z`` minus their biases: what pushed the edge
        outwards (positive) or inwards, to first order.

        Raises
        ------
        ModelError
            The head has no distributions, and `part` is an edge.
        """
        return self.explain_all([(anchor, part)])[0]

    def explain_all(self, wanted: Sequence[tuple[Anchor, str]]) -> list[DetectionMap]:
        """Explain several anchors and parts, some in one backward pass; see `explain`."""
        targets = [self._score(anchor) if part == "score" else self._edge(anchor, part) for anchor, part in wanted]
        explained = self._replay.explain_all(targets)
        return [self._map(one, anchor) for one, (anchor, _) in zip(explained, wanted, strict=True)]

    def _map(self, explained: Explanation, anchor: Anchor) -> DetectionMap:
        relevance, on_padding = to_picture(
            explained.relevance[0, 0].cpu().numpy(), self._letterbox, self._height, self._width
        )
        error = float(explained.conservation_error[0])
        return DetectionMap(relevance, float(explained.value[0]), error, on_padding, anchor)

    def _score(self, anchor: Anchor) -> Target:
        bias = self._biases[anchor.category][self.level(anchor.index)]
        return lambda output: class_logits(output)[:, anchor.category, anchor.index] - bias

    def _edge(self, anchor: Anchor, part: str) -> Target:
        head = head_of_detector(self._detector.model)
        raw, distances = self._replay.output[1], getattr(head, "reg_max", 1)
        if distances < 2 or raw.get("boxes") is None:
            raise ModelError(
                f"edges of {self._detector.architecture}'s frames can't be explained: its head has no distributions of "
                "distances; leave explain.box_edges out"
            )
        rows = slice(*(np.array([0, 1]) + MAP_PARTS[1:].index(part)) * distances)
        share = raw["boxes"][0, rows, anchor.index].detach().softmax(0)
        steps = torch.arange(distances, dtype=share.dtype, device=share.device)
        weight = share * (steps - (share * steps).sum())
        bias = (weight * head.cv2[self.level(anchor.index)][-1].bias.detach()[rows]).sum()
        return lambda output: (output[1]["boxes"][:, rows, anchor.index] * weight).sum(1) - bias

    def level(self, index: int) -> int:
        """Feature level (P3, P4, P5 as 0, 1, 2) of an anchor; 0 of a query, which reads all of them."""
        if self._biases.shape[1] == 1:
            return 0
        strides = head_of_detector(self._detector.model).stride.tolist()
        counts = [round(self._input[0] / stride) * round(self._input[1] / stride) for stride in strides]
        return int(np.searchsorted(np.cumsum(counts), index, side="right"))


def head_of_detector(model: Any) -> Any:
    """Return the detection head, the last layer of an Ultralytics model."""
    return model.model[-1]


def class_logits(output: Any) -> Tensor:
    """Class scores before the sigmoid, (N, classes, anchors or queries), of the head that made the dense output."""
    if isinstance(output[1], dict):
        return output[1].get("one2many", output[1])["scores"]
    return output[1][1][-1].transpose(1, 2)


def decoded(output: Any, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Centre x, y, width and height in pixels of an input of `size` (H, W), and class scores, of every frame.

    Returns
    -------
    (4 + classes, anchors or queries) array of the first sample.
    """
    if isinstance(output[1], dict):
        return output[0][0].detach().double().cpu().numpy()
    scores = class_logits(output)[0].detach().double().sigmoid().cpu().numpy()
    places = output[1][0][-1][0].detach().double().cpu().numpy() * [size[1], size[0], size[1], size[0]]
    return np.vstack([places.T, scores])


def class_biases(model: torch.nn.Module) -> NDArray[np.float64]:
    """Bias of each class at each feature level, (classes, levels): the score before the sigmoid of a blank feature.

    One column of an RT-DETR, that of its last decoder layer; none of other families.
    """
    head = head_of_detector(model) if hasattr(model, "model") else model
    last = [branch[-1] for branch in getattr(head, "cv3", [])] or list(getattr(head, "dec_score_head", []))[-1:]
    levels = [layer.bias.detach().double().cpu().numpy() for layer in last]
    return np.stack(levels, axis=1) if levels else np.zeros((0, 0))


def explain_detection(
    detector: Detector,
    image: NDArray[np.uint8],
    box: ArrayLike,
    finding: str = "lesion",
    score: float | None = None,
    part: str = "score",
    **options: Any,
) -> DetectionMap:
    """Explain a detection of `detector` in a picture.

    Parameters
    ----------
    detector : see `mammoflow.detect.model.load_detector`.
    image : uint8 array, (H, W), windowed picture as in training.
    box : the detection, ``x1, y1, x2, y2`` in the picture's pixels.
    finding : its class.
    score : its confidence, 0..1, if known; tells anchors with near-equal frames apart.
    part : ``score`` or an edge of the frame; see `ExplainedPicture.explain`.
    **options : ``composite``, ``gamma``, ``epsilon``, ``attention``; see `Explainer`.

    Returns
    -------
    Map in the picture's pixels: letterboxing undone, sum preserved.

    Raises
    ------
    DataError
        The box lies outside the picture, or `finding` is no class of the detector.
    ModelError
        The detector has an operation without a rule.
    """
    picture = ExplainedPicture(detector, Explainer(detector.model, **options), image)
    return picture.explain(picture.find(box, finding, score), part)


def explain_detections_shard(
    models: Sequence[str | Path],
    detections: str | Path,
    images: str | Path,
    settings: dict[str, Any],
    device: str,
    threads: int,
    table: str | Path,
    maps: str | Path,
) -> None:
    """Explain a shard's lesion detections of the highest scores.

    A detection that an ensemble made is explained with the model whose own frame agrees best with it. One of an
    architecture with an operation that has no rule gets its row all the same, with the reason and without a map.

    Parameters
    ----------
    models : detectors in the order of folds.
    detections : table of `mammoflow.tables.DETECTIONS`, possibly empty; those of other shards' images are passed over.
    images : the shard's table of `mammoflow.tables.IMAGES`.
    settings : section `explain` of the config.
    device : ``cpu`` or ``cuda``.
    threads : CPU threads.
    table : table of `mammoflow.tables.MAPS` to write.
    maps : container to write: one float32 array in training-picture pixels per ``map_id``, unmirrored.

    Raises
    ------
    DataError
        Detections don't belong to these models.
    """
    torch.set_num_threads(threads)
    pictures = tables.read(tables.IMAGES, images).set_index("image_id")
    every = tables.read(tables.DETECTIONS, detections)
    own = every[every["image_id"].isin(pictures.index)]
    chosen = choose_detections(own, settings["detections_per_shard"])
    found = _explained(chosen, pictures, models, settings, device) if len(chosen) else ()
    log.info("%d maps of %d detections", write_maps(found, table, maps), len(chosen))


def choose_detections(detections: pd.DataFrame, count: int) -> pd.DataFrame:
    """Lesion detections of the `count` highest scores (0: all), those of one image one after the other."""
    lesions = detections[detections["finding"] == "lesion"]
    best = lesions.sort_values(["score", "detection_id"], ascending=[False, True], kind="stable")
    kept = best.head(count) if count else best
    return kept.sort_values(["image_id", "detection_id"], kind="stable")


def _explained(
    chosen: pd.DataFrame, pictures: pd.DataFrame, models: Sequence[str | Path], settings: dict[str, Any], device: str
) -> Iterator[tuple[dict[str, Any], FloatMap | None]]:
    """Row and map of each part of each chosen detection."""
    ensemble = _Ensemble(models, settings, device)
    parts = MAP_PARTS if settings["box_edges"] else MAP_PARTS[:1]
    rows: Iterator[Any] = progress(chosen.itertuples(), len(chosen), "detections")
    for image_id, of_image in groupby(rows, key=lambda detection: detection.image_id):
        yield from ensemble.explain(list(of_image), pictures.loc[image_id], parts)


@dataclass(frozen=True)
class _Wanted:
    """A map to make: of a part of a detection, by an anchor of a fold's model."""

    detection: Any
    fold: int
    anchor: Anchor
    part: str


class _Ensemble:
    """The models of one architecture, by number, and the picture they are looking at."""

    def __init__(self, models: Sequence[str | Path], settings: dict[str, Any], device: str):
        self.detectors = [load_detector(path, device) for path in models]
        options = {"composite": settings["composite"], "gamma": settings["gamma"]}
        self.explainers = [Explainer(detector.model, **options) for detector in self.detectors]
        self.picture: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self.replays: dict[tuple[int, Tile], ExplainedPicture] = {}

    def look_at(self, image: Any) -> None:
        """Read a picture; forward passes of the one before are dropped."""
        self.replays = {}
        self.picture = read_picture(image["train_png"])

    def replay(self, number: int, box: Boxes) -> ExplainedPicture:
        """Forward pass of a model on the picture, or on that of its tiles that shows most of the box."""
        detector, (height, width) = self.detectors[number], self.picture.shape
        tile = tile_of(box, tile_grid(width, height, detector.tiles))
        if (number, tile) not in self.replays:
            self.replays[number, tile] = ExplainedPicture(detector, self.explainers[number], self.picture, tile=tile)
        return self.replays[number, tile]

    def judges(self, detection: Any) -> list[int]:
        """Numbers of the models that made the detection.

        Raises
        ------
        DataError
            The detection names other models.
        """
        known = {detector.digest: number for number, detector in enumerate(self.detectors)}
        digests = detection.model_digest.split("+")
        if not set(digests) <= set(known):
            raise DataError(
                f"detection {detection.detection_id} was made by model {detection.model_digest}, the models here are "
                f"{', '.join(known)}; remove the detections' table to make it again"
            )
        return [known[digest] for digest in digests]

    def explain(
        self, detections: Sequence[Any], image: Any, parts: Sequence[str]
    ) -> list[tuple[dict[str, Any], FloatMap | None]]:
        """Explain the detections of an image: a row of the table and a map for each, and for each of `parts`."""
        self.look_at(image)
        transform = Transform.from_json(image["transform"])
        rows: list[tuple[dict[str, Any], FloatMap | None]] = []
        wanted: dict[ExplainedPicture, list[_Wanted]] = defaultdict(list)
        for detection in detections:
            try:
                replay, fold, anchor = self.find(detection, transform)
            except ModelError as error:
                fold = self.detectors[self.judges(detection)[0]].fold
                rows.append(self.without_map(detection, fold, "score", transform, error))
                continue
            wanted[replay] += [_Wanted(detection, fold, anchor, part) for part in parts]
        for replay, asked in wanted.items():
            found = _maps(replay, [(one.anchor, one.part) for one in asked])
            for one, explained in zip(asked, found, strict=True):
                if isinstance(explained, ModelError):
                    rows.append(self.without_map(one.detection, one.fold, one.part, transform, explained))
                else:
                    rows.append(self.with_map(one, transform, explained))
        return rows

    def find(self, detection: Any, transform: Transform) -> tuple[ExplainedPicture, int, Anchor]:
        """Find the anchor that agrees best with a detection, of all models that made it: forward pass, fold, anchor."""
        box = transform.forward([getattr(detection, edge) for edge in EDGES])
        found = {
            number: self.replay(number, box).find(box, detection.finding, detection.confidence)
            for number in self.judges(detection)
        }
        number = max(found, key=lambda one: found[one].iou)
        if found[number].iou < SAME_IOU:
            log.warning("%s: nearest anchor overlaps it by IoU %.2f only", detection.detection_id, found[number].iou)
        return self.replay(number, box), self.detectors[number].fold, found[number]

    def region(self, transform: Transform) -> Boxes:
        """Part of the stored image that the picture shows."""
        return transform.backward([0, 0, self.picture.shape[1], self.picture.shape[0]])

    def with_map(
        self, wanted: _Wanted, transform: Transform, explained: DetectionMap
    ) -> tuple[dict[str, Any], FloatMap]:
        """Row and map of what was explained; a map lies as the stored image does."""
        if transform.scale_x < 0:
            explained = replace(explained, relevance=explained.relevance[:, ::-1])
        what = _what(wanted.detection, wanted.fold, wanted.part) | {"score": wanted.anchor.score}
        frame = [getattr(wanted.detection, edge) for edge in EDGES]
        return map_row(explained, frame, self.region(transform), **what), explained.relevance

    def without_map(
        self, detection: Any, fold: int, part: str, transform: Transform, error: ModelError
    ) -> tuple[dict[str, Any], None]:
        """Row of what can't be explained, with the reason."""
        log.warning("%s: %s", detection.detection_id, error)
        what = _what(detection, fold, part) | {"score": detection.score}
        frame = [getattr(detection, edge) for edge in EDGES]
        return row_without_map(str(error), frame, self.region(transform), **what), None


def _maps(replay: ExplainedPicture, wanted: Sequence[tuple[Anchor, str]]) -> list[DetectionMap | ModelError]:
    """Explain all at once; one by one if that fails, since an edge without a rule takes nothing from the scores."""
    try:
        return list(replay.explain_all(wanted))
    except ModelError as error:
        return [error] if len(wanted) == 1 else [_maps(replay, [one])[0] for one in wanted]


def _what(detection: Any, fold: int, part: str) -> dict[str, Any]:
    """Columns of `mammoflow.tables.MAPS` that say what was explained."""
    return {
        "dataset": detection.dataset,
        "map_id": f"{detection.detection_id}-fold{fold}{'' if part == 'score' else f'-{part}'}",
        "kind": "detection",
        "part": part,
        "model": detection.detector,
        "model_fold": fold,
        "image_id": detection.image_id,
        "explained_id": detection.detection_id,
        "label": detection.finding,
    }
