import numpy as np
import pandas as pd
import pytest

from mammoflow import tables
from mammoflow.errors import DataError

THRESHOLD = {
    "detector": "yolov5n",
    "fold": 0,
    "threshold": 0.25,
    "false_frames_per_image": float("nan"),
    "sensitivity": 0.5,
    "images": 3,
    "lesions": 2,
}


@pytest.mark.parametrize("schema", tables.ALL.values(), ids=tables.ALL)
def test_empty_tables_survive_a_file(schema, tmp_path):
    tables.write(schema, tables.empty(schema), tmp_path / "t.tsv")
    table = tables.read(schema, tmp_path / "t.tsv")
    assert list(table.columns) == list(schema.columns)
    assert table.empty


@pytest.mark.parametrize("schema", tables.ALL.values(), ids=tables.ALL)
def test_every_column_is_described(schema):
    assert all(column.description for column in schema.columns.values())


def test_values_survive_a_file(tmp_path):
    table = tables.from_rows(tables.THRESHOLDS, [THRESHOLD])
    tables.write(tables.THRESHOLDS, table, tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(tables.read(tables.THRESHOLDS, tmp_path / "t.tsv"), table)


def test_floats_survive_exactly(tmp_path):
    value = float(np.nextafter(1 / 3, 1))
    tables.write(
        tables.THRESHOLDS, tables.from_rows(tables.THRESHOLDS, [THRESHOLD | {"threshold": value}]), tmp_path / "t"
    )
    assert tables.read(tables.THRESHOLDS, tmp_path / "t").threshold[0] == value


def test_texts_that_look_like_missing_values_stay(tmp_path):
    sources = tables.from_rows(tables.SOURCES, [{"image_id": "0012", "path": "NA"}])
    tables.write(tables.SOURCES, sources, tmp_path / "t.tsv")
    assert tables.read(tables.SOURCES, tmp_path / "t.tsv").loc[0].tolist() == ["0012", "NA"]


@pytest.mark.parametrize(
    ("change", "column"),
    [({"threshold": 3}, "threshold"), ({"fold": -7}, "fold"), ({"detector": None}, "detector")],
)
def test_a_bad_value_is_named(change, column):
    with pytest.raises(DataError, match=column):
        tables.from_rows(tables.THRESHOLDS, [THRESHOLD | change])


def test_a_missing_file_and_a_foreign_table_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.tsv"):
        tables.read(tables.INDEX, tmp_path / "none.tsv")
    (tmp_path / "foreign.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match=r"foreign\.tsv: not of the form of table .index."):
        tables.read(tables.INDEX, tmp_path / "foreign.tsv")


def test_the_documentation_follows_the_tables(root):
    assert (root / "docs" / "tables.md").read_text() == tables.documentation(), (
        "run: python -m mammoflow.tables > docs/tables.md"
    )
