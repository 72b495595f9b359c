"""Rounds of mining compared: the same measures of each round's detectors, on the same images and folds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import tables
from mammoflow.report import mining
from mammoflow.report.bootstrap import Resamples
from mammoflow.report.detection import hit_rule, judged_on
from mammoflow.report.froc import froc
from mammoflow.report.study import Cohort, Study

PROTOCOL = "out_of_fold"
MINED = ("precision", "recall", "mean_iou_of_hits", "crops_per_image")


def write(
    study: Study,
    detections: Mapping[int, str | Iterable[str]],
    frames: Mapping[int, str | Iterable[str]],
    table: str | Path,
) -> None:
    """Write the table of `mammoflow.tables.ROUNDS`.

    Parameters
    ----------
    detections : files of `mammoflow.tables.DETECTIONS` of each round, internal data sets.
    frames : files of `mammoflow.tables.SCREENED` of each round: frames above the threshold, with what was accepted.
    """
    rows = []
    for number in detections:
        found = tables.read_all(tables.DETECTIONS, _list(detections[number]))
        accepted = tables.read_all(tables.SCREENED, _list(frames[number]))
        rows += [{"round": number, **row} for row in measure(study, found, accepted)]
    tables.write(tables.ROUNDS, tables.from_rows(tables.ROUNDS, rows), table)


def measure(study: Study, detections: pd.DataFrame, frames: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Figures of one round on the internal data sets: FROC on both truths, then what its accepted frames show.

    The frames that teach the next round are judged as benign crops are: those kept on images of negative patients.
    """
    kept = frames[frames["kept"]].assign(protocol=PROTOCOL, label="benign", origin="detection")
    here = replace(study, detections=detections, crops=kept)
    detector, settings = study.settings["crops"]["detector"], study.settings["report"]
    for cohort in [one for one in study.cohorts if one.role == "internal"]:
        for truth in ("expert", "any_lesion"):
            judged = judged_on(here, detector, cohort, truth, hit_rule(study))
            levels = settings["false_positives_per_image"]
            for point in froc(judged, levels, settings["bootstrap"], study.settings["seed"])["points"]:
                level = point["false_positives_per_image"]
                yield _row(cohort, f"{truth}: sensitivity at {level:g} false positives per image", point["sensitivity"])
        images = mining.mined_images(here, cohort)
        patients = Resamples.draw(images["patient_key"], settings["bootstrap"], study.settings["seed"])
        quality = mining.quality(*mining.judged(here, PROTOCOL, cohort), images, patients)
        for name in MINED:
            yield _row(cohort, f"accepted frames: {name.replace('crops', 'frames').replace('_', ' ')}", quality[name])


def _row(cohort: Cohort, figure: str, rate: Any) -> dict[str, Any]:
    return {"cohort": cohort.name, "figure": figure, **{key: rate[key] for key in ("value", "low", "high", "count")}}


def _list(paths: str | Iterable[str]) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths)
