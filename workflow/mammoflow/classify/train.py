"""Training of one crop classifier: one architecture, one fold."""

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from mammoflow import tables
from mammoflow.classify import calibration
from mammoflow.classify.data import (
    Part,
    augment,
    class_weights,
    data_digest,
    inner_parts,
    lacking_class,
    load_part,
    training_rows,
)
from mammoflow.classify.model import (
    CLASSES,
    MALIGNANT,
    MEAN,
    STD,
    build,
    grey_levels,
    load_classifier,
    logits,
    normalise,
    save_classifier,
    start_from,
)
from mammoflow.classify.reproducible import reproducible
from mammoflow.config import weights_for
from mammoflow.errors import DataError
from mammoflow.files import whole_file, write_text
from mammoflow.provenance import DIGEST_LENGTH, file_sha256, settings_digest, text_digest

WEIGHT_DECAY = 0.05  # timm's usual for AdamW
WARMUP_EPOCHS = 1
KEEP_EVERY_S = 30.0  # shorter epochs than this don't each write the state, which is four times the model's size
SMOOTHED = 1  # epochs to either side that an epoch's validation figures are averaged with
WHOLE = 0  # number of the training on all crops; inner trainings count from 1
DIVERGED = "the training diverged (its numbers aren't finite): lower classify.learning_rate in config.yaml"

log = logging.getLogger("mammoflow")


@dataclass
class State:
    """All that a training needs to go on: what the checkpoint holds.

    Attributes
    ----------
    model, optimizer : being trained.
    average : moving average of the weights, which is what is judged and kept; None when it is switched off.
    history : one row an epoch: `epoch`, `learning_rate`, `training_loss`, `seconds` and `margins`, what the judged
        model says of each crop of the validation part (logit of malignant minus benign).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The model whose weights count: the average, or the trained one itself."""
        return self.model if self.average is None else self.average.module

    def save(self, path: Path) -> None:
        """Write the state whole, so that a kill at any moment leaves the previous one."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.judged.state_dict(),
            "history": self.history,
        }
        with whole_file(path) as partial, partial.open("wb") as stream:
            torch.save(state, stream)

    def load(self, path: Path, device: str) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, map_location=device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.judged.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]


@dataclass(frozen=True)
class Recipe:
    """What several trainings have in common: as of `train_classifier`."""

    architecture: str
    settings: dict[str, Any]
    device: str
    start: str | Path | None = None


class Training:
    """A training that is taken on epoch by epoch, from its checkpoint where there is one.

    Parameters
    ----------
    recipe : what is trained, and how.
    streams : numbers that all its randomness comes from: seed, fold, number of the training.
    training, validation : the crops it learns from, and those it says something of after each epoch, possibly none.
    checkpoint : file of its state.
    """

    def __init__(self, recipe: Recipe, streams: tuple[int, ...], training: Part, validation: Part, checkpoint: Path):
        settings, device = recipe.settings, recipe.device
        self.settings, self.streams, self.checkpoint = settings, streams, checkpoint
        self.training, self.validation = training, validation
        self.state = _start(recipe, _stream(*streams))
        self.weights = class_weights(training.labels).to(device)
        epochs = settings["epochs"]
        self.schedule = CosineLRScheduler(
            self.state.optimizer,
            t_initial=epochs,
            lr_min=settings["learning_rate"] / 100,
            warmup_t=min(WARMUP_EPOCHS, epochs - 1),
            warmup_lr_init=settings["learning_rate"] / 10,
        )
        if checkpoint.exists():
            self.state.load(checkpoint, device)
            log.info("going on after epoch %d of %d", self.done, epochs)
        self.kept = time.monotonic()

    @property
    def done(self) -> int:
        """Number of epochs done."""
        return len(self.state.history)

    def go_on(self, epochs: int) -> None:
        """Train until `epochs` are done."""
        while self.done < epochs:
            self._epoch(self.done)
            if time.monotonic() - self.kept >= KEEP_EVERY_S:
                self.keep()
            _report(self.state.history[-1], epochs)

    def keep(self) -> None:
        """Write the checkpoint."""
        self.state.save(self.checkpoint)
        self.kept = time.monotonic()

    def _epoch(self, epoch: int) -> None:
        started = time.monotonic()
        self.schedule.step(epoch)
        # An epoch's random numbers depend on the streams and the epoch alone, so a resumed training draws the same.
        loss = _train_epoch(
            self.state, self.training, self.weights, self.settings, epoch, _stream(*self.streams, epoch)
        )
        margins = _margins(self.state.judged, self.validation)
        if not np.isfinite([loss, *margins]).all():
            raise DataError(DIVERGED)
        row = {"epoch": epoch, "learning_rate": self.state.optimizer.param_groups[0]["lr"], "training_loss": loss}
        self.state.history.append({**row, "margins": margins, "seconds": round(time.monotonic() - started, 3)})


def train_classifier(
    crop_tables: list[str] | list[Path],
    fold: int,
    architecture: str,
    settings: dict[str, Any],
    seed: int,
    device: str,
    model_path: str | Path,
    history_path: str | Path,
    start: str | Path | None = None,
) -> None:
    """Train the classifier that judges the crops of `fold`, from the crops of all other folds.

    When a class has no crop to learn from, the study goes on all the same: the classifier stays untrained, gives every
    crop the probability 0.5, and the log says why and how to mend it.

    How long to train is cross-fitted inside the training folds: their patients are dealt into `validation_folds` parts,
    for each part a model is trained on the others, and after each epoch every training crop has been judged by a
    model that never saw its patient. These trainings stop together when the AUC, smoothed over neighbouring epochs,
    hasn't grown for ``patience`` epochs. The classifier then trains on all training crops for as many epochs as
    gave the highest smoothed AUC. What the inner models said at that epoch fits the temperature. A single small
    validation part would choose by a few crops, and its patients would teach nothing.

    Weights are averaged over the steps (``ema``). The states are kept now and then in
    ``<fold's directory>.work/<digest of settings and data>/``, and a killed training goes on from there to the
    same weights.

    Parameters
    ----------
    crop_tables : CROPS tables of all internal data sets, one protocol.
    fold : fold that is left out.
    architecture : timm's name.
    settings : ``classify`` of config.yaml.
    seed : the study's; on the CPU the same seed gives the same weights.
    device : ``cpu`` or ``cuda``.
    model_path, history_path : files to write: weights with their record, and one row an epoch.
    start : classifier of the same architecture to start from (`mammoflow.classify.pretrain`), in place of
        ``classify.weights`` or random weights.

    Raises
    ------
    LeakageError
        A patient is on both sides of the fold, or an external patient among the training crops.
    DataError
        A crop can't be read.
    ModelError
        Unknown architecture, or pretrained weights that can't be used.
    """
    crops = tables.read_all(tables.CROPS, crop_tables)
    rows = training_rows(crops, fold)
    if reason := lacking_class(rows):
        log.warning("fold %d stays untrained: %s", fold, reason)
        _write_untrained(architecture, fold, settings, seed, model_path, history_path)
        return
    whole = load_part(rows, settings["crop_size"])
    recipe = Recipe(architecture, settings, device, start)
    record = run_record(recipe, fold, seed, whole)
    work = Path(model_path).parent.with_name(f"{Path(model_path).parent.name}.work")
    kept = work / record["run_digest"]
    with reproducible(settings["threads"], device):
        inner, curve = cross_validate(recipe, fold, seed, whole, kept)
        chosen = best_epoch(curve)
        fitted = _calibrate(inner, chosen, whole)
        log.info("%d epochs for the classifier itself, on all %d crops", chosen + 1, len(whole))
        nothing = whole.of(np.zeros(len(whole), bool))
        final = Training(recipe, (seed, fold, WHOLE), whole, nothing, kept / "whole.pt")
        final.go_on(chosen + 1)
    auc = curve["smoothed_auc"][chosen]
    chosen_epoch = {"epoch": chosen, "validation_auc": None if np.isnan(auc) else auc, "calibration": asdict(fitted)}
    save_classifier(model_path, final.state.judged, {**record, **chosen_epoch})
    losses = pd.Series([row["training_loss"] for row in final.state.history])
    with whole_file(history_path) as partial:
        curve.assign(whole_training_loss=losses).to_csv(partial, sep="\t", index=False, lineterminator="\n")
    shutil.rmtree(work, ignore_errors=True)


def cross_validate(
    recipe: Recipe, fold: int, seed: int, whole: Part, kept: Path
) -> tuple[list[Training], pd.DataFrame]:
    """Train on all but one inner part at a time, until the validation curve no longer grows.

    Parameters
    ----------
    recipe, fold, seed : as of `train_classifier`.
    whole : all training crops, both labels present.
    kept : directory for the states, which a killed call goes on from.

    Returns
    -------
    The trainings, each with its validation part (none where patients are too few), and their curve (`curve_of`).
    """
    settings = recipe.settings
    parts = inner_parts(whole, settings["validation_folds"], seed)
    inner = [
        Training(recipe, (seed, fold, number), *part, kept / f"inner{number}.pt")
        for number, part in enumerate(parts, start=1)
    ]
    epochs = settings["epochs"]
    curve = curve_of(inner, 0 if inner else epochs)
    # In step with each other, so that all stop at once; after a kill some may be ahead of the others.
    while not finished(curve, epochs, settings["patience"]):
        for training in inner:
            training.go_on(len(curve) + 1)
        curve = curve_of(inner, len(curve) + 1)
        log.info(
            "epoch %d/%d: loss %.3f, validation AUC %.3f (smoothed %.3f, best %.3f), at most %.0f s left",
            len(curve), epochs, *curve[["training_loss", "validation_auc", "smoothed_auc"]].iloc[-1],
            curve["smoothed_auc"].max(), (epochs - len(curve)) * curve["seconds"].mean(),
        )  # fmt: skip
    for training in inner:
        training.keep()
    return inner, curve


def curve_of(inner: Sequence[Training], epochs: int) -> pd.DataFrame:
    """One row an epoch: means over the `inner` trainings, and the validation figures smoothed over neighbours.

    The AUC compares crops judged by one model only: it is the share of all pairs within the parts that stand in
    the right order. Without inner trainings all is NaN.
    """
    columns = ["learning_rate", "training_loss", "validation_loss", "validation_auc", "seconds"]
    rows = [_mean_row(inner, epoch) if inner else [np.nan] * len(columns) for epoch in range(epochs)]
    curve = pd.DataFrame(rows, columns=columns, dtype=np.float64)
    window = curve[["validation_auc", "validation_loss"]].rolling(2 * SMOOTHED + 1, center=True, min_periods=1).mean()
    curve = curve.assign(smoothed_auc=window["validation_auc"], smoothed_loss=window["validation_loss"])
    curve.insert(0, "epoch", range(epochs))
    return curve


def _mean_row(inner: Sequence[Training], epoch: int) -> list[float]:
    here = [training.state.history[epoch] for training in inner]
    pairs, judged = zip(*(judge(training, epoch) for training in inner), strict=True)
    auc, loss = np.average(judged, axis=0, weights=pairs)
    losses, seconds = ([row[name] for row in here] for name in ("training_loss", "seconds"))
    return [here[0]["learning_rate"], float(np.mean(losses)), loss, auc, sum(seconds)]


def judge(training: Training, epoch: int) -> tuple[int, tuple[float, float]]:
    """Pairs of a malignant and a benign crop in a training's validation part, and AUC and loss after an epoch."""
    labels, margins = training.validation.labels, np.array(training.state.history[epoch]["margins"])
    each = [calibration.log_loss(margins[labels == label], labels[labels == label]) for label in (0, 1)]
    pairs = int((labels == 0).sum()) * int((labels == 1).sum())
    return pairs, (float(roc_auc_score(labels, margins)), float(np.mean(each)))


def _calibrate(inner: Sequence[Training], epoch: int, whole: Part) -> calibration.Calibration:
    """Fit the calibration to what the inner models said at `epoch` of crops they never saw."""
    margins = [margin for training in inner for margin in training.state.history[epoch]["margins"]]
    labels = [label for training in inner for label in training.validation.labels]
    fitted = calibration.fit(np.array(margins, np.float64), np.array(labels, np.int64), whole.labels)
    log.info("calibration: temperature %.2f, offset %+.2f, by %d crops", fitted.temperature, fitted.offset, len(labels))
    return fitted


def _write_untrained(
    architecture: str,
    fold: int,
    settings: dict[str, Any],
    seed: int,
    model_path: str | Path,
    history_path: str | Path,
) -> None:
    """Write a classifier that knows nothing: its last layer is zero, so both classes are equally likely."""
    torch.manual_seed(_stream(seed, fold))
    model: Any = build(architecture, settings["crop_size"])
    for parameter in model.get_classifier().parameters():
        torch.nn.init.zeros_(parameter)
    record = {"architecture": architecture, "crop_size": settings["crop_size"], "classes": CLASSES, "fold": fold}
    save_classifier(model_path, model, {**record, "mean": MEAN, "std": STD, "seed": seed, "trained": False})
    write_text(history_path, "epoch\n")


def run_record(recipe: Recipe, fold: int, seed: int, whole: Part) -> dict[str, Any]:
    """Return what the model file says of itself; its ``run_digest`` names the run by everything that decides it."""
    # Another list of architectures changes nothing for this one.
    own = {key: value for key, value in recipe.settings.items() if key != "architectures"}
    record = {
        "architecture": recipe.architecture,
        "crop_size": recipe.settings["crop_size"],
        "classes": CLASSES,
        "mean": MEAN,
        "std": STD,
        "fold": fold,
        "protocol": whole.rows["protocol"].iloc[0],
        "seed": seed,
        "settings_digest": settings_digest(own),
        "start_digest": file_sha256(recipe.start)[:DIGEST_LENGTH] if recipe.start else None,
        "data_digest": data_digest([whole]),
        "patients_digest": text_digest(*sorted(set(whole.rows["patient_key"]))),
    }
    return {**record, "run_digest": settings_digest(record)}


def _stream(*parts: int) -> int:
    """Seed of one independent stream of random numbers, decided by `parts`."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _start(recipe: Recipe, stream: int) -> State:
    settings = recipe.settings
    torch.manual_seed(stream)
    if recipe.start:
        model = load_classifier(recipe.start).model
    else:
        model = build(recipe.architecture, settings["crop_size"])
        start_from(model, weights_for(settings["weights"], recipe.architecture))
    model.to(recipe.device)
    optimizer = torch.optim.AdamW(model.parameters(), settings["learning_rate"], weight_decay=WEIGHT_DECAY)
    average = ModelEmaV3(model, settings["ema"], use_warmup=True) if settings["ema"] else None
    return State(model, optimizer, average)


def _train_epoch(
    state: State, training: Part, weights: Tensor, settings: dict[str, Any], epoch: int, stream: int
) -> float:
    """One pass over the training crops; returns the mean loss."""
    torch.manual_seed(stream)  # dropout
    generator = torch.Generator().manual_seed(stream)
    state.model.train()
    losses = []
    batches = _batches(len(training), settings["batch"], generator)
    for number, batch in enumerate(batches, start=1):
        inputs = augment(grey_levels(training.crops[batch]), settings["augment"], generator)
        inputs = normalise(inputs).to(weights.device)
        labels = torch.from_numpy(training.labels[batch]).to(weights.device)
        loss = F.cross_entropy(state.model(inputs), labels, weights)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        if state.average is not None:
            state.average.update(state.model, step=epoch * len(batches) + number)
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def _batches(count: int, batch: int, generator: torch.Generator) -> list[NDArray[np.int64]]:
    """Shuffle 0..count-1 and cut it into batches of at least `batch`: batch normalisation can't learn from one crop."""
    order = torch.randperm(count, generator=generator).numpy()
    return np.array_split(order, max(1, count // batch))


def _margins(model: nn.Module, validation: Part) -> list[float]:
    """Logit of malignant minus benign of each crop; none without a validation part."""
    said = logits(model, normalise(grey_levels(validation.crops)))
    return (said[:, MALIGNANT] - said[:, 1 - MALIGNANT]).tolist()


def best_epoch(curve: pd.DataFrame) -> int:
    """Index of the epoch with the highest smoothed AUC, of equal ones that with the lowest loss, then the first.

    Without a validation part it is the last epoch.
    """
    if curve["smoothed_auc"].isna().all():
        return len(curve) - 1
    ranked = curve.sort_values(["smoothed_auc", "smoothed_loss", "epoch"], ascending=[False, True, True])
    return int(ranked["epoch"].iloc[0])


def finished(curve: pd.DataFrame, epochs: int, patience: int) -> bool:
    """Whether all epochs are done, or the best one lies `patience` epochs back."""
    return len(curve) >= epochs or (len(curve) > 0 and len(curve) - 1 - best_epoch(curve) >= patience)


def _report(row: dict[str, Any], epochs: int) -> None:
    log.info("epoch %d/%d: loss %.3f, %.1f s", row["epoch"] + 1, epochs, row["training_loss"], row["seconds"])
