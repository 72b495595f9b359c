import math
import os
from pathlib import Path

import pytest
from pydicom import dcmread

from mammoflow import tables
from mammoflow.errors import AnnotationError, LeakageError
from mammoflow.labels.readers import read_lesions

EDGES = ["x1", "y1", "x2", "y2"]
ENTRY = {"format": "mias", "path": "Info.txt"}
MIAS_ROOT = os.environ.get("MAMMOFLOW_MIAS_ROOT")
AIR = 30  # of 255, brightest film around the breast


def needs_films(test):
    reason = "MAMMOFLOW_MIAS_ROOT doesn't name the directory of the mini-MIAS films"
    return pytest.mark.mias(pytest.mark.skipif(not MIAS_ROOT, reason=reason)(test))


def film(number, **changes):
    row = {"rows": 1024, "columns": 1024, "patient_key": f"pair{(number + 1) // 2}", "directory_label": "unknown"}
    return (f"films/mdb{number:03d}.dcm", row | changes)


@pytest.fixture
def read(tmp_path, catalogue):
    def run(text, *films, expert_classes=("malignant",)):
        (tmp_path / "Info.txt").write_text(text)
        index, sources = catalogue(*films)
        return read_lesions("mias", tmp_path, [ENTRY], index, sources, list(expert_classes))

    return run


def test_y_counts_from_the_bottom(read):
    # 1024 - 314 = 710 from the top; 338 +- 56 and 710 +- 56
    lesions = read("mdb028 F CIRC M 338 314 56\n", film(27), film(28))
    assert lesions[EDGES].iloc[0].tolist() == [282, 654, 394, 766]
    assert lesions["image_id"].iloc[0] == "i1"


def test_a_circle_over_the_border_is_clipped(read):
    # y 1024 - 1000 = 24 from the top, radius 29: five rows would lie above the film; x 20 - 29 left of it
    lesions = read("mdb144 F MISC B 20 1000 29", film(143), film(144))
    assert lesions[EDGES].iloc[0].tolist() == [0, 0, 49, 53]


@pytest.mark.parametrize("rest", ["", "*NOTE 3*", "*NOTE3*"])
def test_a_lesion_without_coordinates_is_kept_without_box(read, rest):
    row = read(f"mdb216 D CALC M {rest}\n", film(215), film(216)).iloc[0]
    assert (row["pathology"], row["lesion_type"], row["flag"]) == ("malignant", "calcifications", "no_coordinates")
    assert not row["expert"]
    assert all(math.isnan(row[edge]) for edge in EDGES)


def test_suspect_centres_are_flagged_and_teach_nobody(read):
    text = "mdb212 G CALC B 687 882 3\nmdb213 G CALC M 547 520 45\nmdb214 G CALC B 582 916 11\n"
    lesions = read(text, *map(film, (211, 212, 213, 214)), expert_classes=["malignant", "benign"])
    assert list(lesions["flag"]) == ["center_outside_breast", "", "center_outside_breast"]
    assert list(lesions["expert"]) == [False, True, False]
    assert lesions["x1"].iloc[0] == 684


@pytest.mark.parametrize(
    ("expert_classes", "expert"),
    [(["malignant"], [False, True]), (["benign"], [True, False]), (["malignant", "benign"], [True, True])],
)
def test_expert_classes_choose_and_all_rows_stay(read, expert_classes, expert):
    text = "mdb144 F MISC B 233 994 29\nmdb144 F MISC M 313 540 27\n"
    lesions = read(text, film(143), film(144), expert_classes=expert_classes)
    assert list(lesions["expert"]) == expert


def test_all_classes_and_severities_are_read(read):
    kinds = ["CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM"]
    text = "".join(f"mdb002 G {kind} {'BM'[n % 2]} {300 + n} 400 20\n" for n, kind in enumerate(kinds))
    lesions = read(text + "mdb001 G NORM\n", film(1), film(2))
    assert list(lesions["lesion_type"]) == [
        "calcifications",
        "mass_circumscribed",
        "mass_spiculated",
        "mass_ill_defined",
        "architectural_distortion",
        "asymmetry",
    ]
    assert list(lesions["pathology"]) == ["benign", "malignant"] * 3


def test_the_prose_of_the_published_file_is_skipped(read):
    text = (
        "MAMMOGRAPHIC IMAGE ANALYSIS SOCIETY\n\n3rd column: Class of abnormality present:\n"
        "                CALC - Calcification\nmdb002 G CIRC B 522 280 69\n======\n"
    )
    assert len(read(text, film(1), film(2))) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mbd002 G CIRC B 522 280 69", "film `mbd002`"),
        ("mdb02 G CIRC B 522 280 69", "film `mdb02`"),
        ("mdb002 G CYST B 522 280 69", "class `CYST`"),
        ("mdb002 G CIRC X 522 280 69", "severity `X`, expected B or M"),
        ("mdb002 G CIRC", "severity ``"),
        ("mdb002 G CIRC B 522 280", "circle `522 280`, expected 3 numbers"),
        ("mdb002 G CIRC B 522 280 big", "expected numbers"),
        ("mdb002 G CIRC B 522 280 0", "radius 0"),
        ("mdb002 G CIRC B 522 280 nan", "radius nan"),
        ("mdb002 G CIRC B 1522 280 69", "x 1522"),
        ("mdb004 G CIRC B 522 280 69", "no image of the data set is called `mdb004`"),
    ],
)
def test_a_wrong_line_is_named(read, line, message):
    with pytest.raises(AnnotationError, match=rf"Info\.txt line 2: .*{message}"):
        read(f"mdb001 G NORM\n{line}\n", film(1), film(2))


def test_a_file_without_list_is_refused(read):
    with pytest.raises(AnnotationError, match=r"Info\.txt: no line such as"):
        read("nothing here\n", film(1), film(2))


def test_films_of_another_size_are_refused(read):
    with pytest.raises(AnnotationError, match=r"has 512 x 512 pixels, but Info\.txt counts in 1024 x 1024"):
        read("mdb002 G CIRC B 522 280 69", film(1), film(2, rows=512, columns=512))


def test_two_films_of_a_pair_must_be_one_patient(read):
    with pytest.raises(LeakageError, match=r"mdb001 and mdb002 must be one patient.*patient_rule: mias_pairs"):
        read("mdb002 G CIRC B 522 280 69", film(1), film(2, patient_key="other"), film(3))


def test_two_pairs_must_be_two_patients(read):
    with pytest.raises(LeakageError, match="must be one patient of their own"):
        read("mdb002 G CIRC B 522 280 69", film(1), film(2), film(3, patient_key="pair1"), film(4, patient_key="pair1"))


@needs_films
def test_the_real_list_is_read_whole(catalogue):
    paths = sorted(path.relative_to(MIAS_ROOT).as_posix() for path in Path(MIAS_ROOT).glob("dicom/*/*.dcm"))
    films = [film(int(path[-7:-4]), directory_label=path.split("/")[1]) for path in paths]
    index, sources = catalogue(*((path, row) for path, (_, row) in zip(paths, films, strict=True)))
    lesions = read_lesions("mias", MIAS_ROOT, [ENTRY], index, sources, ["malignant"])

    listed = [line.split() for line in Path(MIAS_ROOT, "Info.txt").read_text().splitlines()]
    abnormal = [fields for fields in listed if fields[2] != "NORM"]
    assert len(lesions) == len(abnormal)
    assert (lesions["pathology"] == "malignant").sum() == sum(fields[3] == "M" for fields in abnormal)
    assert (lesions["flag"] == "no_coordinates").sum() == sum(len(fields) < 7 for fields in abnormal)
    malignant = lesions[lesions["pathology"] == "malignant"].merge(sources, on="image_id")
    assert malignant["path"].str.contains("/positive/").all()
    assert tables.LESIONS.validate(lesions)["expert"].sum() == (malignant["flag"] == "").sum()


@needs_films
@pytest.mark.parametrize("number", [28, 141, 184])  # malignant masses in fatty breasts, plain to see
def test_frames_of_real_masses_are_brighter_than_what_lies_around(read, number):
    name = f"mdb{number:03d}"
    lines = Path(MIAS_ROOT, "Info.txt").read_text().splitlines()
    row = read("\n".join(line for line in lines if line.startswith(name)), film(number)).iloc[0]
    pixels = dcmread(Path(MIAS_ROOT, f"dicom/positive/{name}.dcm")).pixel_array.astype(float)
    x1, y1, x2, y2 = (int(row[edge]) for edge in EDGES)
    side = x2 - x1
    around = pixels[max(y1 - side, 0) : y2 + side, max(x1 - side, 0) : x2 + side]
    inner = pixels[y1 + side // 4 : y2 - side // 4, x1 + side // 4 : x2 - side // 4]
    assert inner.mean() > around[around > AIR].mean() + 15
