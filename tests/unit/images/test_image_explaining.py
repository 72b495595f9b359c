import json

import cv2
import numpy as np
import pytest

from mammoflow.errors import ConfigError
from mammoflow.images import render
from mammoflow.images.__main__ import main, window_of
from mammoflow.images.explaining import explain_image

PLANTED = "ZQXJKV"
IDENTIFYING = [
    "PatientName", "PatientID", "OperatorsName", "InstitutionName", "StudyDescription", "AccessionNumber",
    "ImageComments", "StationName", "DeviceSerialNumber", "ProtocolName",
]  # fmt: skip


@pytest.fixture
def twelve_bits(mammogram, save, breast_picture):
    """12 bits, MONOCHROME1, rescaled by 2 x - 10, two windows, and padding 4095 in a strip."""
    stored = 4000 - breast_picture
    stored[:, 190:] = 4095
    planted = dict.fromkeys(IDENTIFYING, PLANTED)
    return save(
        mammogram(
            stored, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-10,
            PixelPaddingValue=4095, WindowCenter=[4000, 5000], WindowWidth=[8000, 100], ImageLaterality="L",
            ViewPosition="MLO", **planted,
        ),
        f"{PLANTED}.dcm",
    )  # fmt: skip


def test_every_step_in_numbers(twelve_bits, tmp_path, breast_picture):
    told = explain_image(twelve_bits, {"mode": "dicom", "index": 1}, tmp_path / "out")
    assert json.loads((tmp_path / "out/explanation.json").read_text()) == told
    assert list(told) == [
        "window_asked", "header", "index", "stored", "modality", "voi", "inversion", "padding", "breast", "picture",
    ]  # fmt: skip
    lowest = 4000 - int(breast_picture[:, :190].max())
    assert told["stored"] | {"distinct_values": 0} == {
        "decoder": "native", "rows": 300, "columns": 200, "bits": 12, "signed": False, "lowest": lowest,
        "highest": 4095, "distinct_values": 0,
    }  # fmt: skip
    assert (told["modality"]["lowest"], told["modality"]["highest"]) == (2 * lowest - 10, 2 * 4095 - 10)
    assert told["modality"]["of_highest_possible"] == 8180
    assert told["voi"] == {"mode": "dicom", "index": 1, "function": "LINEAR", "center": 5000, "width": 100}
    assert told["inversion"]["inverted"]
    assert told["padding"] == {"values": 1, "pixels": 3000, "share_of_pixels": 0.05}
    assert told["breast"]["chest_wall_at"] == "L"
    assert (told["index"]["view_position"], told["index"]["image_laterality"]) == ("MLO", "L")
    picture, record = render(twelve_bits, {"mode": "dicom", "index": 1})
    assert np.array_equal(cv2.imread(str(tmp_path / "out/picture.png"), cv2.IMREAD_UNCHANGED), picture)
    assert told["picture"]["histogram"] == np.bincount(picture.ravel(), minlength=256).tolist()
    assert told["picture"]["pixel_digest"] == record.pixel_digest


def test_nothing_identifies_a_patient(twelve_bits, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        main([str(twelve_bits), "--out", str(tmp_path / "out")])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "CENTER: 4000" in printed.upper()
    assert printed == (tmp_path / "out/explanation.txt").read_text()
    for path in (tmp_path / "out").iterdir():
        assert PLANTED.encode() not in path.read_bytes()


def test_file_without_a_picture_says_why(twelve_bits, tmp_path, capsys):
    twelve_bits.write_bytes(twelve_bits.read_bytes()[:-100])
    with pytest.raises(SystemExit) as done:
        main([str(twelve_bits), "--out", str(tmp_path / "out")])
    assert done.value.code == 1
    told = json.loads((tmp_path / "out/explanation.json").read_text())
    assert told["refused"]["reason"] == "truncated_pixel_data"
    assert PLANTED not in json.dumps(told)
    assert not (tmp_path / "out/picture.png").exists()
    assert "truncated_pixel_data" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"text", bytes(500)])
def test_no_picture_file_at_all(tmp_path, content):
    (tmp_path / "odd").write_bytes(content)
    told = explain_image(tmp_path / "odd", {"mode": "none"}, tmp_path / "out")
    assert told["refused"]["reason"]
    assert told["index"] == {}


def test_window_of_a_study(tmp_path, root):
    assert window_of(None, None) == {"mode": "dicom", "index": 0}
    assert window_of(root / "workflow/studies/mias.yaml", None) == {"mode": "none"}
    assert window_of(root / "config.yaml", "outside") == {"mode": "dicom", "index": 0}
    with pytest.raises(ConfigError, match=r"no data set `elsewhere`; it has hospital, outside"):
        window_of(root / "config.yaml", "elsewhere")
    with pytest.raises(ConfigError, match="no data sets"):
        window_of(tmp_path / "none.yaml", None)
