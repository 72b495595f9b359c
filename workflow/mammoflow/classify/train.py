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
    check_apart,
    class_weights,
    data_digest,
    lacking_class,
    load_part,
    split_validation,
    training_rows,
)
from mammoflow.classify.model import (
    CLASSES,
    MALIGNANT,
    MEAN,
    STD,
    build,
    grey_levels,
    logits,
    normalise,
    save_classifier,
    start_from,
)
from mammoflow.classify.reproducible import reproducible
from mammoflow.errors import DataError
from mammoflow.files import whole_file, write_text
from mammoflow.provenance import settings_digest, text_digest

WEIGHT_DECAY = 0.05  # timm's usual for AdamW
WARMUP_EPOCHS = 1
KEEP_EVERY_S = 10.0  # shorter epochs than this don't each write the state, which is four times the model's size
DIVERGED = "the training diverged (its numbers aren't finite): lower classify.learning_rate in config.yaml"

log = logging.getLogger("mammoflow")


@dataclass
class State:
    """All that a training needs to go on: what the checkpoint holds.

    Attributes
    ----------
    model, optimizer : being trained.
    average : moving average of the weights, which is what is judged and kept; None when it is switched off.
    best : weights of the best epoch so far.
    history : one row an epoch, as in history.tsv.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

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
            "best": self.best,
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
        self.best, self.history = state["best"], state["history"]


def train_classifier(
    crop_tables: list[str] | list[Path],
    fold: int,
    architecture: str,
    settings: dict[str, Any],
    seed: int,
    device: str,
    model_path: str | Path,
    history_path: str | Path,
) -> None:
    """Train the classifier that judges the crops of `fold`, from the crops of all other folds.

    When a class has no crop to learn from, the study goes on all the same: the classifier stays untrained, gives every
    crop the probability 0.5, and the log says why and how to mend it.

    Weights are averaged over the steps (``ema``). A patient-wise validation part chooses the epoch: the one with the
    highest AUC, of equal ones that with the lowest loss; training stops after ``patience`` epochs without a better one.
    At the end the same part fits the temperature of the calibrated probabilities. The state is kept after each epoch
    (of short ones, every ten seconds) in ``<fold's directory>.work/<digest of settings and data>/``, and a killed
    training goes on from there to the same weights.

    Parameters
    ----------
    crop_tables : CROPS tables of all internal data sets, one protocol.
    fold : fold that is left out.
    architecture : timm's name.
    settings : ``classify`` of config.yaml.
    seed : the study's; on the CPU the same seed gives the same weights.
    device : ``cpu`` or ``cuda``.
    model_path, history_path : files to write: weights with their record, and one row an epoch.

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
    training, validation = _parts(rows, settings, seed)
    record = _record(architecture, fold, settings, seed, training, validation)
    work = Path(model_path).parent.with_name(f"{Path(model_path).parent.name}.work")
    with reproducible(settings["threads"], device):
        state = _start(architecture, fold, settings, seed, device)
        _train(state, training, validation, settings, fold, seed, device, work / record["run_digest"] / "state.pt")
        state.model.load_state_dict(state.best)
        fitted = _calibrate(state.model, training, validation)
    chosen = state.history[best_epoch(state.history)]
    auc = None if np.isnan(chosen["validation_auc"]) else chosen["validation_auc"]
    chosen_epoch = {"epoch": chosen["epoch"], "validation_auc": auc, "calibration": asdict(fitted)}
    save_classifier(model_path, state.model, {**record, **chosen_epoch})
    with whole_file(history_path) as partial:
        pd.DataFrame(state.history).to_csv(partial, sep="\t", index=False, lineterminator="\n")
    shutil.rmtree(work, ignore_errors=True)


def _calibrate(model: nn.Module, training: Part, validation: Part) -> calibration.Calibration:
    """Fit the kept model's calibration on its validation part."""
    said = logits(model, normalise(grey_levels(validation.crops))).double().numpy()
    fitted = calibration.fit(said[:, MALIGNANT] - said[:, 1 - MALIGNANT], validation.labels, training.labels)
    log.info("calibration: temperature %.2f, offset %+.2f", fitted.temperature, fitted.offset)
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


def _parts(rows: pd.DataFrame, settings: dict[str, Any], seed: int) -> tuple[Part, Part]:
    training, validation = split_validation(rows, settings["validation_share"], seed)
    check_apart(training, validation, "the training part and the validation part")
    for name, rows in (("training", training), ("validation", validation)):
        counts = ", ".join(f"{int((rows['label'] == label).sum())} {label}" for label in CLASSES)
        log.info("%s: %d crops of %d patients (%s)", name, len(rows), rows["patient_key"].nunique(), counts)
    return load_part(training, settings["crop_size"]), load_part(validation, settings["crop_size"])


def _record(
    architecture: str, fold: int, settings: dict[str, Any], seed: int, training: Part, validation: Part
) -> dict[str, Any]:
    """Return what the model file says of itself; its ``run_digest`` names the run by everything that decides it."""
    seen = pd.concat([training.rows, validation.rows])
    # Another list of architectures changes nothing for this one.
    own = {key: value for key, value in settings.items() if key != "architectures"}
    record = {
        "architecture": architecture,
        "crop_size": settings["crop_size"],
        "classes": CLASSES,
        "mean": MEAN,
        "std": STD,
        "fold": fold,
        "protocol": seen["protocol"].iloc[0],
        "seed": seed,
        "settings_digest": settings_digest(own),
        "data_digest": data_digest([training, validation]),
        "patients_digest": text_digest(*sorted(set(seen["patient_key"]))),
    }
    return {**record, "run_digest": settings_digest(record)}


def _stream(*parts: int) -> int:
    """Seed of one independent stream of random numbers, decided by `parts`."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _start(architecture: str, fold: int, settings: dict[str, Any], seed: int, device: str) -> State:
    torch.manual_seed(_stream(seed, fold))
    model = build(architecture, settings["crop_size"])
    start_from(model, settings["weights"])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), settings["learning_rate"], weight_decay=WEIGHT_DECAY)
    average = ModelEmaV3(model, settings["ema"], use_warmup=True) if settings["ema"] else None
    return State(model, optimizer, average)


def _train(
    state: State,
    training: Part,
    validation: Part,
    settings: dict[str, Any],
    fold: int,
    seed: int,
    device: str,
    checkpoint: Path,
) -> None:
    if checkpoint.exists():
        state.load(checkpoint, device)
        log.info("going on after epoch %d of %d", len(state.history), settings["epochs"])
    epochs = settings["epochs"]
    schedule = CosineLRScheduler(
        state.optimizer,
        t_initial=epochs,
        lr_min=settings["learning_rate"] / 100,
        warmup_t=min(WARMUP_EPOCHS, epochs - 1),
        warmup_lr_init=settings["learning_rate"] / 10,
    )
    weights = class_weights(training.labels).to(device)
    kept = time.monotonic()
    while not finished(state.history, epochs, settings["patience"]):
        epoch, started = len(state.history), time.monotonic()
        schedule.step(epoch)
        # An epoch's random numbers depend on seed and epoch alone, so a resumed training draws the same ones.
        loss = _train_epoch(state, training, weights, settings, epoch, _stream(seed, fold, epoch))
        row = {"epoch": epoch, "learning_rate": state.optimizer.param_groups[0]["lr"], "training_loss": loss}
        row |= _validate(state.judged, validation, weights)
        state.history.append({**row, "seconds": round(time.monotonic() - started, 3)})
        if best_epoch(state.history) == epoch:
            state.best = {name: value.detach().clone() for name, value in state.judged.state_dict().items()}
        if time.monotonic() - kept >= KEEP_EVERY_S:
            state.save(checkpoint)
            kept = time.monotonic()
        _report(state.history, epochs)


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
    if not np.isfinite(losses).all():
        raise DataError(DIVERGED)
    return float(np.mean(losses))


def _batches(count: int, batch: int, generator: torch.Generator) -> list[NDArray[np.int64]]:
    """Shuffle 0..count-1 and cut it into batches of at least `batch`: batch normalisation can't learn from one crop."""
    order = torch.randperm(count, generator=generator).numpy()
    return np.array_split(order, max(1, count // batch))


def _validate(model: nn.Module, validation: Part, weights: Tensor) -> dict[str, float]:
    """Loss and AUC on the validation part; NaN without one."""
    if not len(validation):
        return {"validation_loss": float("nan"), "validation_auc": float("nan")}
    scores = logits(model, normalise(grey_levels(validation.crops)))
    if not scores.isfinite().all():
        raise DataError(DIVERGED)
    loss = F.cross_entropy(scores, torch.from_numpy(validation.labels), weights.cpu())
    probability = scores.softmax(dim=1)[:, MALIGNANT].numpy()
    return {"validation_loss": float(loss), "validation_auc": float(roc_auc_score(validation.labels, probability))}


def best_epoch(history: Sequence[dict[str, float]]) -> int:
    """Index of the epoch with the highest validation AUC, of equal ones that with the lowest loss, then the first.

    Without a validation part it is the last epoch.
    """
    if np.isnan(history[-1]["validation_auc"]):
        return len(history) - 1
    return min(range(len(history)), key=lambda i: (-history[i]["validation_auc"], history[i]["validation_loss"], i))


def finished(history: Sequence[dict[str, float]], epochs: int, patience: int) -> bool:
    """Whether all epochs are done, or the best one lies `patience` epochs back."""
    if not history:
        return epochs == 0
    return len(history) >= epochs or len(history) - 1 - best_epoch(history) >= patience


def _report(history: Sequence[dict[str, float]], epochs: int) -> None:
    row = history[-1]
    left = (epochs - len(history)) * float(np.mean([past["seconds"] for past in history]))
    log.info(
        "epoch %d/%d: loss %.3f, validation loss %.3f, validation AUC %.3f (best %.3f), at most %.0f s left",
        len(history), epochs, row["training_loss"], row["validation_loss"], row["validation_auc"],
        history[best_epoch(history)]["validation_auc"], left,
    )  # fmt: skip
