"""Which pixels made a classifier call a crop malignant: the difference of its two logits, explained."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammoflow import tables
from mammoflow.classify.data import read_crop
from mammoflow.classify.model import Classifier, load_classifier, predict, preprocess
from mammoflow.errors import DataError, ModelError
from mammoflow.explain.engine import Explainer
from mammoflow.explain.maps import (
    FloatMap,
    RelevanceMap,
    map_row,
    outside_share,
    row_without_map,
    to_picture,
    write_maps,
)
from mammoflow.geometry import Transform
from mammoflow.jobs import progress
from mammoflow.tables import EXTERNAL_FOLD

BATCH = 16  # crops a forward and backward pass
ERRORS = 3  # one in so many maps of a fold is of a wrong judgement, as far as there are any

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class CropMap(RelevanceMap):
    """Relevance of one crop, in the crop's pixels; `value` is the logit of malignant minus that of benign."""

    @property
    def probability(self) -> float:
        """Probability of malignant, 0..1."""
        return float(1 / (1 + np.exp(-self.value)))


def explain_crop(classifier: Classifier, crop: NDArray[np.uint8], **options: Any) -> CropMap:
    """Explain why a crop is malignant rather than benign.

    Parameters
    ----------
    classifier : see `mammoflow.classify.load_classifier`.
    crop : uint8 array, (H, W).
    **options : ``composite``, ``gamma``, ``epsilon``, ``attention``; see `Explainer`.

    Returns
    -------
    Map in the crop's pixels: positive speaks for malignant, negative for benign.

    Raises
    ------
    ModelError
        The classifier has an operation without a rule.
    """
    return explain_batch(classifier, Explainer(classifier.model, **options), [crop])[0]


def explain_batch(classifier: Classifier, explainer: Explainer, crops: Sequence[NDArray[np.uint8]]) -> list[CropMap]:
    """Explain several crops in one pass; see `explain_crop`."""
    malignant, benign = (classifier.classes.index(label) for label in ("malignant", "benign"))

    def target(logits: Tensor) -> Tensor:
        return logits[:, malignant] - logits[:, benign]

    size = classifier.crop_size
    x = preprocess(crops, size).to(next(classifier.model.parameters()).device)
    explained = explainer.explain(x, target)
    found = []
    for number, crop in enumerate(crops):
        height, width = crop.shape
        stretch = Transform.resize(width, height, size, size)
        relevance, on_padding = to_picture(explained.relevance[number, 0].cpu().numpy(), stretch, height, width)
        value, error = float(explained.value[number]), float(explained.conservation_error[number])
        found.append(CropMap(relevance, value, error, on_padding))
    return found


def explain_crops(
    models: Sequence[str | Path],
    predictions: str | Path,
    crops: list[str] | list[Path],
    images: list[str] | list[Path],
    settings: dict[str, Any],
    device: str,
    threads: int,
    table: str | Path,
    maps: str | Path,
) -> None:
    """Explain some crops of each fold, of both labels, errors among them.

    Crops of external patients, judged by all folds, are explained with the fold model whose probability is nearest to
    the mean. Crops of an architecture with an operation that has no rule get their rows all the same, with the reason
    and without a map.

    Parameters
    ----------
    models : classifiers in the order of folds.
    predictions : table of `mammoflow.tables.PREDICTIONS`, possibly empty.
    crops : tables of `mammoflow.tables.CROPS` of the data set's shards.
    images : tables of `mammoflow.tables.IMAGES` of the same shards: a crop may reach beyond its image.
    settings : section `explain` of the config.
    device : ``cpu`` or ``cuda``.
    threads : CPU threads.
    table : table of `mammoflow.tables.MAPS` to write.
    maps : container to write: one float32 array in the crop's pixels per ``map_id``.

    Raises
    ------
    DataError
        Predictions don't belong to these models or crops.
    """
    torch.set_num_threads(threads)
    chosen = choose_crops(tables.read(tables.PREDICTIONS, predictions), settings["crops_per_fold"])
    sizes = tables.read_all(tables.IMAGES, images)[["dataset", "image_id", "width", "height"]]
    known = tables.read_all(tables.CROPS, crops).merge(sizes, on=["dataset", "image_id"]).set_index("crop_id")
    missing = sorted(set(chosen["crop_id"]) - set(known.index))
    if missing:
        raise DataError(
            f"{predictions}: crop {missing[0]} isn't in the tables of crops and images; remove it to make it again"
        )
    explained = _explained(chosen, known, models, settings, device) if len(chosen) else iter(())
    log.info("%d crops explained", write_maps(progress(explained, len(chosen), "crops"), table, maps))


def choose_crops(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Choose `count` crops of each fold (0: all): the surest errors, then the surest right ones, labels in turn."""
    if not count:
        return predictions
    parts = [_choose_of_fold(rows, count) for _, rows in predictions.groupby("fold", sort=True)]
    return pd.concat(parts) if parts else predictions


def _choose_of_fold(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    said = np.where(rows["label"] == "malignant", rows["probability"], 1 - rows["probability"])
    ranked = rows.assign(said=said).sort_values(["said", "crop_id"], ascending=[False, True], kind="stable")
    right, wrong = ranked[ranked["said"] >= 0.5], ranked[ranked["said"] < 0.5][::-1]
    turn = right.groupby("label").cumcount()
    right = right.assign(turn=turn).sort_values(["turn", "label"], kind="stable").drop(columns="turn")
    errors = wrong.head(max(count // ERRORS, count - len(right)))
    return pd.concat([errors, right.head(count - len(errors))]).drop(columns="said")


def _explained(
    chosen: pd.DataFrame, known: pd.DataFrame, models: Sequence[str | Path], settings: dict[str, Any], device: str
) -> Iterator[tuple[dict[str, Any], FloatMap | None]]:
    """Row and map of each chosen crop."""
    classifiers = [load_classifier(path, device) for path in models]
    rows: list[Any] = list(chosen.itertuples())
    pictures = {row.crop_id: read_crop(str(known.at[row.crop_id, "png"])) for row in rows}
    judges = _judges(rows, classifiers, pictures)
    for fold, classifier in enumerate(classifiers):
        mine = [row for row in rows if judges[row.crop_id] == fold]
        explainer = Explainer(classifier.model, settings["composite"], gamma=settings["gamma"])
        for start in range(0, len(mine), BATCH):
            batch = mine[start : start + BATCH]
            try:
                found = explain_batch(classifier, explainer, [pictures[row.crop_id] for row in batch])
            except ModelError as error:
                log.warning("%s: %s", batch[0].classifier, error)
                yield from ((_row_without_map(row, known.loc[row.crop_id], fold, str(error)), None) for row in batch)
                continue
            for row, crop_map in zip(batch, found, strict=True):
                yield _row(row, known.loc[row.crop_id], fold, crop_map), crop_map.relevance


def _judges(
    rows: list[Any], classifiers: Sequence[Classifier], pictures: dict[str, NDArray[np.uint8]]
) -> dict[str, int]:
    """Fold of the model that explains each crop."""
    digests = {classifier.digest: fold for fold, classifier in enumerate(classifiers)}
    judges = {}
    for row in rows:
        made_by = row.model_digest.split("+")
        if not set(made_by) <= set(digests):
            raise DataError(
                f"crop {row.crop_id} was judged by model {row.model_digest}, the models here are {', '.join(digests)}; "
                "remove the predictions' table to make it again"
            )
        judges[row.crop_id] = digests[made_by[0]]
    external = [row for row in rows if row.model_fold == EXTERNAL_FOLD]
    if external:
        crops = [pictures[row.crop_id] for row in external]
        each = np.stack([predict(classifier, crops) for classifier in classifiers])
        nearest = np.abs(each - np.array([row.probability for row in external])).argmin(axis=0)
        judges.update({row.crop_id: int(fold) for row, fold in zip(external, nearest, strict=True)})
    return judges


def _row(row: Any, crop: Any, fold: int, crop_map: CropMap) -> dict[str, Any]:
    frame, region = _places(crop)
    beyond = outside_share(crop_map.relevance, region, crop.width, crop.height)
    what = _what(row, fold) | {"score": crop_map.probability}
    return map_row(replace(crop_map, on_padding=beyond), frame, region, **what)


def _row_without_map(row: Any, crop: Any, fold: int, reason: str) -> dict[str, Any]:
    return row_without_map(reason, *_places(crop), **_what(row, fold), score=row.probability)


def _places(crop: Any) -> tuple[list[float], list[float]]:
    """Frame and region of a crop, pixels of the stored image."""
    return [crop.x1, crop.y1, crop.x2, crop.y2], [crop.crop_x1, crop.crop_y1, crop.crop_x2, crop.crop_y2]


def _what(row: Any, fold: int) -> dict[str, Any]:
    """Columns of `mammoflow.tables.MAPS` that say what was explained."""
    return {
        "dataset": row.dataset,
        "map_id": f"{row.crop_id}-{row.classifier.replace('.', '_')}-fold{fold}",
        "kind": "crop",
        "part": "score",
        "model": row.classifier,
        "model_fold": fold,
        "image_id": row.image_id,
        "explained_id": row.crop_id,
        "label": row.label,
    }
