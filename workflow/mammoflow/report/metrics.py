"""Everything the report says in figures: one JSON document, checked against its schema, and the same as tables."""

import json
import logging
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd

from mammoflow.files import write_text
from mammoflow.jobs import progress
from mammoflow.provenance import code_digest, settings_digest
from mammoflow.report import (
    audit,
    classification,
    counts,
    detection,
    faithfulness,
    mining,
    position,
    relevance,
    two_stage,
    wording,
)
from mammoflow.report.study import Cohort, Study, public_settings

log = logging.getLogger("mammoflow")

CHANCE = 0.5  # AUC of a guess
_PACKAGES = ["numpy", "pandas", "scikit-learn", "scipy", "torch", "torchvision", "ultralytics", "timm", "pydicom"]


def write(study: Study, schema_path: str | Path, metrics_path: str | Path, tables_path: str | Path) -> None:
    """Compute the study's metrics; write them as JSON and, one file a topic, as tab-separated tables.

    Parameters
    ----------
    schema_path : JSON schema the document must fit (workflow/schemas/metrics.schema.json).
    metrics_path : JSON file to write.
    tables_path : directory to make; replaced when it exists.
    """
    metrics = measure(study)
    jsonschema.validate(metrics, json.loads(Path(schema_path).read_text("utf-8")))
    write_document(metrics, metrics_path, tables_path)


def write_document(metrics: dict[str, Any], metrics_path: str | Path, tables_path: str | Path) -> None:
    """Write what `measure` gave, as JSON and as tables."""
    shutil.rmtree(tables_path, ignore_errors=True)
    for name, table in flat_tables(metrics).items():
        write_text(Path(tables_path) / f"{name}.tsv", table.to_csv(sep="\t", index=False, lineterminator="\n"))
    write_text(metrics_path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    log.info("%s", metrics["verdict"]["text"])


def measure(study: Study, cohorts: list[Cohort] | None = None) -> dict[str, Any]:
    """Return the whole document on `cohorts`, all of the study's when not given.

    The same tables and settings give the same document, bit for bit.
    """
    settings, role = study.settings, "internal" if cohorts is None else cohorts[0].role
    cohorts = study.cohorts if cohorts is None else cohorts
    shown = {name for cohort in cohorts for name in cohort.datasets}
    protocols = settings["crops"]["protocols"]
    pairs = [(detector, cohort) for detector in settings["detect"]["architectures"] for cohort in cohorts]
    judged = _classification(study, cohorts)
    return {
        "title": settings["title"],
        "verdict": verdict(judged, role),
        "rules": wording.rules(study),
        "counts": [
            counts.measure(study, dataset["name"], dataset["role"])
            for dataset in settings["datasets"]
            if dataset["name"] in shown
        ],
        "detection": [detection.measure(study, *pair) for pair in progress(pairs, len(pairs), "detectors x data sets")],
        "mining": [mining.measure(study, protocol, cohort) for protocol in protocols for cohort in cohorts],
        "classification": judged,
        "comparison": [
            entry for name in protocols for cohort in cohorts for entry in classification.compare(study, name, cohort)
        ],
        "two_stage": [
            two_stage.measure(study, name, classifier, cohort)
            for name in protocols
            for classifier in settings["classify"]["architectures"]
            for cohort in cohorts
        ],
        "anatomy": [position.measure(study, cohort) for cohort in cohorts],
        "relevance": [entry for cohort in cohorts for entry in relevance.measure(study, cohort)],
        "faithfulness": faithfulness.measure(study),
        "shared_contents": len(study.duplicates),
        "provenance": provenance(study),
    }


def _classification(study: Study, cohorts: list[Cohort]) -> list[dict[str, Any]]:
    names, entries = study.settings["classify"]["architectures"], []
    for protocol in study.settings["crops"]["protocols"]:
        crops = audit.described(study, protocol)
        pairs = [(classifier, cohort) for classifier in names for cohort in cohorts]
        for classifier, cohort in progress(pairs, len(pairs), f"classifiers x data sets, {protocol}"):
            entries.append(classification.measure(study, protocol, classifier, cohort, crops))
    return entries


def verdict(entries: list[dict[str, Any]], role: str = "internal") -> dict[str, Any]:
    """Return the report's first line: the first classifier on crops of a role against the shortcut baseline."""
    first = next((entry for entry in entries if entry["role"] == role), None)
    if first is None:
        return {
            "protocol": "",
            "classifier": "",
            "clearly_better": None,
            "text": "No internal data set: nothing was judged out of fold.",
        }
    audit = first["shortcut"]
    return {
        "protocol": first["protocol"],
        "classifier": first["classifier"],
        "clearly_better": audit["clearly_better"],
        "text": _verdict_text(first, audit),
    }


def _verdict_text(first: dict[str, Any], audit: dict[str, Any]) -> str:
    name, lead = first["classifier"], audit["difference"]
    untrained = (
        f" It stayed untrained in {len(first['untrained_folds'])} folds: no crop of one class was found to learn from."
        if first["untrained_folds"]
        else ""
    )
    if lead["value"] is None:
        return (
            f"Whether the crop classifier {name} is better than the shortcut baseline can't be said: it {lead['note']}."
            + untrained
        )
    says = {True: "is clearly better", False: "is not clearly better", None: "can't be shown to be better"}[
        audit["clearly_better"]
    ]
    return (
        f"The crop classifier {name} {says} than a shortcut baseline that never sees the tissue: "
        f"AUC {wording.rate_text(first['roc_auc'])} against {wording.rate_text(audit['roc_auc'])}, "
        f"difference {wording.rate_text(lead, sign=True)}.{_chance_text(first['roc_auc'])}"
        f"{_masked_text(first['masked'])}{untrained}"
    )


def _chance_text(auc: dict[str, Any]) -> str:
    """Say so when the AUC isn't shown to be above chance."""
    if auc["low"] is None or auc["low"] > CHANCE:
        return ""
    if auc["high"] >= CHANCE:
        return " It isn't shown to tell the crops apart at all."
    return (
        " That is clearly below chance: what taught the classifier is contradicted here. Few crops can do that, and so "
        "can out-of-fold crops without crops.nested (docs/design.md, What crops carry from fold to fold). Look at the "
        "figures by fold, and at the labels."
    )


def _masked_text(masked: dict[str, Any]) -> str:
    """Say so when the lesion itself isn't shown to matter."""
    if masked["clearly_better"] is not False:
        return ""
    return (
        f" With the centre of the crops hidden its AUC is {wording.rate_text(masked['roc_auc'])}, not clearly lower: "
        "it may go by the surroundings."
    )


def provenance(study: Study) -> dict[str, Any]:
    """Digests of settings, code and models, and versions of packages."""
    return {
        "config_digest": settings_digest(public_settings(study.settings)),
        "code_digest": code_digest("report"),
        "models": [
            *_models("detector", study.detections, "detector"),
            *_models("classifier", study.predictions, "classifier"),
        ],
        "packages": [{"package": name, "version": _version(name)} for name in _PACKAGES],
    }


def _models(kind: str, table: pd.DataFrame, column: str) -> list[dict[str, Any]]:
    seen = table.loc[table["model_fold"] >= 0, [column, "model_fold", "model_digest"]].drop_duplicates()
    seen = seen.sort_values([column, "model_fold", "model_digest"])
    return [
        {"kind": kind, "architecture": name, "fold": int(fold), "digest": digest}
        for name, fold, digest in seen.itertuples(index=False)
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def flat_tables(metrics: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the document as tables; a list inside an entry becomes a table with the entry's names in front."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for topic in _TOPICS:
        for entry in metrics[topic]:
            for name, row in _flat(topic, entry, {}):
                tables.setdefault(name, []).append(row)
    tables["models"] = metrics["provenance"]["models"]
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


_TOPICS = (
    "counts",
    "detection",
    "mining",
    "classification",
    "comparison",
    "two_stage",
    "anatomy",
    "relevance",
    "faithfulness",
)
_NAMES = [
    "dataset",
    "protocol",
    "detector",
    "classifier",
    "cohort",
    "role",
    "kind",
    "model",
    "truth",
    "hit_rule",
    "level",
]


def _flat(name: str, entry: dict[str, Any], outer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    row = dict(outer)
    own = {**outer, **{key: entry[key] for key in _NAMES if isinstance(entry.get(key), str)}}
    for key, value in entry.items():
        if isinstance(value, list):
            for item in value:
                yield from _flat(f"{name}_{key}", item, own)
        elif isinstance(value, dict) and _is_curve(value):
            for point in zip(*value.values(), strict=True):
                yield f"{name}_{key}", {**own, **dict(zip(value, point, strict=True))}
        elif isinstance(value, dict):
            row |= _flat_cells(key, value)
            for inner, items in value.items():
                if isinstance(items, list) and (not items or isinstance(items[0], dict)):
                    for item in items:
                        yield from _flat(f"{name}_{key}_{inner}", item, own)
        else:
            row[key] = value
    yield name, row


def _is_curve(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(items, list) for items in value.values())


def _flat_cells(key: str, value: dict[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for inner, item in value.items():
        name = key if inner == "value" else f"{key}_{inner}"
        if isinstance(item, dict):
            cells |= _flat_cells(name, item)
        elif not isinstance(item, list):
            cells[name] = item
    return cells
