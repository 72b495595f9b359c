"""The finished 12-patient study: complete, without leakage, the same for the same seed, silent about patients."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
import zlib

import pandas as pd
import pydicom
import pytest
from small_study import HOSTILE, PLANTED, PLANTED_BIRTH_DATE, without_network

from mammoflow import tables
from mammoflow.detect.model import load_detector

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
    learning = tables.read(tables.LEARNING, results / "report/learning.tsv")
    assert (learning.more_taught > learning.fewer_taught).all()
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
    # the tables of frames, <dataset>.frames.tsv, are no predictions on crops
    predictions = read_all(finished_study, tables.PREDICTIONS, "classify/out_of_fold/resnet50/*[!s].tsv")
    assert set(predictions.crop_id) == set(crops.crop_id)
    assert (predictions.model_fold == predictions.patient_key.map(folds)).all()


def test_crops_teach_by_models_that_saw_neither_their_fold_nor_the_classifiers(finished_study, folds):
    detectors = finished_study.directory / "results/nested/detect/yolov6n"
    judges = {}
    for path in detectors.glob("without*/fold*/model.safetensors"):
        pair = frozenset(int(part[-1]) for part in path.parts[-3:-1])
        assert load_detector(path).left_out == pair
        judges[pair] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert len(judges) == 3
    taught = set()
    for fold in range(3):
        crops = read_all(finished_study, tables.CROPS, f"nested/crops/without{fold}/*/*.tsv")
        assert {"malignant", "benign"} == set(crops.label)
        assert (crops.fold == crops.patient_key.map(folds)).all()
        assert fold not in set(crops.fold)
        taught |= set(crops.fold)
        assert (crops.model_digest == [judges[frozenset({fold, other})] for other in crops.fold]).all()
    assert taught == {0, 1, 2}


PRIVATE = ("phantom/", ".sources.tsv", "index/.cache/")  # raw files, and where the index keeps their paths


def identities(study):
    """What was planted into the raw files, and what tells them apart: ids, UIDs, names of files and directories."""
    values = {PLANTED, PLANTED_BIRTH_DATE, "pwned"}
    for path in (study.raw / "raw").rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        values |= {header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID}
        values |= {path.stem, path.parent.name}
    return {value.encode() for value in values}


def readable(path):
    """A file's bytes, what its PDF streams and container members hold, and its name as Snakemake's metadata has it."""
    content = path.read_bytes()
    yield content
    yield path.name.encode()
    if path.suffix == ".pdf":
        yield from (zlib.decompressobj().decompress(stream) for stream in DEFLATED.findall(content))
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as container:
            yield " ".join(container.namelist()).encode()
    if "metadata" in path.parts:
        yield base64.urlsafe_b64decode(path.name.lstrip("@"))


DEFLATED = re.compile(rb"stream\r?\n(\x78.*?)endstream", re.DOTALL)


def test_no_identifying_value_anywhere(finished_study):
    """In no result, log, report, figure, model or file of Snakemake's, but in the index's private table."""
    planted = identities(finished_study)
    assert len(planted) > 100
    pattern = re.compile(b"|".join(map(re.escape, sorted(planted))))
    checked = 0
    for directory in ("results", ".snakemake"):
        base = finished_study.directory / directory
        for path in base.rglob("*"):
            if path.is_file() and not any(word in str(path.relative_to(base)) for word in PRIVATE):
                checked += 1
                for content in readable(path):
                    assert not (found := pattern.search(content)), (path, found)
    assert checked > 500


def test_the_private_table_alone_knows_the_planted_names(finished_study):
    """The search above would find them: they are in the table of sources, and in the raw files."""
    sources = (finished_study.directory / "results/index/hospital.sources.tsv").read_bytes()
    assert re.search(re.escape(PLANTED.encode()), sources)
    assert PLANTED.encode() in min((finished_study.raw / "raw").rglob("*.dcm")).read_bytes()


def test_a_hostile_file_name_is_an_image_like_another(finished_study):
    sources = tables.read(tables.SOURCES, finished_study.directory / "results/index/hospital.sources.tsv")
    index = tables.read(tables.INDEX, finished_study.directory / "results/index/hospital.tsv")
    hostile = sources.image_id[sources.path.str.endswith(HOSTILE)].item()
    assert index.status[index.image_id == hostile].item() == "ok"
    assert (read_all(finished_study, tables.IMAGES, "images/hospital/*.tsv").image_id == hostile).sum() == 1
    assert not list(finished_study.directory.rglob("pwned"))


def test_the_study_ran_without_a_network(finished_study):
    if not without_network():
        pytest.skip("this system lets no user make a network namespace (unshare --net)")
    attempt = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=5)"
    done = subprocess.run([*without_network(), sys.executable, "-c", attempt], capture_output=True, text=True)
    assert "Network is unreachable" in done.stderr


def test_pictures_do_not_depend_on_the_number_of_workers(finished_study, study):
    for kept in (study.directory / "results/images").glob("*/.kept"):  # nothing is to be taken over
        shutil.rmtree(kept)
    jobs = study.jobs("images", "--forcerun", "images_convert", "--set-threads", "images_convert=2")
    assert {job.split()[0] for job in jobs} >= {"images_convert"}

    def images_of(study, names):
        paths = (study.directory / "results/images").rglob(names)
        return [path for path in paths if path.is_file() and ".kept" not in path.parts]

    def content(study):
        return {str(path.relative_to(study.directory)): path.read_bytes() for path in images_of(study, "*")}

    first = content(finished_study)
    assert len(first) > 80  # tables, and each picture in two sizes
    assert content(study) == first
    for path in images_of(study, "*.png"):  # made now, not copied
        assert (
            path.stat().st_mtime_ns > (finished_study.directory / path.relative_to(study.directory)).stat().st_mtime_ns
        )


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
