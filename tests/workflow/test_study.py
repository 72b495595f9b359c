"""The finished 12-patient study: complete, without leakage, the same for the same seed, silent about patients."""

import hashlib
import json

import pandas as pd
import pytest

from mammoflow import tables

pytestmark = pytest.mark.slow


def read_all(study, schema, pattern):
    paths = [
        path for path in sorted((study.directory / "results").glob(pattern)) if not path.name.endswith("sources.tsv")
    ]
    assert paths, pattern
    return tables.read_all(schema, paths)


@pytest.fixture(scope="module")
def folds(finished_study):
    patients = tables.read(tables.PATIENTS, finished_study.directory / "results/labels/patients.tsv")
    assert patients.patient_key.is_unique
    return patients.set_index("patient_key").fold


def test_everything_is_there(finished_study):
    results = finished_study.directory / "results"
    assert (results / "report/index.html").stat().st_size > 10_000
    json.loads((results / "report/metrics.json").read_text())
    assert {path.name for path in (results / "figures").iterdir()} == {
        f"fig{number:02d}.{kind}" for number in range(1, 13) for kind in ("png", "pdf")
    }


def test_every_raw_file_is_a_row(finished_study):
    index = tables.read(tables.INDEX, finished_study.directory / "results/index/hospital.tsv")
    assert len(index) == len(list((finished_study.raw / "raw").rglob("*.dcm"))) == 40
    images = read_all(finished_study, tables.IMAGES, "images/hospital/*.tsv")
    assert set(images.image_id) == set(index.image_id[index.status == "ok"])


def test_detections_come_from_models_that_never_saw_the_patient(finished_study, folds):
    for detector in ("yolov5n", "yolov6n"):
        detections = read_all(finished_study, tables.DETECTIONS, f"detect/{detector}/[ho]*/*.tsv")
        assert len(detections)
        assert detections.held_out.all()
        assert (detections.model_fold == detections.patient_key.map(folds)).all()


def test_training_tables_keep_patients_and_pixels_apart(finished_study, folds):
    training = read_all(finished_study, tables.TRAINING, "labels/hospital/annotated-*.tsv")
    assert (training.fold == training.patient_key.map(folds)).all()
    assert (training.groupby("pixel_digest").fold.nunique() == 1).all()


def test_crops_and_their_judgements_stay_in_their_fold(finished_study, folds):
    crops = read_all(finished_study, tables.CROPS, "crops/out_of_fold/*/*.tsv")
    assert {"malignant", "benign"} == set(crops.label)
    assert (crops.fold == crops.patient_key.map(folds)).all()
    content = [hashlib.sha256((finished_study.directory / png).read_bytes()).hexdigest() for png in crops.png]
    assert (pd.Series(list(crops.fold)).groupby(content).nunique() == 1).all()
    predictions = read_all(finished_study, tables.PREDICTIONS, "classify/out_of_fold/resnet50/*.tsv")
    assert set(predictions.crop_id) == set(crops.crop_id)
    assert (predictions.model_fold == predictions.patient_key.map(folds)).all()


def test_no_identifying_value_anywhere(finished_study):
    """The phantoms' names and ids and the raw files' names must be in no result but the private sources table."""
    index_root = finished_study.raw / "raw"
    planted = {b"PHANTOM"} | {path.stem.encode() for path in index_root.rglob("*.dcm")}
    checked = 0
    for path in (finished_study.directory / "results").rglob("*"):
        private = "phantom" in path.parts or path.name.endswith("sources.tsv") or ".cache" in path.parts
        if path.is_file() and not private:
            content = path.read_bytes()
            checked += 1
            assert not [name for name in planted if name in content], path
    assert checked > 100


def test_the_same_seed_gives_the_same_tables_and_weights(finished_study, study):
    again = study.jobs("results/classify/out_of_fold/resnet50/hospital.tsv", "--forcerun", "images_convert")
    assert {"images_convert", "detect_train", "crops_cut", "classify_train"} <= {job.split()[0] for job in again}

    def content(directory):
        results = directory / "results"
        kinds = ("*.tsv", "*.safetensors", "metrics.json")
        paths = [path for kind in kinds for path in results.rglob(kind)]
        skipped = ("benchmarks", "history.tsv", ".work", ".cache")  # seconds an epoch, resumable states
        return {
            str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
            if not any(word in str(path.relative_to(results)) for word in skipped)
        }

    first, second = content(finished_study.directory), content(study.directory)
    assert len(first) > 50
    assert {name for name in first if first[name] != second.get(name)} == set()
