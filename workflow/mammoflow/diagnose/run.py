"""One study through the stages, with the final models."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mammoflow import boxes, tables
from mammoflow.anatomy import locate_shard
from mammoflow.classify import load_classifier, mean_scores
from mammoflow.classify.model import read_record
from mammoflow.crops import crop_box, crop_side, cut, pixel_spacings, read_source
from mammoflow.detect.shard import detect_shards
from mammoflow.diagnose.findings import describe, write_findings
from mammoflow.diagnose.overlays import draw_overlays
from mammoflow.diagnose.request import check_request
from mammoflow.errors import DataError
from mammoflow.predict.frozen import convert_images, enrol, index_images
from mammoflow.provenance import DIGEST_LENGTH, file_sha256, settings_digest
from mammoflow.tables import EXTERNAL_FOLD

NAME = "study"
BOX = ["x1", "y1", "x2", "y2"]

log = logging.getLogger("mammoflow")


@dataclass(frozen=True)
class Models:
    """The final models' files: one detector and one classifier a fold, and the detectors' thresholds."""

    detectors: Sequence[str | Path]
    thresholds: str | Path
    classifiers: Sequence[str | Path]


def diagnose(
    study: str, models: Models, settings: dict[str, Any], threads: int, findings_path: str | Path, overlays: str | Path
) -> None:
    """Find, judge and place lesions in one study that no model ever saw.

    Every image goes through all fold models; frames are merged, probabilities averaged. Images are windowed as those of
    the first internal data set. Pictures and tables on the way are deleted at the end.

    Parameters
    ----------
    study : directory with one study's DICOM (or picture) files.
    models : see `Models`.
    settings : the whole config.
    threads : CPU threads.
    findings_path : JSON file to write, see `mammoflow.diagnose.findings.describe`.
    overlays : directory to make, one PNG an image.

    Raises
    ------
    ConfigError
        `study` is no directory with files.
    DataError
        None of its files is a usable mammogram.
    ModelError
        A model can't be used.
    """
    directory = check_request(study)
    Path(findings_path).parent.mkdir(parents=True, exist_ok=True)
    # Beside the result, not in the system's temporary directory, which others may read.
    with tempfile.TemporaryDirectory(prefix=".study-", dir=Path(findings_path).parent) as work:
        dataset = _source(directory, settings)
        index = _index(dataset, settings, Path(work))
        enrol(index, {}, Path(work))
        images = convert_images(dataset, settings, threads, Path(work))
        found = _findings(models, images, settings, threads, Path(work))
        description = describe(index, images, found, _provenance(models, settings))
        draw_overlays(description, images, Path(overlays))
    write_findings(description, findings_path)
    log.info("%d findings in %d images, %d files excluded", len(found), len(images), (index["status"] != "ok").sum())


def _source(directory: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Give the study the shape of a data set: read like the first internal one, but from another root."""
    model = next(dataset for dataset in settings["datasets"] if dataset["role"] == "internal")
    source = "raster" if model["source"] == "raster" else "dicom"
    return {**model, "name": NAME, "source": source, "root": directory, "directories": {}}


def _index(dataset: dict[str, Any], settings: dict[str, Any], work: Path) -> pd.DataFrame:
    try:
        index = index_images(dataset, settings, work)
    except DataError as error:
        raise DataError(f"the study's directory holds no usable mammogram: {error}") from error
    patients = index.loc[index["status"] == "ok", "patient_key"].nunique()
    if patients > 1:
        log.warning("the directory holds images of %d patients; each is judged by itself", patients)
    return index


def _findings(models: Models, images: pd.DataFrame, settings: dict[str, Any], threads: int, work: Path) -> pd.DataFrame:
    """Detect lesions above the threshold of external images, place them and give their probability of malignant."""
    detect_shards(
        models=[str(path) for path in models.detectors],
        images=[work / "images.tsv"],
        patients=work / "patients.tsv",
        settings=settings["detect"],
        device=settings["device"],
        threads=threads,
        detections=work / "detections.tsv",
    )
    locate_shard(
        work / "detections.tsv",
        models.thresholds,
        work / "images.tsv",
        work / "index.tsv",
        settings["anatomy"],
        work / "anatomy.tsv",
    )
    located = tables.read(tables.ANATOMY, work / "anatomy.tsv")
    detections = tables.read(tables.DETECTIONS, work / "detections.tsv")
    found = located.merge(detections[["detection_id", "score", *BOX]], on="detection_id", validate="one_to_one")
    pictures, spacings = images.set_index("image_id"), pixel_spacings(work / "index.tsv")
    crops = []
    for image_id, frame in zip(found["image_id"], boxes.as_boxes(found[BOX]).tolist(), strict=True):
        side = crop_side(tuple(frame), settings["crops"], spacings[image_id])
        crops.append(cut(read_source(pictures.loc[image_id]), crop_box(tuple(frame), side)))
    classifiers = [load_classifier(path, settings["device"]) for path in models.classifiers]
    return found.assign(probability=mean_scores(classifiers, crops).calibrated)


def _provenance(models: Models, settings: dict[str, Any]) -> dict[str, Any]:
    """Say which models and choices made the findings."""
    thresholds = tables.read(tables.THRESHOLDS, models.thresholds).set_index("fold")["threshold"]
    classifiers = [read_record(path) for path in models.classifiers]
    untrained = [record["fold"] for record in classifiers if not record.get("trained", True)]
    if untrained:
        log.warning(
            "the classifiers of folds %s learned nothing, since one class had no crop there: they give every finding "
            "the same probability, which draws the mean towards it", ", ".join(map(str, untrained)),
        )  # fmt: skip
    chosen = {key: value for key, value in settings.items() if key not in ("study", "roots")}
    return {
        "detector": {
            "architecture": settings["crops"]["detector"],
            "digests": [file_sha256(path)[:DIGEST_LENGTH] for path in models.detectors],
            "threshold": float(thresholds[EXTERNAL_FOLD]),
        },
        "classifier": {
            "architecture": classifiers[0]["architecture"],
            "protocol": settings["crops"]["protocols"][0],
            "untrained_folds": untrained,
            "digests": [file_sha256(path)[:DIGEST_LENGTH] for path in models.classifiers],
        },
        "settings_digest": settings_digest(chosen),
    }
