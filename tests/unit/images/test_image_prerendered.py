"""Pictures that were windowed before they were stored, as CMMD's: `none` gives them back as they are."""

import cv2
import imagecodecs
import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from mammoflow.images import render
from mammoflow.images.converting import ShardImage, Target, convert_image

# A window over the whole range, which by SIGMOID would curve the greys a second time
AS_IN_CMMD = {"VOILUTFunction": "SIGMOID", "WindowCenter": 128, "WindowWidth": 256, "PresentationLUTShape": "IDENTITY"}
WINDOWS = [{}, AS_IN_CMMD, {"WindowCenter": 40, "WindowWidth": 1}]
SETTINGS = {"format": "png", "train_size": 1000, "breast_crop": False, "breast_margin": 0.05, "same_side": False}


@pytest.fixture
def greys(breast_picture):
    """All 256 greys: uint8 (300, 200)."""
    picture = (breast_picture >> 4).clip(0, 255).astype(np.uint8)
    picture[150, :100] = np.arange(100)
    picture[151, :156] = np.arange(100, 256)
    return picture


@pytest.fixture(params=[ExplicitVRLittleEndian, JPEGLosslessSV1], ids=["uncompressed", "lossless"])
def stored(request, mammogram, save, greys):
    """Write the picture with a header's other attributes and return its path."""

    def write(attributes):
        lossless = request.param == JPEGLosslessSV1
        codestream = bytes(imagecodecs.jpeg8_encode(greys, lossless=True, predictor=1)) if lossless else None
        return save(mammogram(greys, 8, syntax=request.param, codestream=codestream, **attributes))

    return write


@pytest.mark.parametrize("attributes", WINDOWS)
def test_rendered_as_stored_whatever_window_the_file_has(stored, greys, attributes):
    picture, record = render(stored(attributes), {"mode": "none"})
    assert np.array_equal(picture, greys)
    assert record.window == '{"mode": "none"}'


@pytest.mark.parametrize("attributes", WINDOWS)
def test_converted_as_stored(stored, greys, tmp_path, attributes):
    (tmp_path / "pictures/train").mkdir(parents=True)
    target = Target("cmmd", {"mode": "none"}, SETTINGS, tmp_path / "pictures", mask_labels=False)
    row = convert_image(ShardImage("a", "p", "unknown", "L", stored(attributes), ""), target)
    assert (row["status"], row["window"]) == ("ok", '{"mode": "none"}')
    for name in ("png", "train_png"):  # smaller than the training size: not a grey of it is changed
        assert np.array_equal(cv2.imread(row[name], cv2.IMREAD_UNCHANGED), greys)


def test_its_own_window_would_curve_it_again(stored, greys):
    picture, _ = render(stored(AS_IN_CMMD), {"mode": "dicom", "index": 0})
    assert np.abs(picture.astype(int) - greys).max() > 20
