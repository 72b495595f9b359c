import csv
import hashlib
import json
import runpy
import sys
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest

from mammoflow.boxes import from_yolo, iou
from mammoflow.errors import ConfigError, DataError
from mammoflow.phantom import MACHINES, generate
from mammoflow.phantom.lesions import KINDS
from mammoflow.phantom.patients import draw_patient, patients_of
from mammoflow.tables import FINDINGS, LESION_TYPES, PATHOLOGIES

SCALE = 0.3
COUNTS = {"patients": 11, "malignant": 6, "benign": 4}


def make(root, **changes):
    settings = {"name": "test", "machines": list(MACHINES), "seed": 3, "scale": SCALE, **COUNTS, **changes}
    generate(root=root, **settings)
    return root


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return make(tmp_path_factory.mktemp("hospital"))


def rows_of(path):
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def digests(root, pattern="*"):
    files = (path for path in root.rglob(pattern) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def truth_of(root):
    truth = {}
    for row in rows_of(root / "truth.tsv"):
        truth.setdefault(row["path"], []).append({**row, "box": [int(row[edge]) for edge in ("x1", "y1", "x2", "y2")]})
    return truth


def annotated(root):
    """Stem -> list of (class, box), from all three formats."""
    found = {}
    heights = {row["path"].split("/")[-1][:-4]: root / row["path"] for row in rows_of(root / "truth.tsv")}
    for path in root.glob("annotations/*/*.txt"):
        dataset = pydicom.dcmread(heights[path.stem], stop_before_pixels=True)
        values = [line.split() for line in path.read_text().splitlines()]
        boxes = from_yolo([[float(v) for v in row[1:]] for row in values], dataset.Columns, dataset.Rows)
        names = [["malignant", "nipple"][int(row[0])] for row in values]
        found[path.stem] = list(zip(names, boxes, strict=True))
    for path in root.glob("annotations/*/*.xml"):
        objects = ElementTree.parse(path).getroot().findall("object")
        edges = ("xmin", "ymin", "xmax", "ymax")
        found[path.stem] = [(o.findtext("name"), [float(o.findtext(f"bndbox/{e}")) for e in edges]) for o in objects]
    for path in root.glob("annotations/*.json"):
        content = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        stems = {image["id"]: image["file_name"].removesuffix(".dcm") for image in content["images"]}
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            frame = names[annotation["category_id"]], [x, y, x + width, y + height]
            found.setdefault(stems[annotation["image_id"]], []).append(frame)
    return found


@pytest.mark.slow
def test_same_seed_same_bytes_with_two_workers(hospital, tmp_path):
    assert digests(make(tmp_path / "again", workers=2)) == digests(hospital)


def test_another_seed_or_name_is_another_hospital(hospital, tmp_path):
    few = {"patients": 1, "malignant": 1, "benign": 0}
    one = digests(make(tmp_path / "one", **few), "*.dcm")
    for number, change in enumerate(({"seed": 4}, {"name": "other"})):
        other = digests(make(tmp_path / str(number), **few, **change), "*.dcm")
        assert not set(one.values()) & set(other.values())
        assert not set(one) & set(other)


def test_more_patients_change_no_other_file(hospital, tmp_path):
    more = make(tmp_path / "more", patients=12)
    before = {p: d for p, d in digests(hospital).items() if p.startswith(("raw", "annotations"))}
    after = digests(more)
    assert {path: after[path] for path in before} == before
    assert len([path for path in after if path.endswith(".dcm")]) == 12 * 4
    for path in before:
        assert (more / path).stat().st_mtime_ns == (hospital / path).stat().st_mtime_ns


def test_counts_are_as_asked(hospital):
    assert len(list(hospital.glob("raw/positive/*"))) == 6
    assert len(list(hospital.glob("raw/negative/*"))) == 5
    assert {len(list(path.iterdir())) for path in hospital.glob("raw/*/*")} == {4}
    ill = {"positive": set(), "negative": set()}
    for path, rows in truth_of(hospital).items():
        _, label, patient, _ = path.split("/")
        pathologies = {row["pathology"] for row in rows}
        assert label == "positive" or "malignant" not in pathologies
        if pathologies & {"malignant", "benign"}:
            ill[label].add(patient)
    assert {label: len(patients) for label, patients in ill.items()} == {"positive": 6, "negative": 4}


@pytest.mark.parametrize("pathology", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_few_patients_have_the_kinds_of_lesions_about_in_their_shares(pathology, seed):
    kinds = Counter()
    for patient in patients_of("few", seed, {pathology: 24}, ["alpha"]):
        _, lesions = draw_patient(patient)
        kinds.update(lesion.kind for side in lesions.values() for lesion in side if lesion.pathology == pathology)
    for kind, share in KINDS[pathology].items():
        assert kinds[kind] / kinds.total() == pytest.approx(share, abs=0.16)


def test_each_lesion_shows_in_both_views_of_its_breast(hospital):
    shown = {}
    for path, rows in truth_of(hospital).items():
        dataset = pydicom.dcmread(hospital / path, stop_before_pixels=True)
        lesions = Counter((row["pathology"], row["lesion_type"]) for row in rows if row["finding"] == "lesion")
        shown.setdefault((dataset.PatientID, dataset.ImageLaterality), {})[dataset.ViewPosition] = lesions
    assert len(shown) == 2 * 11
    assert all(set(views) == {"CC", "MLO"} and views["CC"] == views["MLO"] for views in shown.values())


def test_truth_fits_its_image_and_the_vocabulary(hospital):
    for path, rows in truth_of(hospital).items():
        dataset = pydicom.dcmread(hospital / path, stop_before_pixels=True)
        assert [row["finding"] for row in rows].count("nipple") == 1
        for row in rows:
            x1, y1, x2, y2 = row["box"]
            assert 0 <= x1 < x2 <= dataset.Columns
            assert 0 <= y1 < y2 <= dataset.Rows
            assert row["finding"] in FINDINGS
            assert row["pathology"] in PATHOLOGIES
            assert row["lesion_type"] in LESION_TYPES
            assert row["density"] in "abcd"


def test_expert_frames_malignant_lesions_and_nipples_of_positive_patients_only(hospital):
    frames = annotated(hospital)
    wanted = {}
    for path, rows in truth_of(hospital).items():
        if "/positive/" in path:
            stem = path.split("/")[-1].removesuffix(".dcm")
            wanted[stem] = [("nipple" if row["finding"] == "nipple" else "malignant", row["box"]) for row in rows]
            wanted[stem] = [w for w, row in zip(wanted[stem], rows, strict=True) if row["pathology"] != "benign"]
    assert frames.keys() == wanted.keys()
    loose = 0
    for stem, truths in wanted.items():
        assert [name for name, _ in frames[stem]] == [name for name, _ in truths]
        overlap = np.diag(iou([box for _, box in frames[stem]], [box for _, box in truths]))
        assert (overlap > 0.65).all()  # each edge moves by at most 9% of the side, then to whole pixels
        loose += (overlap < 1).sum()
    assert loose > len(wanted) / 2


def test_one_format_a_machine(hospital):
    names = sorted(str(path.relative_to(hospital / "annotations")) for path in hospital.glob("annotations/*"))
    assert names == ["alpha", "beta", "delta", "epsilon.json", "gamma.json"]
    machines = Counter()
    for path in truth_of(hospital):
        machines[pydicom.dcmread(hospital / path, stop_before_pixels=True).ManufacturerModelName.split()[0]] += 1
    assert set(machines) == {name.capitalize() for name in MACHINES}
    assert max(machines.values()) - min(machines.values()) <= 8


def test_manifest_lists_every_raw_and_annotation_file(hospital):
    rows = rows_of(hospital / "manifest.tsv")
    found = {path: digest for path, digest in digests(hospital).items() if path.startswith(("raw", "annotations"))}
    assert {row["path"]: row["sha256"] for row in rows} == found
    assert all((hospital / row["path"]).stat().st_size == int(row["size"]) for row in rows)
    assert [row["path"] for row in rows] == sorted(found)


def test_identifiers_are_unique_and_names_stay_in_the_header(hospital):
    datasets = {path: pydicom.dcmread(hospital / path, stop_before_pixels=True) for path in truth_of(hospital)}
    assert len({dataset.SOPInstanceUID for dataset in datasets.values()}) == 44
    assert len({dataset.StudyInstanceUID for dataset in datasets.values()}) == 11
    assert len({path.split("/")[-1] for path in datasets}) == 44
    annotations = "".join(path.read_text() for path in (hospital / "annotations").rglob("*.*") if path.is_file())
    for path, dataset in datasets.items():
        assert dataset.PatientID not in path.split("/")[-1] + annotations
        assert str(dataset.PatientName).split("^")[1] not in path.split("/")[-1].upper()


@pytest.mark.parametrize(
    "wrong",
    [
        {"malignant": 9},
        {"benign": -1},
        {"patients": 0, "malignant": 0, "benign": 0},
        {"machines": []},
        {"machines": ["alpha", "omega"]},
        {"machines": ["alpha", "alpha"]},
        {"seed": -1},
        {"scale": 0.0},
        {"workers": 0},
    ],
)
def test_impossible_hospitals_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match="data set test: phantom"):
        make(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_hospital_is_not_made_over_another(hospital):
    with pytest.raises(DataError, match="isn't empty"):
        make(hospital)


def test_command_line(tmp_path, monkeypatch, capsys):
    directory = str(tmp_path / "h")
    arguments = ["phantom", directory, "--patients", "3", "--machines", "epsilon", "--scale", "0.4", "--seed", "9"]
    monkeypatch.setattr(sys, "argv", arguments)
    for status in (0, 1):
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("mammoflow.phantom", run_name="__main__")
        assert stopped.value.code == status
    assert len(list((tmp_path / "h").glob("raw/*/*/*.dcm"))) == 12
    assert "isn't empty" in capsys.readouterr().err
