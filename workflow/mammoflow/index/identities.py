"""The private map from keys to original ids: written only when asked, outside results/, for its owner alone."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.errors import ConfigError, DataError
from mammoflow.files import whole_file
from mammoflow.index.keys import outside_results

SETTING = "deidentify.map"


def read_identities(directory: str, dataset: str) -> dict[str, dict[str, Any]]:
    """Read the map that an earlier scan wrote.

    Parameters
    ----------
    directory : of the maps; $VARIABLES and ~ are expanded.
    dataset : its name.

    Returns
    -------
    Rows of `mammoflow.tables.IDENTITIES` without `image_id`, by path below the data set's root; none when there is no
    map yet or it can't be read, so that it is made anew.

    Raises
    ------
    ConfigError
        The directory lies inside results/.
    """
    path = _path(directory, dataset)
    try:
        rows = tables.read(tables.IDENTITIES, path).drop(columns="image_id").to_dict("records")
    except DataError:
        return {}
    return {row["path"]: {str(name): value for name, value in row.items() if name != "path"} for row in rows}


def write_identities(directory: str, dataset: str, rows: list[dict[str, Any]]) -> None:
    """Write a data set's map, ``<dataset>.tsv`` in `directory`, readable by its owner alone (mode 0600).

    Raises
    ------
    ConfigError
        The directory lies inside results/ or can't be written.
    """
    path = _path(directory, dataset)
    named = [{column: _one_line(row[column]) for column in tables.IDENTITIES.columns} for row in rows]
    table: pd.DataFrame = tables.from_rows(tables.IDENTITIES, named)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.unlink(missing_ok=True)
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            table.to_csv(partial, sep="\t", index=False, lineterminator="\n")
    except OSError as error:
        raise ConfigError(
            f"{SETTING} '{directory}': {error.strerror}: name a directory that you can write, or null for no map"
        ) from error


def _path(directory: str, dataset: str) -> Path:
    return outside_results(SETTING, directory, "/data/private/keys") / f"{dataset}.tsv"


def _one_line(text: str) -> str:
    """Show what no line of a table can hold as escapes."""
    return text.encode("unicode_escape").decode() if not text.isprintable() else text
