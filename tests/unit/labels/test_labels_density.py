import pandas as pd
import pytest

from mammoflow.errors import AnnotationError
from mammoflow.labels.density import read_densities

INFO = """mdb001 G CIRC B 535 425 197
mdb002 F NORM
mdb003 D NORM
mdb004 D NORM
"""
COLUMNS = "path\tfinding\tpathology\tlesion_type\tdensity\tx1\ty1\tx2\ty2\n"


@pytest.fixture
def known():
    """Index and sources of three images called mdb001 to mdb003."""
    names = ["mdb001", "mdb002", "mdb003"]
    index = pd.DataFrame(
        {"image_id": names, "status": "ok", "columns": 1024, "rows": 1024, "directory_label": "", "patient_key": "p"}
    )
    return {"index": index, "sources": pd.DataFrame({"image_id": names, "path": [f"raw/{n}.dcm" for n in names]})}


def read(root, known, kind, text):
    (root / "truth").write_text(text)
    found = read_densities("mias", root, {"format": kind, "path": "truth"}, **known)
    return dict(zip(found["image_id"], found["density"], strict=True))


def test_tissue_of_every_listed_film_normal_ones_too(tmp_path, known):
    expected = {"mdb001": "fatty_glandular", "mdb002": "fatty", "mdb003": "dense_glandular"}
    assert read(tmp_path, known, "mias", INFO) == expected


def test_density_of_a_table_is_that_of_the_image_whatever_its_rows(tmp_path, known):
    rows = ["raw/mdb001.dcm\tlesion\tbenign\tother\tB\t1\t1\t9\t9", "raw/mdb001.dcm\tnipple\t\tnipple\tb\t1\t1\t9\t9"]
    rows.append("raw/mdb003.dcm\tnipple\t\tnipple\t\t1\t1\t9\t9")
    assert read(tmp_path, known, "table", COLUMNS + "\n".join(rows) + "\n") == {"mdb001": "b"}
    without = "path\tfinding\nraw/mdb001.dcm\tlesion\n"
    assert read(tmp_path, known, "table", without) == {}


def test_truth_that_says_nothing_of_density(tmp_path, known):
    assert len(read_densities("mias", tmp_path, None, **known)) == 0
    assert len(read_densities("mias", tmp_path, {"format": "coco", "path": "truth"}, **known)) == 0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("mias", INFO.replace("mdb002 F", "mdb002 X")),
        ("table", COLUMNS + "raw/mdb001.dcm\tlesion\tbenign\tother\te\t1\t1\t9\t9\n"),
    ],
)
def test_unknown_density_is_named_with_its_line(tmp_path, known, kind, text):
    with pytest.raises(AnnotationError, match=r"truth line 2.*expected one of"):
        read(tmp_path, known, kind, text)
