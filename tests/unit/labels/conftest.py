"""Small indices and lesion tables to try the label functions on."""

import pytest

from mammoflow import tables

INDEX_ROW = {
    "dataset": "hospital",
    "status": "ok",
    "reason": "",
    "patient_key": "p0",
    "study_key": "s0",
    "directory_label": "positive",
    "image_laterality": "L",
    "view_position": "CC",
    "rows": 100,
    "columns": 200,
    "bits_stored": 12,
    "photometric_interpretation": "MONOCHROME2",
    "presentation_intent": "FOR PRESENTATION",
    "machine": "alpha",
    "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    "imager_pixel_spacing": 0.1,
    "size": 1000,
    "mtime_ns": 1,
    "kind": "",
    "content_digest": "",
}
LESION_ROW = {
    "dataset": "hospital",
    "finding": "lesion",
    "pathology": "malignant",
    "lesion_type": "unknown",
    "x1": 10.0,
    "y1": 20.0,
    "x2": 30.0,
    "y2": 50.0,
    "source": "yolo",
    "expert": True,
    "flag": "",
}


@pytest.fixture
def make_index():
    """INDEX table of rows that name what differs; image ids count up."""

    def make(*rows):
        return tables.from_rows(
            tables.INDEX, [{**INDEX_ROW, "image_id": f"i{number}", **row} for number, row in enumerate(rows)]
        )

    return make


@pytest.fixture
def make_lesions():
    """LESIONS table of rows that name the image and what differs."""

    def make(*rows):
        numbered = [
            {**LESION_ROW, "lesion_id": f"{row['image_id']}-{number}", **row} for number, row in enumerate(rows)
        ]
        return tables.from_rows(tables.LESIONS, numbered)

    return make


@pytest.fixture
def catalogue(make_index):
    """Index and sources of files: a path below the root, or a path and what differs."""

    def make(*files):
        named = [(file, {}) if isinstance(file, str) else file for file in files]
        index = make_index(*(row for _, row in named))
        paths = zip(index["image_id"], (path for path, _ in named), strict=True)
        return index, tables.from_rows(tables.SOURCES, [{"image_id": i, "path": path} for i, path in paths])

    return make
