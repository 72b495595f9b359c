"""A directory of images through all frozen models, and the study's figures on it where its truth is known."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd

from mammoflow import tables
from mammoflow.classify import predict_table, score_frames
from mammoflow.crops import cut_shard
from mammoflow.detect.shard import detect_shards
from mammoflow.files import write_text
from mammoflow.labels.density import read_densities
from mammoflow.labels.readers import read_truth
from mammoflow.predict.frozen import convert_images, enrol, index_images
from mammoflow.predict.summary import summarise
from mammoflow.report import metrics
from mammoflow.report.study import SCHEMAS, Cohort, Study, load

log = logging.getLogger("mammoflow")

PRIVATE = ("sources.tsv", ".cache")


@dataclass(frozen=True)
class Frozen:
    """The study's trained models and tables.

    Attributes
    ----------
    protocol : how the crops were gathered that the classifiers learnt from.
    detectors : architecture -> one model a fold, in the order of folds.
    thresholds : architecture -> table of `mammoflow.tables.THRESHOLDS`.
    classifiers : architecture -> one model a fold.
    study : the internal data sets' tables by name, as `mammoflow.report.study.load` takes them: the shortcut baseline
        and the operating points are chosen on them. A table of which a file is missing is done without.
    """

    protocol: str
    detectors: dict[str, list[str]]
    thresholds: dict[str, str]
    classifiers: dict[str, list[str]]
    study: dict[str, list[str]]


def predict(
    dataset: dict[str, Any],
    frozen: Frozen,
    settings: dict[str, Any],
    threads: int,
    schema_path: str | Path,
    results: str | Path,
) -> None:
    """Detect, cut and judge; write tables, pictures and, where there is truth, figures.

    Every image goes through the models of all folds: frames are merged, probabilities averaged, and the thresholds are
    those that the study chose for external images.

    Parameters
    ----------
    dataset : what `mammoflow.predict.request.requested` gave.
    frozen : models and tables of the study.
    settings : the whole config.
    threads : CPU threads.
    schema_path : JSON schema of the metrics.
    results : directory to make: ``index.tsv``, ``images.tsv``, ``patients.tsv``, ``lesions.tsv`` (the truth),
        ``detections/<detector>.tsv``, ``frames/<classifier>.tsv`` (every frame's scores), ``screened.tsv`` (dropped
        frames with their reasons), ``crops.tsv`` and
        ``predictions/<classifier>.tsv`` (labelled crops), ``metrics.json``, ``tables/`` and ``summary.md``.

    Raises
    ------
    ConfigError, DataError, ModelError
        As the stages do.
    """
    work = Path(results)
    work.mkdir(parents=True, exist_ok=True)
    try:
        _take_in(dataset, settings, threads, work)
        _judge(frozen, settings, threads, work)
    finally:
        for name in PRIVATE:
            _remove(work / name)
    study = _study(dataset, frozen, settings, work)
    cohort = Cohort(dataset["name"], "external", (dataset["name"],))
    document = metrics.measure(study, [cohort])
    jsonschema.validate(document, json.loads(Path(schema_path).read_text("utf-8")))
    metrics.write_document(document, work / "metrics.json", work / "tables")
    write_text(work / "summary.md", summarise(document, overlap(study, dataset["name"]), "truth" in dataset))


def _remove(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _take_in(dataset: dict[str, Any], settings: dict[str, Any], threads: int, work: Path) -> None:
    index, sources = index_images(dataset, settings, work), tables.read(tables.SOURCES, work / "sources.tsv")
    told = {"name": dataset["name"], "root": dataset["root"], "truth": dataset.get("truth")}
    tables.write(tables.DENSITIES, read_densities(**told, index=index, sources=sources), work / "densities.tsv")
    lesions = read_truth(
        **told,
        index=index,
        sources=sources,
        lesions=tables.empty(tables.LESIONS),
        expert_classes=settings["labels"]["expert_classes"],
        partial=True,
    )
    tables.write(tables.LESIONS, lesions, work / "lesions.tsv")
    if "truth" in dataset:
        index = labelled(index, lesions)
        tables.write(tables.INDEX, index, work / "index.tsv")
    enrol(index, patient_labels(index), work)
    convert_images(dataset, settings, threads, work)


def labelled(index: pd.DataFrame, lesions: pd.DataFrame) -> pd.DataFrame:
    """Label images whose directory says nothing by the truth, which knows every lesion."""
    malignant = set(lesions.loc[lesions["pathology"] == "malignant", "image_id"])
    said = index["image_id"].isin(malignant).map({True: "positive", False: "negative"})
    return index.assign(directory_label=index["directory_label"].where(index["directory_label"] != "unknown", said))


def patient_labels(index: pd.DataFrame) -> dict[str, str]:
    """Label of each patient: positive when an image is, else negative when one is, else unknown."""
    usable = index[index["status"] == "ok"]
    found = usable.groupby("patient_key")["directory_label"].agg(set)
    return {
        str(key): next((label for label in ("positive", "negative") if label in said), "unknown")
        for key, said in found.items()
    }


def _judge(frozen: Frozen, settings: dict[str, Any], threads: int, work: Path) -> None:
    """Detect by every detector; cut and score what the mined one found."""
    for detector, models in frozen.detectors.items():
        log.info("detecting by %s", detector)
        detect_shards(
            models=models,
            images=[work / "images.tsv"],
            patients=work / "patients.tsv",
            settings=settings["detect"],
            device=settings["device"],
            threads=threads,
            detections=work / "detections" / f"{detector}.tsv",
        )
    mined = settings["crops"]["detector"]
    known = {name: work / f"{name}.tsv" for name in ("images", "index", "patients")}
    found = work / "detections" / f"{mined}.tsv"
    cut_shard(
        frozen.protocol,
        detections=found,
        thresholds=frozen.thresholds[mined],
        images=known["images"],
        index=known["index"],
        lesions=work / "lesions.tsv",
        patients=known["patients"],
        settings=settings["crops"],
        table=work / "crops.tsv",
        screened=work / "screened.tsv",
        pictures=work / "crops",
    )
    for classifier, paths in frozen.classifiers.items():
        log.info("judging by %s", classifier)
        predict_table(
            [work / "crops.tsv"], paths, threads, settings["device"], work / "predictions" / f"{classifier}.tsv"
        )
        score_frames(
            frozen.protocol,
            [found],
            frozen.thresholds[mined],
            [known["images"]],
            known["index"],
            known["patients"],
            paths,
            crop_settings=settings["crops"],
            threads=threads,
            device=settings["device"],
            frames_path=work / "frames" / f"{classifier}.tsv",
        )


def _study(dataset: dict[str, Any], frozen: Frozen, settings: dict[str, Any], work: Path) -> Study:
    """Return the study with the images as one more external data set, the other external ones left out."""
    internal = [one for one in settings["datasets"] if one["role"] == "internal"]
    own: dict[str, list[Any]] = {
        "indices": [work / "index.tsv"],
        "patients": [work / "patients.tsv"],
        "lesions": [work / "lesions.tsv"],
        "truths": [work / "lesions.tsv"],
        "densities": [work / "densities.tsv"],
        "images": [work / "images.tsv"],
        "detections": sorted((work / "detections").iterdir()),
        "thresholds": list(frozen.thresholds.values()),
        "crops": [work / "crops.tsv"],
        "screened": [work / "screened.tsv"],
        "predictions": sorted((work / "predictions").iterdir()),
        "judged_frames": sorted((work / "frames").iterdir()),
    }
    known = {name: paths for name, paths in frozen.study.items() if all(Path(path).is_file() for path in paths)}
    merged = {name: [str(path) for path in [*own.get(name, []), *known.get(name, [])]] for name in SCHEMAS}
    title = f"{settings['title']}: {dataset['name']}"
    crops = settings["crops"] | {"protocols": [frozen.protocol]}
    return load(settings | {"title": title, "crops": crops, "datasets": [*internal, dataset]}, merged)


def overlap(study: Study, name: str) -> dict[str, int]:
    """Count patients and pictures that the models may have learnt from: there should be none."""
    inside = study.images["dataset"] != name
    own = study.images[~inside]
    return {
        "patients": int(
            own.loc[own["patient_key"].isin(study.images.loc[inside, "patient_key"]), "patient_key"].nunique()
        ),
        "pictures": int(own["pixel_digest"].isin(study.images.loc[inside, "pixel_digest"]).sum()),
    }
