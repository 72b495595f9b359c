"""The study's settings: checked against the closed schema and against each other before any job starts."""

import copy
import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from mammoflow.errors import ConfigError

SCHEMA = Path(__file__).parent.parent / "schemas" / "config.schema.yaml"
RTDETR_SIZE = 128  # pixels; 16 x 16 + 8 x 8 + 4 x 4 cells, of which an RT-DETR takes 300
NESTED_FOLDS = 3  # two are left out at a time, and detectors learn from the rest
# settings of section `detect` that decide the weights; another of the rest judges pictures anew but trains nothing
TRAINING_KEYS = (
    "weights", "pretrain", "image_size", "epochs", "batch", "learning_rate", "validation_share", "patience",
    "background_per_positive", "copy_paste", "phantom_paste", "tiles", "precision", "threads", "augment",
)  # fmt: skip
# those of them that say how patients' pictures are used: they make no difference to what is learned before
PATIENTS_KEYS = (
    "epochs", "validation_share", "patience", "background_per_positive", "copy_paste", "phantom_paste",
)  # fmt: skip
RESERVED_NAMES = {"paper"}  # a directory between detector and data set in results/detect/


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of config.yaml."""
    return yaml.safe_load(SCHEMA.read_text("utf-8"))


def check_config(config: dict[str, Any]) -> dict[str, Any]:
    """Check a study's settings and resolve its directories.

    Parameters
    ----------
    config : merged settings as Snakemake gives them.

    Returns
    -------
    A copy in which `roots` and $VARIABLES are resolved, and texts inside a mapping of the command line are values.

    Raises
    ------
    ConfigError
        One message that names the key, its value, what is expected and how to mend it.
    """
    study = _read_texts(config)
    error = best_match(Draft202012Validator(schema()).iter_errors(study))
    if error is not None:
        raise ConfigError(_describe(error))
    _check_names(study)
    _resolve_roots(study)
    for number, dataset in enumerate(study["datasets"]):
        _check_dataset(dataset, f"datasets[{number}] ({dataset['name']})", study["labels"]["folds"])
    _check_models(study)
    _check_sweeps(study)
    return study


def _read_texts(config: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which texts stand for values where the schema wants no text.

    Snakemake gives all that stands inside a mapping of ``--config 'labels={folds: 3}'`` as text, and YAML `1e-3`.
    """
    study = copy.deepcopy(config)
    for error in _leaves(Draft202012Validator(schema()).iter_errors(config)):
        if error.validator == "type" and isinstance(error.instance, str):
            *places, last = error.absolute_path
            holder: Any = study
            for place in places:
                holder = holder[place]
            holder[last] = _value(error.instance)
    return study


def _leaves(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """Give schema violations; where several alternatives are violated, those of each."""
    for error in errors:
        yield from _leaves(error.context) if error.context else [error]


def _value(text: str) -> Any:
    """Return what a text says in YAML or, as `1e-3`, which is no number there, as a number."""
    try:
        value = yaml.safe_load(text)
        return float(value) if isinstance(value, str) and math.isfinite(float(value)) else value
    except (yaml.YAMLError, ValueError):
        return text


def _describe(error: ValidationError) -> str:
    """Turn a schema violation into: key, value, expectation, mend."""
    where = _dotted(error.absolute_path)
    node: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    described = node.get("description", "")
    if error.validator == "additionalProperties":
        known = sorted(node.get("properties", {}))
        given = error.instance if isinstance(error.instance, dict) else {}
        unknown = sorted(set(given) - set(known))
        guesses = difflib.get_close_matches(str(unknown[0]), known, n=1)
        hint = f"did you mean `{guesses[0]}`?" if guesses else f"known keys: {', '.join(known)}"
        return f"config: unknown key `{unknown[0]}` in {where or 'the top level'}; {hint}"
    if error.validator == "required":
        return f"config: {where or 'the top level'}: {error.message.replace(chr(39), '`')}; {described}"
    return (
        f"config: {where} is {error.instance!r}, expected {_expectation(error)} ({described}); mend it in config.yaml"
    )


def _expectation(error: ValidationError) -> str:
    words = {
        "type": "type {}",
        "enum": "one of {}",
        "minimum": "at least {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "at most {}",
        "multipleOf": "a multiple of {}",
        "pattern": "a text matching {}",
        "minItems": "at least {} entries",
        "uniqueItems": "no entry twice",
        "minLength": "a text of at least {} characters",
    }
    value = error.validator_value
    shown = ", ".join(map(str, value)) if isinstance(value, list) else value
    return words.get(str(error.validator), f"{error.validator} {{}}").format(shown)


def _dotted(path: Any) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".")


def _check_names(study: dict[str, Any]) -> None:
    names = [dataset["name"] for dataset in study["datasets"]]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"config: datasets: the name `{repeated[0]}` occurs twice; give each data set a name of its own"
        )
    reserved = RESERVED_NAMES.intersection(names)
    if reserved:
        raise ConfigError(f"config: datasets: `{min(reserved)}` is a name the results use; choose another")
    if not any(dataset["role"] == "internal" for dataset in study["datasets"]):
        raise ConfigError("config: datasets: none has `role: internal`; at least one must, models are trained on it")
    strangers = sorted(set(study["roots"]) - set(names))
    if strangers:
        raise ConfigError(f"config: roots.{strangers[0]}: no data set has this name; known: {', '.join(names)}")


def _resolve_roots(study: dict[str, Any]) -> None:
    for dataset in study["datasets"]:
        root = study["roots"].get(dataset["name"], dataset["root"])
        dataset["root"] = expand(root, f"root of data set `{dataset['name']}`")
    for stage in ("detect", "classify"):
        weights = study[stage]["weights"]
        if weights and weights.get("optional") and _unset(weights.get("path", "")):
            study[stage]["weights"] = None
        elif weights and "path" in weights:
            weights["path"] = expand(weights["path"], f"{stage}.weights.path")


def _unset(path: str) -> bool:
    """Whether a path names an environment variable that isn't set."""
    return re.search(r"\$\{?\w+", os.path.expandvars(path)) is not None


def overlay(settings: dict[str, Any], values: dict[str, Any], section: str = "detect") -> dict[str, Any]:
    """Return a copy of a section's nested settings with values laid over them; a dot in a key goes one level down.

    Raises
    ------
    ConfigError
        There is no such key.
    """
    changed = copy.deepcopy(settings)
    for key, value in values.items():
        *sections, last = key.split(".")
        node = changed
        for section in sections:
            node = node.get(section, {})
        if not isinstance(node, dict) or last not in node:
            raise ConfigError(
                f"config: the grid of a sweep: `{key}` is no setting of section {section}; known: {', '.join(settings)}"
            )
        node[last] = value
    return changed


def weights_for(weights: dict[str, Any] | None, architecture: str) -> dict[str, Any] | None:
    """Pretrained weights that an architecture starts from; None from scratch, as where they are for others only."""
    return weights if weights and architecture in weights.get("architectures", [architecture]) else None


def sweep_points(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the values of each of the sweep's grids, the last key changing fastest."""
    return [dict(zip(grid, values, strict=True)) for grid in sweep["grid"] for values in product(*grid.values())]


def sweep_settings(settings: dict[str, Any], sweep: dict[str, Any], point: int) -> dict[str, Any]:
    """Return a section (`detect` or `classify`) with the values of a point of its sweep laid over it."""
    return overlay(settings, sweep_points(sweep)[point])


def sweep_rows(
    sweep: dict[str, Any], figure: str, found: dict[int, tuple[list[float], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Rows of a sweep's table, best first.

    Parameters
    ----------
    sweep : section of the sweep.
    figure : name of the column to rank by.
    found : of each point the figure in each fold and from each seed, and further columns.
    """
    rows = [
        {
            "point": point,
            "settings": ", ".join(f"{key}={value}" for key, value in values.items()),
            figure: sum(found[point][0]) / len(found[point][0]),
            "lowest": min(found[point][0]),
            "highest": max(found[point][0]),
            **found[point][1],
        }
        for point, values in enumerate(sweep_points(sweep))
    ]
    return sorted(rows, key=lambda row: (-row[figure], row["point"]))


# settings that count in the pretraining, which is made once for all points of a sweep: with it none may be in a grid
PRETRAINED = {"detect": ("weights",), "classify": ("weights", "crop_size")}


def _check_sweeps(study: dict[str, Any]) -> None:
    """Refuse grids whose values the schema refuses, before any of their trainings starts."""
    folds = study["labels"]["folds"]
    for name, stage in (("sweep", "detect"), ("sweep_classifiers", "classify")):
        sweep = study[name]
        if max(sweep["folds"]) >= folds:
            raise ConfigError(
                f"config: {name}.folds holds {max(sweep['folds'])}, but labels.folds is {folds}; take lower ones"
            )
        for key, values in (item for grid in sweep["grid"] for item in grid.items()):
            _check_values(study, name, stage, key, values)
    wanted, known = study["sweep_classifiers"]["protocol"], study["crops"]["protocols"]
    if wanted not in known:
        raise ConfigError(
            f"config: sweep_classifiers.protocol is `{wanted}`, expected one of crops.protocols: {', '.join(known)}"
        )


def _check_values(study: dict[str, Any], name: str, stage: str, key: str, values: list[Any]) -> None:
    setting = key.partition(".")[0]
    if setting == "pretrain" or (setting in PRETRAINED[stage] and study[stage]["pretrain"]):
        raise ConfigError(
            f"config: {name}.grid holds `{setting}`, which counts in the pretraining, once for all points; expected "
            f"other settings of section {stage}: run the sweep once with each {stage}.pretrain and {stage}.{setting}"
        )
    for value in values:
        section = overlay(study[stage], {key: value}, stage)
        error = best_match(Draft202012Validator(schema()).iter_errors(study | {stage: section}))
        if error is not None:
            raise ConfigError(f"config: {name}.grid.{key}: {_describe(error)}")


def expand(path: str, setting: str) -> str:
    """Expand ~ and $VARIABLES in a path.

    Raises
    ------
    ConfigError
        A variable isn't set; the message names it and `setting`.
    """
    expanded = os.path.expandvars(os.path.expanduser(path))
    missing = re.search(r"\$\{?(\w+)", expanded)
    if missing:
        raise ConfigError(
            f"config: {setting} is `{path}`, but the environment variable {missing[1]} isn't set; "
            f"set it (export {missing[1]}=DIRECTORY) or give the directory with --config 'roots={{NAME: DIRECTORY}}'"
        )
    return expanded


def _check_dataset(dataset: dict[str, Any], where: str, folds: int) -> None:
    _check_window(dataset["window"], f"{where}.window")
    if dataset["role"] == "internal" and dataset["shards"]["annotated"] < 1:
        raise ConfigError(f"config: {where}.shards.annotated is 0; an internal data set needs at least 1")
    if dataset["source"] == "phantom":
        _check_phantom(dataset, where, folds)
    else:
        _check_directories(dataset, where)


def _check_phantom(dataset: dict[str, Any], where: str, folds: int) -> None:
    phantom = dataset.get("phantom")
    if not phantom:
        raise ConfigError(
            f"config: {where}: source phantom needs a `phantom` section (patients, malignant, benign, machines)"
        )
    if dataset["root"] != f"results/phantom/{dataset['name']}":
        raise ConfigError(
            f"config: {where}: the root of a phantom is results/phantom/{dataset['name']}, not {dataset['root']}; "
            "leave it so, or set source: dicom for files of your own"
        )
    if phantom["malignant"] + phantom["benign"] > phantom["patients"]:
        raise ConfigError(
            f"config: {where}.phantom: malignant {phantom['malignant']} + benign {phantom['benign']} are more than "
            f"patients {phantom['patients']}; raise patients or lower one of them"
        )
    if dataset["role"] == "internal" and phantom["malignant"] < folds:
        raise ConfigError(
            f"config: {where}.phantom.malignant is {phantom['malignant']}, fewer patients than labels.folds {folds}; "
            "raise it or lower the folds"
        )


def _check_directories(dataset: dict[str, Any], where: str) -> None:
    if dataset.get("phantom"):
        raise ConfigError(f"config: {where}: a `phantom` section fits source phantom only, not {dataset['source']}")
    root = Path(dataset["root"])
    if not root.is_dir():
        raise ConfigError(
            f"config: root of data set `{dataset['name']}` is {dataset['root']}, which is no directory; "
            f"mend `root`, or give it with --config 'roots={{{dataset['name']}: DIRECTORY}}'"
        )
    expected = [*dataset["directories"].items(), *(("annotations", entry["path"]) for entry in dataset["annotations"])]
    if "truth" in dataset:
        expected.append(("truth", dataset["truth"]["path"]))
    if "masks" in dataset:
        expected.append(("masks", dataset["masks"]))
    for key, path in expected:
        if not (root / path).exists():
            raise ConfigError(f"config: {where}: {key} `{path}` doesn't exist below its root; mend the path")


def _check_window(window: dict[str, Any], where: str) -> None:
    needs = {"percentile": {"low", "high"}, "dicom": set(), "none": set(), "fixed": set()}[window["mode"]]
    if window["mode"] == "fixed" and "presets" not in window:
        needs = {"center", "width"}
    allowed = {
        "dicom": {"index", "lut"},
        "fixed": {"center", "width", "function", "presets"},
        "none": set(),
        "percentile": {"low", "high"},
    }[window["mode"]]
    given = set(window) - {"mode"}
    if needs - given:
        raise ConfigError(f"config: {where}: mode {window['mode']} needs {', '.join(sorted(needs - given))}")
    if given - allowed:
        raise ConfigError(f"config: {where}: mode {window['mode']} doesn't take {', '.join(sorted(given - allowed))}")
    if window["mode"] == "percentile" and window["low"] >= window["high"]:
        raise ConfigError(f"config: {where}: low {window['low']} must be below high {window['high']}")


def _check_models(study: dict[str, Any]) -> None:
    detector, architectures = study["crops"]["detector"], study["detect"]["architectures"]
    if detector not in architectures:
        raise ConfigError(
            f"config: crops.detector is `{detector}`, which is not among detect.architectures "
            f"({', '.join(architectures)}); add it there or choose one of them"
        )
    crops, folds = study["crops"], study["labels"]["folds"]
    needed = "out_of_fold" in crops["protocols"] or study["mining"]["rounds"] > 1
    if crops["nested"] and needed and folds < NESTED_FOLDS:
        raise ConfigError(
            f"config: labels.folds is {folds}, but crops.nested leaves out two folds at a time and needs at least "
            f"{NESTED_FOLDS}; raise it or set crops.nested: false, and classifiers may look worse than they are"
        )
    transformers = [name for name in architectures if "rtdetr" in name]
    if transformers and study["detect"]["image_size"] < RTDETR_SIZE:
        raise ConfigError(
            f"config: detect.image_size is {study['detect']['image_size']}, but {transformers[0]} chooses 300 of the "
            f"picture's cells and needs at least {RTDETR_SIZE} pixels; raise it or take a YOLO"
        )
    if study["detect"]["patience"] and not study["detect"]["validation_share"]:
        raise ConfigError(
            f"config: detect.patience is {study['detect']['patience']}, but detect.validation_share is 0: nothing says "
            "whether an epoch was better; put patients apart (0.2) or set patience: 0"
        )
    if study["detect"]["rivals"] and not study["images"]["same_side"]:
        raise ConfigError(
            "config: detect.rivals is true, but images.same_side is false, by which the breasts of a patient are told "
            "apart; set images.same_side: true or detect.rivals: false"
        )
    if study["classify"]["weights"] and "path" not in study["classify"]["weights"]:
        raise ConfigError("config: classify.weights has no path; give a file's: only detect.weights may be a url")
    for stage in ("detect", "classify"):
        weights = study[stage]["weights"]
        swept = study["sweep"]["detector"] if stage == "detect" else study["sweep_classifiers"]["classifier"]
        known = {*study[stage]["architectures"], swept}
        if weights and (strangers := sorted(set(weights.get("architectures", [])) - known)):
            raise ConfigError(
                f"config: {stage}.weights.architectures names {strangers[0]}, which is not trained; "
                f"known: {', '.join(sorted(known))}"
            )
        if weights and "path" in weights and not Path(weights["path"]).is_file():
            raise ConfigError(
                f"config: {stage}.weights.path {weights['path']} is no file; mend the path or set weights: null"
            )


def documentation() -> str:
    """Return docs/configuration.md: every key of the schema with its type, range and description, as a table."""
    lines = [
        "# Configuration",
        "",
        "Every key of `config.yaml`, from `workflow/schemas/config.schema.yaml` "
        "(`uv run envs/locked.py python -m mammoflow.config > docs/configuration.md`).",
        "",
        "| key | allowed | meaning |",
        "|---|---|---|",
    ]
    rows = (f"| `{key}` | {allowed} | {meaning} |" for key, allowed, meaning in _keys(schema(), ""))
    return "\n".join([*lines, *rows]) + "\n"


def _keys(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield (key, allowed values, description) of a schema node and of all below it."""
    if "$ref" in node:
        node = schema()["$defs"][node["$ref"].rsplit("/", 1)[1]] | {k: v for k, v in node.items() if k != "$ref"}
    if prefix:
        yield prefix.removeprefix("."), _allowed(node), node.get("description", "")
    for choice in node.get("oneOf", []):
        yield from ((key, a, m) for key, a, m in _keys(choice, prefix) if key != prefix.removeprefix("."))
    for name, child in node.get("properties", {}).items():
        yield from _keys(child, f"{prefix}.{name}")
    if isinstance(node.get("items"), dict):
        yield from _keys(node["items"], f"{prefix}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _keys(node["additionalProperties"], f"{prefix}.<name>")


def _allowed(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "oneOf" in node:
        return " or ".join(_allowed(choice) for choice in node["oneOf"])
    limits = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "multipleOf": "multiple of"}
    ranges = [f"{word} {node[key]}" for key, word in limits.items() if key in node]
    return " ".join([str(node.get("type", "")), *ranges])


if __name__ == "__main__":
    import sys

    sys.stdout.write(documentation())
