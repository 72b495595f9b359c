"""The shard plan: one digest a shard of what its jobs depend on, so that a new patient re-runs one shard only.

Imported while the workflow is parsed: nothing heavy here.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammoflow.errors import DataError
from mammoflow.files import write_text
from mammoflow.provenance import text_digest

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["dataset", "patient_key"]
KEYS_OF_SHARD = ["dataset", "shard"]


def planned_digest(plan_path: str | Path, kind: str, dataset: str, shard: str) -> str:
    """Digest that the plan gives a shard.

    Parameters
    ----------
    plan_path : what `make_plan` wrote.
    kind : `images` (files to convert) or `labels` (frames, folds and roles).
    dataset, shard : names, for example ``hospital`` and ``other-002``.

    Raises
    ------
    DataError
        The plan is missing, unreadable or doesn't know the shard.
    """
    path = Path(plan_path)
    try:
        return _read(str(path), path.stat().st_mtime_ns)[kind][dataset][shard]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: has no digest `{kind}` of shard {dataset} {shard} ({error}); remove it to have it made again"
        ) from None


@lru_cache(maxsize=4)
def _read(path: str, _mtime_ns: int) -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(Path(path).read_text("utf-8"))


def shard_names(counts: dict[str, int]) -> list[str]:
    """Names of a data set's shards, from its `shards` in the config."""
    return [f"{group}-{number:03d}" for group in ("annotated", "other") for number in range(counts[group])]


def shard_blocks(counts: dict[str, int], size: int) -> dict[str, list[str]]:
    """Up to `size` neighbouring shards of one group together, which one detection job takes.

    A block is named by its first and last shard (``other-000-003``), one of a single shard as that shard is.
    """
    blocks = {}
    for group in ("annotated", "other"):
        names = [name for name in shard_names(counts) if name.startswith(group)]
        for first in range(0, len(names), size):
            inside = names[first : first + size]
            last = inside[-1].removeprefix(group)
            blocks[inside[0] + last if len(inside) > 1 else inside[0]] = inside
    return blocks


def make_plan(
    datasets: list[dict[str, Any]],
    index: pd.DataFrame,
    lesions: pd.DataFrame,
    patients: pd.DataFrame,
    path: str | Path,
) -> None:
    """Write the plan of all data sets' shards, also of empty ones, as JSON.

    Parameters
    ----------
    datasets : entries with `name` and `shards`.
    index, lesions, patients : INDEX, LESIONS and PATIENTS rows of all data sets.
    path : file to write: ``{"images": {data set: {shard: digest}}, "labels": ...}``. The digest `images` is of the
        index rows of the shard's usable images; `labels` of its frames and of its patients' folds, roles and labels.
    """
    usable = index[index["status"] == "ok"]
    located = usable.merge(patients[[*KEYS, "shard"]], on=KEYS)
    framed = lesions.merge(located[["dataset", "image_id", "shard"]], on=["dataset", "image_id"])
    images, frames, people = (_by_shard(table) for table in (located, framed, patients))
    plan: dict[str, dict[str, dict[str, str]]] = {"images": {}, "labels": {}}
    for dataset in datasets:
        shards = {shard: (dataset["name"], shard) for shard in shard_names(dataset["shards"])}
        plan["images"][dataset["name"]] = {shard: text_digest(images.get(key, "")) for shard, key in shards.items()}
        plan["labels"][dataset["name"]] = {
            shard: text_digest(frames.get(key, ""), people.get(key, "")) for shard, key in shards.items()
        }
    write_text(path, json.dumps(plan, indent=1) + "\n")


def _by_shard(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Text of each shard's rows, whatever order they came in."""
    ordered = table.sort_values([name for name in ("image_id", "lesion_id", "patient_key") if name in table])
    return {(str(name), str(shard)): rows.to_csv(index=False) for (name, shard), rows in ordered.groupby(KEYS_OF_SHARD)}
