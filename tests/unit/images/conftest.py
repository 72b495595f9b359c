"""Mammograms made in memory, as the tests of images need them."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"


def make_mammogram(stored, bits=12, signed=False, syntax=ExplicitVRLittleEndian, codestream=None, **attributes):
    """Return a data set whose pixels are `stored` (H, W), or the compressed `codestream` of them."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = FOR_PRESENTATION
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Modality = "MG"
    header.Rows, header.Columns = stored.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = 8 if bits <= 8 else 16
    header.BitsStored, header.HighBit, header.PixelRepresentation = bits, bits - 1, int(signed)
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    dtype = ("<i" if signed else "<u") + str(header.BitsAllocated // 8)
    pixels = encapsulate([codestream]) if codestream else stored.astype(dtype).tobytes()
    header.add_new(
        "PixelData", "OB" if codestream or header.BitsAllocated == 8 else "OW", pixels + b"\0" * (len(pixels) % 2)
    )
    return header


@pytest.fixture
def mammogram():
    return make_mammogram


@pytest.fixture
def save(tmp_path):
    """Write a data set and return its path."""

    def write(header, name="image.dcm"):
        header.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write


@pytest.fixture
def breast_picture():
    """A bright half disc at the left border on dark air with a label: uint16 (300, 200), values 0..4000."""
    y, x = np.mgrid[:300, :200]
    tissue = np.clip(1 - (x**2 / 120**2 + (y - 150) ** 2 / 110**2), 0, None)
    noise = np.random.default_rng(0).normal(0, 20, (300, 200))
    picture = np.where(tissue > 0, 900 + 2800 * tissue + noise, 0)
    picture[10:30, 160:190] = 4000
    return picture.clip(0, 4000).astype(np.uint16)
