import numpy as np
import pytest
from pydicom.dataset import Dataset

from mammoflow.images.masters import master_table
from mammoflow.images.stored import Stored
from mammoflow.images.windows import modality_values


def stored_of(bits, signed=False, photometric="MONOCHROME2", **attributes):
    header = Dataset()
    header.BitsStored, header.PixelRepresentation, header.PhotometricInterpretation = bits, int(signed), photometric
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return Stored(np.arange(2**bits).astype(np.uint16).reshape(-1, 2), bits, signed, photometric, header)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rescale", [(1, 0), (0.1, -100), (-2, 7)])
def test_modality_values_come_back(bits, signed, photometric, rescale):
    stored = stored_of(bits, signed, photometric, RescaleSlope=rescale[0], RescaleIntercept=rescale[1])
    table, offset, slope = master_table(stored)
    assert table.dtype == np.uint16
    assert np.allclose(offset + slope * table, modality_values(stored), rtol=0, atol=abs(rescale[0]) / 100)
    assert len(np.unique(table)) == 2**bits
    assert (slope < 0) == (photometric == "MONOCHROME1")


def test_by_hand():
    table, offset, slope = master_table(stored_of(2, photometric="MONOCHROME1", RescaleSlope=2, RescaleIntercept=10))
    assert (table.tolist(), offset, slope) == ([3, 2, 1, 0], 16.0, -2.0)
    padded, _, _ = master_table(stored_of(2, PixelPaddingValue=3))
    assert padded.tolist() == [0, 1, 2, 0]


def test_uneven_modality_lut_keeps_its_range():
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4, 0, 16], [0, 1, 10, 1000]
    item["LUTData"].VR = item["LUTDescriptor"].VR = "US"
    table, offset, slope = master_table(stored_of(2, ModalityLUTSequence=[item]))
    assert np.abs(offset + slope * table.astype(float) - [0, 1, 10, 1000]).max() <= 1000 / 65535 / 2
    assert table[-1] == 65535
