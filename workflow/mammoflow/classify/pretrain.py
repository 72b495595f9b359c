"""A start for the classifiers of all folds: weights that have seen many phantom lesions and no patient."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from mammoflow.classify.data import Part
from mammoflow.classify.model import CLASSES, MEAN, STD, save_classifier
from mammoflow.classify.reproducible import reproducible
from mammoflow.classify.train import Recipe, Training
from mammoflow.files import whole_file
from mammoflow.phantom.crops import draw_crops
from mammoflow.provenance import settings_digest

STREAM = 10**6  # in place of a fold's number
JUDGED_SHARE = 0.1  # crops besides that are only judged, of those that teach

log = logging.getLogger("mammoflow")


def pretrain_classifier(
    architecture: str,
    settings: dict[str, Any],
    seed: int,
    device: str,
    model_path: str | Path,
    history_path: str | Path,
) -> None:
    """Train a classifier on crops of phantom lesions, for the trainings of all folds to start from.

    No patient is in them, so nothing of any fold can leak. Tissue without a lesion counts as benign: that is what
    the classifiers will call it, since every frame that a detector makes on a negative patient is a benign crop,
    and most such frames show no lesion.

    A killed training goes on from its state to the same weights, as in `train_classifier`.

    Parameters
    ----------
    architecture : timm's name.
    settings : ``classify`` of config.yaml with ``pretrain.phantom`` (`crops`, `epochs`, `tissue_share`), and
        ``margin`` and ``side_mm`` of the crops.
    seed : the study's.
    device : ``cpu`` or ``cuda``.
    model_path, history_path : files to write; the history's AUC is of phantom crops that didn't teach.
    """
    wanted = settings["pretrain"]["phantom"]
    recipe = Recipe(architecture, settings | {"epochs": wanted["epochs"]}, device)
    work = Path(model_path).parent.with_name(f"{Path(model_path).parent.name}.work")
    kept = work / settings_digest([architecture, settings, seed]) / "phantom.pt"
    every = draw_part(settings, seed, wanted["crops"] + max(2, round(JUDGED_SHARE * wanted["crops"])))
    teaches = np.arange(len(every)) < wanted["crops"]
    with reproducible(settings["threads"], device):
        training = Training(recipe, (seed, STREAM), every.of(teaches), every.of(~teaches), kept)
        training.go_on(wanted["epochs"])
    history = pd.DataFrame(training.state.history)
    history["auc"] = [roc_auc_score(training.validation.labels, margins) for margins in history.pop("margins")]
    log.info("AUC on %d other phantom crops: %.3f", len(training.validation), history["auc"].iloc[-1])
    record = {"architecture": architecture, "crop_size": settings["crop_size"], "classes": CLASSES, "fold": None}
    save_classifier(model_path, training.state.judged, {**record, "mean": MEAN, "std": STD, "seed": seed})
    with whole_file(history_path) as partial:
        history.to_csv(partial, sep="\t", index=False, lineterminator="\n")
    shutil.rmtree(work, ignore_errors=True)


def draw_part(settings: dict[str, Any], seed: int, count: int) -> Part:
    """Draw `count` phantom crops with their labels."""
    share = settings["pretrain"]["phantom"]["tissue_share"]
    drawn = list(draw_crops(seed, count, settings["crop_size"], share, settings["margin"], settings["side_mm"]))
    names = pd.DataFrame({"shows": [shows for shows, _ in drawn]})
    labels = (names["shows"] == "malignant").to_numpy().astype(np.int64)
    log.info("phantom crops: %s", ", ".join(f"{n} {what}" for what, n in names["shows"].value_counts().items()))
    return Part(names, np.stack([crop for _, crop in drawn]), labels)
