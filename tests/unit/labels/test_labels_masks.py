"""Masks of the hidden truth: read with their images' ids, refused with their line when they don't fit."""

import pytest

from mammoflow import tables
from mammoflow.errors import AnnotationError
from mammoflow.labels.masks import COLUMNS, read_masks

HEADER = "\t".join(COLUMNS) + "\n"


def row(schema, **values):
    empty = {name: "" if str(c.dtype).startswith("str") else 0 for name, c in schema.columns.items()}
    return empty | values


@pytest.fixture
def read(tmp_path):
    index = tables.from_rows(
        tables.INDEX,
        [
            row(tables.INDEX, dataset="hospital", image_id=name, status=status, directory_label="positive", rows=80,
                columns=60, machine="alpha", photometric_interpretation="MONOCHROME2")
            for name, status in (("i1", "ok"), ("i2", "excluded"))
        ],
    )  # fmt: skip
    sources = tables.from_rows(
        tables.SOURCES, [{"image_id": "i1", "path": "raw/a.dcm"}, {"image_id": "i2", "path": "raw/b.dcm"}]
    )

    def run(text):
        (tmp_path / "masks.tsv").write_text(text)
        return read_masks("hospital", tmp_path, "masks.tsv", index, sources)

    return run


def test_masks_get_their_images_ids_and_those_of_excluded_images_are_left_out(read):
    found = read(HEADER + "raw/a.dcm\tlesion\t10\t20\t13\t22\t1,3,2\nraw/b.dcm\tpectoral\t0\t0\t1\t1\t0,1\n")
    assert found.to_dict("records") == [
        {"dataset": "hospital", "image_id": "i1", "region": "lesion", "x1": 10.0, "y1": 20.0, "x2": 13.0, "y2": 22.0,
         "runs": "1,3,2"}
    ]  # fmt: skip


def test_a_data_set_without_masks_has_an_empty_table(tmp_path):
    assert len(read_masks("hospital", tmp_path, None, tables.empty(tables.INDEX), tables.empty(tables.SOURCES))) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raw/c.dcm\tlesion\t10\t20\t13\t22\t1,3,2", "line 2: `raw/c.dcm` is no image"),
        ("raw/a.dcm\tlesion\t10\t20\t13\t22\t1,3", "line 2: runs of a mask cover 4 pixels"),
        ("raw/a.dcm\tlesion\t58\t20\t61\t22\t1,3,2", "line 2: box 58, 20, 61, 22 isn't inside its image of 60 x 80"),
        ("raw/a.dcm\tlesion\t10", "line 2: .*expected numbers"),
    ],
)
def test_lines_that_dont_fit_are_refused(read, line, message):
    with pytest.raises(AnnotationError, match=message):
        read(HEADER + line + "\n")


def test_other_columns_are_refused(read):
    with pytest.raises(AnnotationError, match=r"masks\.tsv: columns are"):
        read("path\tregion\n")
