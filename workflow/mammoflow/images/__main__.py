"""Explain one picture: ``python -m mammoflow.images FILE --out DIR [--config my-study.yaml --dataset NAME]``."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from mammoflow.errors import ConfigError, MammoflowError
from mammoflow.images.explaining import as_text, explain_image


def main(arguments: list[str] | None = None) -> None:
    """Explain the file that the command line names; exit 1 when it gives no picture."""
    parser = argparse.ArgumentParser(
        prog="python -m mammoflow.images",
        description="Say how a file becomes the picture that the workflow makes of it.",
    )
    parser.add_argument("file", type=Path, help="DICOM, PNG, PGM or TIFF file")
    parser.add_argument("--out", type=Path, required=True, help="directory for explanation.txt, .json and picture.png")
    parser.add_argument("--config", type=Path, help="the study's config, for the window of its data set")
    parser.add_argument("--dataset", help="name of the data set; the config's first when not given")
    asked = parser.parse_args(arguments)
    try:
        told = explain_image(asked.file, window_of(asked.config, asked.dataset), asked.out)
    except MammoflowError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.write(as_text(told))
    sys.exit("refused" in told)


def window_of(config: Path | None, name: str | None) -> dict[str, Any]:
    """Return the window of a data set in a study's config; the file's own first window without config.

    Raises
    ------
    ConfigError
        The config has no such data set.
    """
    if config is None:
        return {"mode": "dicom", "index": 0}
    try:
        datasets = yaml.safe_load(config.read_text("utf-8"))["datasets"]
        windows = {dataset["name"]: dataset["window"] for dataset in datasets}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{config}: no data sets with a window can be read from it: {error}") from error
    chosen = name or next(iter(windows))
    if chosen not in windows:
        raise ConfigError(f"{config}: no data set `{chosen}`; it has {', '.join(windows)}")
    return windows[chosen]


if __name__ == "__main__":
    main()
