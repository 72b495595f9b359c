"""Which images, and are there models to judge them? Checked before any job starts."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mammoflow.config import expand
from mammoflow.errors import ConfigError, ModelError

HINT = "give the directory of images: export MAMMOFLOW_PREDICT_ROOT=DIR, or predict.root in the config"
LIKE_INTERNAL = ("source", "patient_rule", "patient_from", "window")
LABELS = ("positive", "negative", "unknown")

log = logging.getLogger("mammoflow")


def requested(settings: dict[str, Any]) -> dict[str, Any]:
    """Give the directory of images the shape of a data set.

    What ``predict`` doesn't say is read as in the first internal data set. Its directories and its truth are taken over
    where they exist below the new root; else directories called positive, negative and unknown are looked for there, or
    one level below.

    Parameters
    ----------
    settings : the whole config.

    Returns
    -------
    name, role, source, root, directories, window, and where there are such patient_rule, patient_from and truth.

    Raises
    ------
    ConfigError
        The root isn't given or is no directory with files, the name is that of a data set, or what ``predict`` names
        doesn't exist below the root.
    """
    asked, model = settings["predict"], next(one for one in settings["datasets"] if one["role"] == "internal")
    names = [dataset["name"] for dataset in settings["datasets"]]
    if asked["name"] in names:
        raise ConfigError(f"config: predict.name is '{asked['name']}', the name of a data set; choose another")
    root = _root(asked["root"])
    inherited = {key: model[key] for key in LIKE_INTERNAL if key in model} | {
        key: asked[key] for key in LIKE_INTERNAL if key in asked
    }
    source = "dicom" if inherited["source"] == "phantom" else inherited["source"]
    dataset = {
        **inherited,
        "name": asked["name"],
        "role": "external",
        "source": source,
        "root": str(root),
        "directories": _directories(root, asked, model),
        "shards": {"annotated": 0, "other": 1},
    }
    truth = _truth(root, asked, model)
    return dataset | ({"truth": truth} if truth else {})


def _root(given: str) -> Path:
    root = Path(expand(given, "predict.root")) if given else None
    if root is None or not root.is_dir():
        raise ConfigError(f"config: predict.root is '{given}', which is not a directory; {HINT}")
    if not any(path.is_file() for path in root.rglob("*")):
        raise ConfigError(f"config: predict.root is '{given}', a directory without files; {HINT}")
    return root


def _directories(root: Path, asked: dict[str, Any], model: dict[str, Any]) -> dict[str, str]:
    if "directories" in asked:
        for label, path in asked["directories"].items():
            if not (root / path).is_dir():
                raise ConfigError(f"config: predict.directories.{label}: '{path}' doesn't exist below predict.root")
        return asked["directories"]
    known = {label: path for label, path in model["directories"].items() if (root / path).is_dir()}
    if known:
        return known
    found = {
        label: next(
            (path for pattern in (label, f"*/{label}") for path in sorted(root.glob(pattern)) if path.is_dir()), None
        )
        for label in LABELS
    }
    return {label: path.relative_to(root).as_posix() for label, path in found.items() if path}


def _truth(root: Path, asked: dict[str, Any], model: dict[str, Any]) -> dict[str, Any] | None:
    if "truth" in asked:
        truth = asked["truth"]
        if truth and not (root / truth["path"]).exists():
            raise ConfigError(
                f"config: predict.truth.path: '{truth['path']}' doesn't exist below predict.root; mend it, or set "
                "predict.truth: null for images without truth"
            )
        return truth
    truth = model.get("truth")
    return truth if truth and (root / truth["path"]).exists() else None


def check_frozen(paths: Iterable[str]) -> None:
    """Check that the models are there.

    Raises
    ------
    ModelError
        One is missing.
    """
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} frozen models or thresholds aren't there, first {missing[0]}: `predict` trains nothing; "
            "train them before by `snakemake --cores all predictions` with the same config and --directory"
        )
