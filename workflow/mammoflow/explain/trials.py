"""The faithfulness table of a model: which of the study's own judgements are tried, and on which models."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mammoflow import tables
from mammoflow.classify.data import read_crop
from mammoflow.classify.model import Classifier, load_classifier, preprocess
from mammoflow.detect.model import Detector, is_rtdetr, load_detector
from mammoflow.detect.preprocess import letterbox
from mammoflow.detect.shard import read_picture
from mammoflow.detect.tiles import tile_grid, tile_of
from mammoflow.errors import ModelError
from mammoflow.explain.detections import ExplainedPicture, class_logits, head_of_detector
from mammoflow.explain.engine import Explainer
from mammoflow.explain.faithfulness import STAGES, measure, noisy, randomise
from mammoflow.explain.methods import Cases
from mammoflow.geometry import Transform

SEED = 20230817  # of noise and random weights: figures change with the study's models and pictures only

log = logging.getLogger("mammoflow")


def try_detector(
    models: Sequence[str | Path],
    detections: list[str] | list[Path],
    images: list[str] | list[Path],
    settings: dict[str, Any],
    device: str,
    threads: int,
    table: str | Path,
) -> None:
    """Write the faithfulness of every method on the surest held-out lesion detections of one fold.

    Parameters
    ----------
    models : detectors in the order of folds.
    detections : tables of `mammoflow.tables.DETECTIONS`, possibly empty.
    images : tables of `mammoflow.tables.IMAGES` of the same shards.
    settings : section `explain` of the config.
    device : ``cpu`` or ``cuda``.
    threads : CPU threads.
    table : table of `mammoflow.tables.FAITHFULNESS` to write; empty when nothing was detected or the architecture can't
        be explained.
    """
    torch.set_num_threads(threads)
    found = tables.read_all(tables.DETECTIONS, detections)
    found = found[(found["finding"] == "lesion") & found["held_out"] & (found["model_fold"] >= 0)]
    shown = tables.read_all(tables.IMAGES, images)[["dataset", "image_id", "train_png", "transform"]]
    chosen = _of_one_fold(found.sort_values(["score", "detection_id"], ascending=[False, True]), "model_fold", settings)
    chosen = chosen.merge(shown, on=["dataset", "image_id"])
    rows = []
    if len(chosen):
        fold = int(chosen["model_fold"].iloc[0])
        own, other = (load_detector(models[each % len(models)], device) for each in (fold, fold + 1))
        try:
            cases, others = (_detector_cases(detector, chosen) for detector in (own, other))
            rows = _tried(cases, others, chosen, settings, "detection", own.architecture, fold, "detection_id")
        except ModelError as error:  # the maps' rows hold the reason
            log.warning("%s isn't tried: %s", own.architecture, error)
    tables.write(tables.FAITHFULNESS, tables.from_rows(tables.FAITHFULNESS, rows), table)
    log.info("%d detections tried", len(chosen))


def try_classifier(
    models: Sequence[str | Path],
    predictions: list[str] | list[Path],
    crops: list[str] | list[Path],
    settings: dict[str, Any],
    device: str,
    threads: int,
    table: str | Path,
) -> None:
    """Write the faithfulness of every method on the held-out crops of one fold that are most surely malignant.

    Not on benign ones: a crop without detail is called benign too, so there is nothing whose loss could be seen.

    Parameters
    ----------
    models : classifiers in the order of folds.
    predictions : tables of `mammoflow.tables.PREDICTIONS`, possibly empty.
    crops : tables of `mammoflow.tables.CROPS` of the same data sets.
    settings, device, threads, table : see `try_detector`.
    """
    torch.set_num_threads(threads)
    found = tables.read_all(tables.PREDICTIONS, predictions)
    found = found[found["model_fold"] >= 0].sort_values(["probability", "crop_id"], ascending=[False, True])
    cut = tables.read_all(tables.CROPS, crops)
    columns = [name for name in cut.columns if name not in found.columns or name in ("dataset", "crop_id")]
    chosen = _of_one_fold(found, "model_fold", settings).merge(cut[columns], on=["dataset", "crop_id"])
    rows = []
    if len(chosen):
        fold = int(chosen["model_fold"].iloc[0])
        own, other = (load_classifier(models[each % len(models)], device) for each in (fold, fold + 1))
        cases, others = (_classifier_cases(classifier, chosen) for classifier in (own, other))
        architecture = str(chosen["classifier"].iloc[0])
        try:
            rows = _tried(cases, others, chosen, settings, "crop", architecture, fold, "crop_id")
        except ModelError as error:
            log.warning("%s isn't tried: %s", architecture, error)
    tables.write(tables.FAITHFULNESS, tables.from_rows(tables.FAITHFULNESS, rows), table)
    log.info("%d crops tried", len(chosen))


def _of_one_fold(ranked: pd.DataFrame, fold: str, settings: dict[str, Any]) -> pd.DataFrame:
    """First rows of the lowest fold that has any, one an image: their model is loaded and randomised once."""
    ranked = ranked[ranked[fold] == ranked[fold].min()].drop_duplicates(["dataset", "image_id"])
    return ranked.head(settings["faithfulness"]["images"])


def _detector_cases(detector: Detector, chosen: pd.DataFrame) -> Cases:
    """Cases of a detector: for each detection the anchor whose frame is most like it.

    Raises
    ------
    ModelError
        The detector can't be explained, or its answers can't be followed from a picture to the perturbed one.
    """
    if is_rtdetr(detector.architecture):
        raise ModelError("an RT-DETR numbers its queries anew in every picture, so none can be followed to another one")
    explainer = Explainer(detector.model, "epsilon")
    inputs, framed, categories, anchors, cameras = [], [], [], [], []
    head = head_of_detector(detector.model)
    rows: list[Any] = list(chosen.itertuples())
    for row in rows:
        picture = read_picture(row.train_png)
        box = Transform.from_json(row.transform).forward([row.x1, row.y1, row.x2, row.y2])
        left, top, right, bottom = tile_of(box, tile_grid(picture.shape[1], picture.shape[0], detector.tiles))
        picture, box = picture[top:bottom, left:right], box - np.array([left, top, left, top])
        seen = ExplainedPicture(detector, explainer, picture, square=True)
        anchor = seen.find(box, row.finding, row.confidence if row.model_digest == detector.digest else None)
        x, place = letterbox(picture, detector.image_size, square=True)  # one shape, to make a batch
        inputs.append(x)
        framed.append(place.forward(box)[0])
        categories.append(anchor.category)
        anchors.append(anchor.index)
        cameras.append(f"model.{head.f[seen.level(anchor.index)]}")
    weight = next(detector.model.parameters())
    category, anchor_index = (torch.tensor(values, device=weight.device) for values in (categories, anchors))

    def select(output: Any, numbers: Tensor) -> Tensor:
        samples = torch.arange(len(numbers), device=numbers.device)
        return class_logits(output)[samples, category[numbers], anchor_index[numbers]]

    return Cases(detector.model, torch.cat(inputs).to(weight), select, np.array(framed), tuple(cameras))


def _classifier_cases(classifier: Classifier, chosen: pd.DataFrame) -> Cases:
    """Cases of a classifier: the logit of malignant minus that of benign of each crop."""
    weight = next(classifier.model.parameters())
    malignant, benign = (classifier.classes.index(label) for label in ("malignant", "benign"))
    rows: list[Any] = list(chosen.itertuples())
    x = preprocess([read_crop(row.png) for row in rows], classifier.crop_size).to(weight)
    size = classifier.crop_size
    regions = [
        Transform.window(row.crop_x1, row.crop_y1, row.crop_x2, row.crop_y2, size, size).forward(
            [row.x1, row.y1, row.x2, row.y2]
        )[0]
        for row in rows
    ]

    def select(logits: Any, numbers: Tensor) -> Tensor:
        return logits[:, malignant] - logits[:, benign]

    camera = last_picture_layer(classifier.model, x[:1])
    return Cases(classifier.model, x, select, np.array(regions), (camera,) * len(x) if camera else ())


def last_picture_layer(model: nn.Module, x: Tensor) -> str:
    """Name of the last part of a model whose output, (N, C, H, W), still has rows and columns; empty for none."""
    found = [""]
    handles = []
    for name, module in model.named_children():

        def look(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                found.append(name)

        handles.append(module.register_forward_hook(look))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found[-1]


def _tried(
    cases: Cases,
    others: Cases,
    chosen: pd.DataFrame,
    settings: dict[str, Any],
    kind: str,
    architecture: str,
    fold: int,
    key: str,
) -> list[dict[str, Any]]:
    wanted = settings["faithfulness"]["methods"]
    figures = measure(
        cases,
        replace(cases, x=noisy(cases, SEED)),
        {stage: _randomised(cases, stage) for stage in STAGES},
        others,
        wanted,
        settings["gamma"],
        SEED,
    )
    left_out = sorted(set(wanted) - {row["method"] for row in figures})
    if left_out:
        log.info("%s: %s left out, no layer keeps the picture's geometry", architecture, ", ".join(left_out))
    nothing = dict.fromkeys(tables.FAITHFULNESS.columns, float("nan"))
    rows = []
    for row in figures:
        explained = chosen.iloc[row.pop("case")]
        what = {"kind": kind, "model": architecture, "model_fold": fold, "explained_id": explained[key]}
        rows.append(nothing | {name: explained[name] for name in ("dataset", "patient_key")} | what | row)
    return rows


def _randomised(cases: Cases, stage: str) -> Cases:
    copied = copy.deepcopy(cases.model)
    randomise(copied, stage, cases.x, SEED)
    return replace(cases, model=copied)
