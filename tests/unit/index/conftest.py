"""Mammography headers made in memory, and a scan of a directory of them."""

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mammoflow import tables
from mammoflow.config import schema
from mammoflow.index.scan import scan

# every kind that a policy can name, excluded
POLICY = dict.fromkeys(schema()["properties"]["index"]["properties"]["policy"]["properties"], "exclude")
FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"


def make_header(**attributes):
    """Return a usable mammogram's data set with 4 x 4 pixels, its attributes replaced; None removes one."""
    header = Dataset()
    standard = {
        "SOPClassUID": FOR_PRESENTATION, "SOPInstanceUID": generate_uid(), "StudyInstanceUID": "1.2.3",
        "Modality": "MG", "PresentationIntentType": "FOR PRESENTATION", "ImageType": ["DERIVED", "PRIMARY", ""],
        "PatientID": "p1", "Manufacturer": "Maker", "ManufacturerModelName": "Model 1", "ImageLaterality": "L",
        "ViewPosition": "MLO", "ImagerPixelSpacing": [0.07, 0.07], "SamplesPerPixel": 1, "BitsAllocated": 16,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": 4, "Columns": 4, "BitsStored": 12, "HighBit": 11,
        "PixelRepresentation": 0,
    }  # fmt: skip
    for keyword, value in (standard | attributes).items():
        if value is not None:
            setattr(header, keyword, value)
    header.add_new("PixelData", "OW", bytes(32))
    return header


@pytest.fixture
def header():
    return make_header


@pytest.fixture
def save(tmp_path):
    """Write a mammogram with `attributes` below the data set's root."""

    def write(name, **attributes):
        data = make_header(**attributes)
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID") or "1.2.3.4"
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def index(tmp_path):
    """Scan the root and return the index with the path of each row."""

    def run(max_excluded=1.0, seed=1, secret_file="public", workers=1, policy=None, identities=None, **dataset):
        out = tmp_path / "results" / "index"
        limits = {name: dataset.pop(name, default) for name, default in (("max_pixels", 2**26), ("verify", "time"))}
        settings = {"name": "d", "source": "dicom", "root": str(tmp_path / "root"), "directories": {}} | dataset
        scan(
            dataset=settings, secret_file=secret_file, seed=seed,
            settings={"max_excluded": max_excluded, "policy": POLICY | (policy or {}), **limits},
            table=out / "d.tsv", sources=out / "d.sources.tsv", identities=identities, workers=workers,
        )  # fmt: skip
        sources = tables.read(tables.SOURCES, out / "d.sources.tsv")
        return tables.read(tables.INDEX, out / "d.tsv").merge(sources, on="image_id").set_index("path")

    return run
