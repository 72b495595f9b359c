"""What more lesions bring: detectors that went without one fold against those that went without two.

Nested crops need the latter anyway; held beside each other on the images that neither saw, both are two points of a
learning curve.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mammoflow import tables
from mammoflow.report.bootstrap import Rate, Resamples, rate
from mammoflow.report.detection import hit_rule, judged_on
from mammoflow.report.froc import Judged, sensitivities
from mammoflow.report.study import IMAGE, Cohort, Study, framed

TRUTHS = ("expert", "any_lesion")


def write(study: Study, nested: Mapping[int, str | Iterable[str]], table: str | Path) -> None:
    """Write the table of `mammoflow.tables.LEARNING`.

    Parameters
    ----------
    nested : fold left out -> files of `mammoflow.tables.DETECTIONS` of the other folds' images, by detectors that saw
        neither.
    """
    paths = {fold: [given] if isinstance(given, str) else list(given) for fold, given in nested.items()}
    rows: list[dict[str, Any]] = []
    for cohort in study.cohorts:
        if cohort.role == "internal":
            one_by_one = ((fold, tables.read_all(tables.DETECTIONS, given)) for fold, given in paths.items())
            rows += measure(study, one_by_one, cohort)
    tables.write(tables.LEARNING, tables.from_rows(tables.LEARNING, rows), table)


def measure(study: Study, nested: Iterable[tuple[int, pd.DataFrame]], cohort: Cohort) -> Iterator[dict[str, Any]]:
    """Lesion sensitivities of both kinds of detectors at the report's rates of false positives, and their difference.

    Every image counts once for each detector that went without its fold and another one, so F - 1 times with F folds;
    all of these together have one threshold a rate, as the images judged once have.

    Parameters
    ----------
    nested : fold left out, and rows of `mammoflow.tables.DETECTIONS` on the others' images; read through once. Without
        any there is nothing to compare.
    """
    settings, detector, rule = study.settings["report"], study.settings["crops"]["detector"], hit_rule(study)
    levels = np.asarray(settings["false_positives_per_image"], dtype=float)
    parts: dict[str, list[Judged]] = {truth: [] for truth in TRUTHS}
    for fold, found in nested:
        here = going_without(study, fold, found)
        for truth in TRUTHS:
            parts[truth].append(judged_on(here, detector, cohort, truth, rule))
    lesions, folds = _to_learn_from(study, cohort), len(parts[TRUTHS[0]])
    for truth in TRUTHS if folds else ():
        fewer, more = pooled(parts[truth]), judged_on(study, detector, cohort, truth, rule)
        patients = Resamples.draw(more.image_patient, settings["bootstrap"], study.settings["seed"])
        weights = np.vstack([np.ones(len(patients.patients)), patients.weights])
        found_by = [sensitivities(judged, weights, patients, levels) for judged in (fewer, more)]
        for at, level in enumerate(levels.tolist()):
            yield {
                "cohort": cohort.name,
                "detector": detector,
                "truth": truth,
                "false_positives_per_image": level,
                "lesions": len(more.lesion_score),
                **_cells("fewer", found_by[0][:, at], lesions * (folds - 2) / folds),
                **_cells("more", found_by[1][:, at], lesions * (folds - 1) / folds),
                **_cells("gain", found_by[1][:, at] - found_by[0][:, at], lesions / folds),
            }


def _to_learn_from(study: Study, cohort: Cohort) -> int:
    """Framed lesions of the expert on the cohort's pictures."""
    return len(framed(cohort.of(study.expert_lesions)).merge(study.pictures[IMAGE], on=IMAGE))


def _cells(name: str, values: np.ndarray, taught: float) -> dict[str, Any]:
    """Cells of a figure: its value is the first of `values`, the others are those of the resamples."""
    found: Rate = rate(float(values[0]), values[1:], 0)
    return {
        f"{name}_taught": taught,
        f"{name}_value": found["value"],
        f"{name}_low": found["low"],
        f"{name}_high": found["high"],
    }


def going_without(study: Study, fold: int, detections: pd.DataFrame) -> Study:
    """Return the study as if a fold's patients didn't exist, with these detections."""
    gone = study.patients.loc[study.patients["fold"] == fold, ["dataset", "patient_key"]]
    there = pd.MultiIndex.from_frame(study.images[["dataset", "patient_key"]])
    return replace(study, images=study.images[~there.isin(pd.MultiIndex.from_frame(gone))], detections=detections)


def pooled(parts: list[Judged]) -> Judged:
    """Return several judgements as one, in which an image counts as often as it was judged."""
    joined = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Judged)}
    order = np.argsort(-joined["score"], kind="stable")
    ranked = {name: joined[name][order] for name in ("score", "hit", "matched", "ignored", "patient")}
    return Judged(**(joined | ranked))
