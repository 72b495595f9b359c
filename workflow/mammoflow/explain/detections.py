"""Which pixels made a detector frame a lesion: the class score of the anchor that gave the detection, explained."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mammoflow import boxes, tables
from mammoflow.boxes import Boxes
from mammoflow.detect.model import Detector, load_detector
from mammoflow.detect.preprocess import letterbox
from mammoflow.detect.shard import read_picture
from mammoflow.errors import DataError, ModelError
from mammoflow.explain.engine import Explainer
from mammoflow.explain.maps import FloatMap, relevance_in_box, save_maps, to_picture
from mammoflow.explain.overlays import draw_overlay
from mammoflow.geometry import Transform
from mammoflow.jobs import progress

SAME_IOU = 0.5  # an anchor whose frame overlaps the detection less is another finding

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Anchor:
    """An anchor of a detector: its number, its class's number, the score it gave and its IoU with the detection."""

    index: int
    category: int
    score: float
    iou: float


@dataclass(frozen=True)
class DetectionMap:
    """Relevance of one detection.

    Attributes
    ----------
    relevance : float32 array, (H, W), in the picture's pixels, in units of the explained logit.
    value : class score of the anchor before the sigmoid, minus the class's bias: what the picture added to the score
        that the detector gives to nothing.
    conservation_error : see `Explanation.conservation_error`.
    on_padding : share of absolute relevance on letterbox padding, 0..1.
    anchor : anchor that was explained.
    """

    relevance: FloatMap
    value: float
    conservation_error: float
    on_padding: float
    anchor: Anchor


class ExplainedPicture:
    """One forward pass of a detector on a picture, from which its detections can be explained.

    Parameters
    ----------
    detector : see `mammoflow.detect.model.load_detector`.
    explainer : made from `detector.model`.
    image : uint8 array, (H, W), windowed picture as in training.

    Raises
    ------
    ModelError
        The detector's output isn't that of an Ultralytics YOLO head.
    """

    def __init__(self, detector: Detector, explainer: Explainer, image: NDArray[np.uint8]):
        self._detector = detector
        self._height, self._width = image.shape
        x, self._letterbox = letterbox(image, detector.image_size)
        weight = next(detector.model.parameters())
        self._replay = explainer.replay(x.to(weight))
        if not isinstance(self._replay.output, tuple) or _class_logits(self._replay.output) is None:
            raise ModelError(
                f"detections of {detector.architecture} can't be explained: its output isn't that of a YOLO head; "
                "explain yolov5*, yolov6*, yolov8* or yolo11*"
            )
        self._biases = class_biases(detector.model)

    @cached_property
    def frames(self) -> Boxes:
        """Frame of every anchor in the picture's pixels, cut at its border, (A, 4)."""
        decoded = self._replay.output[0][0, :4].detach().double().cpu().numpy().T
        corners = np.hstack([decoded[:, :2] - decoded[:, 2:] / 2, decoded[:, :2] + decoded[:, 2:] / 2])
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
        scores = self._replay.output[0][0, 4 + category].detach().double().cpu().numpy()
        overlaps = boxes.iou(self.frames, box)[:, 0]
        likeness = overlaps if score is None else overlaps - np.abs(scores - score)
        index = int(np.argmax(likeness))
        return Anchor(index, category, float(scores[index]), float(overlaps[index]))

    def explain(self, anchor: Anchor) -> DetectionMap:
        """Explain the anchor's class score before the sigmoid, minus the class's bias."""
        bias = self._biases[anchor.category][self._level(anchor.index)]

        def target(output: Any) -> Tensor:
            return _class_logits(output)[:, anchor.category, anchor.index] - bias  # type: ignore[index]

        explained = self._replay.explain(target)
        relevance, on_padding = to_picture(
            explained.relevance[0, 0].cpu().numpy(), self._letterbox, self._height, self._width
        )
        error = float(explained.conservation_error[0])
        return DetectionMap(relevance, float(explained.value[0]), error, on_padding, anchor)

    def _level(self, index: int) -> int:
        """Feature level (P3, P4, P5 as 0, 1, 2) of an anchor."""
        strides = _head(self._detector.model).stride.tolist()
        counts = [round(self._detector.image_size / stride) ** 2 for stride in strides]
        return int(np.searchsorted(np.cumsum(counts), index, side="right"))


def _head(model: Any) -> Any:
    """Return the detection head, the last layer of an Ultralytics model."""
    return model.model[-1]


def _class_logits(output: Any) -> Tensor | None:
    """Class scores before the sigmoid, (N, classes, anchors), of the head that made the dense output."""
    raw = output[1]
    raw = raw.get("one2many", raw) if isinstance(raw, dict) else {}
    return raw.get("scores")


def class_biases(model: torch.nn.Module) -> NDArray[np.float64]:
    """Bias of each class at each feature level, (classes, levels): the score before the sigmoid of a blank feature."""
    levels = [branch[-1].bias.detach().double().cpu().numpy() for branch in getattr(_head(model), "cv3", [])]
    return np.stack(levels, axis=1) if levels else np.zeros((0, 0))


def explain_detection(
    detector: Detector,
    image: NDArray[np.uint8],
    box: ArrayLike,
    finding: str = "lesion",
    score: float | None = None,
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
    return picture.explain(picture.find(box, finding, score))


def explain_detections_shard(
    models: Sequence[str | Path],
    detections: str | Path,
    images: str | Path,
    settings: dict[str, Any],
    device: str,
    threads: int,
    table: str | Path,
    maps: str | Path,
    overlays: str | Path,
) -> None:
    """Explain a shard's lesion detections of the highest scores.

    A detection that an ensemble made is explained with the fold model whose own frame agrees best with it.

    Parameters
    ----------
    models : detectors in the order of folds.
    detections : table of `mammoflow.tables.DETECTIONS`, possibly empty.
    images : the shard's table of `mammoflow.tables.IMAGES`.
    settings : section `explain` of the config.
    device : ``cpu`` or ``cuda``.
    threads : CPU threads.
    table : table of `mammoflow.tables.RELEVANCE` to write.
    maps : container to write: one float32 array in training-picture pixels per ``map_id``, unmirrored.
    overlays : directory to make, with one PNG per ``map_id``.

    Raises
    ------
    DataError
        Detections don't belong to these models or pictures.
    """
    torch.set_num_threads(threads)
    Path(overlays).mkdir(parents=True, exist_ok=True)
    chosen = choose_detections(tables.read(tables.DETECTIONS, detections), settings["detections_per_shard"])
    pictures = tables.read(tables.IMAGES, images).set_index("image_id")
    missing = sorted(set(chosen["image_id"]) - set(pictures.index))
    if missing:
        raise DataError(f"{detections}: image {missing[0]} isn't in {images}; remove both tables to make them again")
    explained = _Ensemble(models, settings, device) if len(chosen) else None
    rows, arrays = [], {}
    for detection, image in progress(_with_pictures(chosen, pictures), len(chosen), "detections"):
        assert explained is not None
        row, array = explained.row(detection, image, Path(overlays))
        rows.append(row)
        arrays[row["map_id"]] = array
    save_maps(maps, arrays)
    tables.write(tables.RELEVANCE, tables.from_rows(tables.RELEVANCE, rows), table)
    log.info("%d detections explained", len(rows))


def choose_detections(detections: pd.DataFrame, count: int) -> pd.DataFrame:
    """Lesion detections of the `count` highest scores (0: all), those of one image one after the other."""
    lesions = detections[detections["finding"] == "lesion"]
    best = lesions.sort_values(["score", "detection_id"], ascending=[False, True], kind="stable")
    kept = best.head(count) if count else best
    return kept.sort_values(["image_id", "detection_id"], kind="stable")


def _with_pictures(detections: pd.DataFrame, images: pd.DataFrame) -> Iterator[tuple[Any, Any]]:
    rows: Iterator[Any] = detections.itertuples()
    for detection in rows:
        yield detection, images.loc[detection.image_id]


class _Ensemble:
    """The fold models of one architecture, and the picture they are looking at."""

    def __init__(self, models: Sequence[str | Path], settings: dict[str, Any], device: str):
        self.detectors = [load_detector(path, device) for path in models]
        options = {"composite": settings["composite"], "gamma": settings["gamma"]}
        self.explainers = [Explainer(detector.model, **options) for detector in self.detectors]
        self.image_id = ""
        self.picture: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self.replays: dict[int, ExplainedPicture] = {}

    def look_at(self, image: Any) -> None:
        """Read the picture; forward passes of the one before are dropped."""
        if image.name != self.image_id:
            self.image_id, self.replays = image.name, {}
            self.picture = read_picture(image["train_png"])

    def replay(self, fold: int) -> ExplainedPicture:
        """Forward pass of a fold's model on the picture."""
        if fold not in self.replays:
            self.replays[fold] = ExplainedPicture(self.detectors[fold], self.explainers[fold], self.picture)
        return self.replays[fold]

    def judges(self, detection: Any) -> list[int]:
        """Folds whose models made the detection.

        Raises
        ------
        DataError
            The detection names other models.
        """
        known = {detector.digest: fold for fold, detector in enumerate(self.detectors)}
        digests = detection.model_digest.split("+")
        if not set(digests) <= set(known):
            raise DataError(
                f"detection {detection.detection_id} was made by model {detection.model_digest}, the models here are "
                f"{', '.join(known)}; remove the detections' table to make it again"
            )
        return [known[digest] for digest in digests]

    def row(self, detection: Any, image: Any, overlays: Path) -> tuple[dict[str, Any], FloatMap]:
        """Explain one detection: its row of the table and its map. Draws its overlay."""
        self.look_at(image)
        transform = Transform.from_json(image["transform"])
        box = transform.forward([detection.x1, detection.y1, detection.x2, detection.y2])
        found = {
            fold: self.replay(fold).find(box, detection.finding, detection.score) for fold in self.judges(detection)
        }
        fold = max(found, key=lambda one: found[one].iou)
        if found[fold].iou < SAME_IOU:
            log.warning("%s: nearest anchor overlaps it by IoU %.2f only", detection.detection_id, found[fold].iou)
        explained = self.replay(fold).explain(found[fold])
        map_id = f"{detection.detection_id}-fold{fold}"
        path = overlays / f"{map_id}.png"
        height, width = self.picture.shape
        shown, relevance = self.picture, explained.relevance
        if transform.scale_x < 0:  # a map lies as the stored image does
            transform, shown, relevance = transform.mirrored(), shown[:, ::-1], relevance[:, ::-1]
            box = transform.forward([detection.x1, detection.y1, detection.x2, detection.y2])
        draw_overlay(shown, relevance, box, path)
        in_box, area_share = relevance_in_box(relevance, box)
        region = transform.backward([0, 0, width, height])[0]
        return {
            "dataset": detection.dataset,
            "map_id": map_id,
            "kind": "detection",
            "model": detection.detector,
            "model_fold": fold,
            "image_id": detection.image_id,
            "explained_id": detection.detection_id,
            "label": detection.finding,
            "score": explained.anchor.score,
            "explained_value": explained.value,
            "conservation_error": explained.conservation_error,
            "relevance_in_box": in_box,
            "box_area_share": area_share,
            "relevance_on_padding": explained.on_padding,
            **dict(zip(("x1", "y1", "x2", "y2"), region, strict=True)),
            "overlay_png": str(path),
        }, relevance
