from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from mammoflow.phantom.dicom import encode_file
from mammoflow.phantom.machines import MACHINES
from mammoflow.phantom.patients import Patient, draw_header

PATIENT = Patient("hospital", 4, "malignant", 2, "alpha")
HEADER = draw_header(PATIENT, "R", "MLO", 4)


def picture(machine, seed=0):
    opacity = np.random.default_rng(seed).uniform(-0.05, 1.3, (48, 37)).astype(np.float32)
    return machine.store(opacity)


def reread(pixels, machine, header=HEADER):
    return pydicom.dcmread(BytesIO(encode_file(pixels, machine, 0.3, header)))


def shown(dataset):
    """Grey 0..1 as a viewer shows it, by pydicom alone."""
    top = 2**dataset.BitsStored - 1
    grey = apply_voi_lut(dataset.pixel_array, dataset) / top
    return 1 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_files_decode_to_the_pixels_given(machine):
    pixels = picture(machine)
    dataset = reread(pixels, machine)
    np.testing.assert_array_equal(dataset.pixel_array, pixels)
    assert dataset.file_meta.TransferSyntaxUID == machine.transfer_syntax
    assert (dataset.BitsStored, dataset.HighBit) == (machine.bits_stored, machine.bits_stored - 1)
    assert pixels.max() > 2 ** (machine.bits_stored - 1)


def test_internal_machines_differ_in_all_that_matters():
    internal = [MACHINES[name] for name in ("alpha", "beta", "gamma")]
    assert [machine.bits_stored for machine in internal] == [12, 14, 16]
    assert {machine.transfer_syntax for machine in internal} == {
        ExplicitVRLittleEndian,
        JPEGLosslessSV1,
        JPEG2000Lossless,
    }
    assert [machine.photometric_interpretation for machine in internal].count("MONOCHROME1") == 1
    assert {machine.voi_lut_function for machine in internal} == {"LINEAR", "SIGMOID"}
    assert [machine.with_voi_lut for machine in internal].count(True) == 1
    for value in ("rows", "imager_pixel_spacing", "gamma", "air"):
        assert len({getattr(machine, value) for machine in internal}) == 3


def test_monochrome1_twin_is_inverted_and_looks_the_same():
    inverted = MACHINES["beta"]
    plain = replace(inverted, photometric_interpretation="MONOCHROME2")
    first, second = picture(inverted), picture(plain)
    np.testing.assert_array_equal(first, inverted.full_range - second)
    first_file, second_file = reread(first, inverted), reread(second, plain)
    assert first_file.PresentationLUTShape == "INVERSE"
    assert second_file.PresentationLUTShape == "IDENTITY"
    np.testing.assert_allclose(shown(first_file), shown(second_file), atol=1e-9)


def test_window_values_by_hand():
    # 4095 * (0.01 + 0.85 * 0.08) = 319.41 is black, 4095 * (0.01 + 0.85) = 3521.7 white
    assert MACHINES["alpha"].window_values() == [("NORMAL", 1920.6, 3202.3)]
    beta = MACHINES["beta"]
    dark, bright = (16383 * (0.06 + 0.6 * opacity**0.8) for opacity in (0.15, 0.95))
    ((_, center, width),) = beta.window_values()
    assert center == pytest.approx(16383 - (dark + bright) / 2, abs=0.06)
    assert width == pytest.approx(bright - dark, abs=0.06)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_tissue_is_shown_dark_to_bright(machine):
    opacity = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (4, 1))
    grey = shown(reread(machine.store(opacity), machine))[0]
    assert (np.diff(grey) >= 0).all()
    assert grey[0] < 0.2
    assert grey[-1] > 0.75
    assert grey[24] - grey[12] > 0.25  # from fat to dense tissue


def test_header_says_who_what_and_where():
    dataset = reread(picture(MACHINES["gamma"]), MACHINES["gamma"])
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"
    assert (dataset.Modality, dataset.PresentationIntentType) == ("MG", "FOR PRESENTATION")
    assert (dataset.ImageLaterality, dataset.ViewPosition) == ("R", "MLO")
    assert list(dataset.PatientOrientation) == ["P", "FL"]
    assert dataset.ViewCodeSequence[0].CodeValue == "399368009"
    assert [float(mm) for mm in dataset.ImagerPixelSpacing] == [0.3, 0.3]
    assert dataset.PatientID == PATIENT.patient_id
    assert str(dataset.PatientName).startswith("PHANTOM^")
    assert dataset.Manufacturer == "Phantom"
    assert dataset.WindowCenterWidthExplanation == ["NORMAL", "HARDER"]


def test_every_value_passes_pydicoms_strict_validation(monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
    for machine in MACHINES.values():
        dataset = reread(picture(machine), machine)
        assert [str(element.value) for element in dataset.iterall()]


def test_age_and_dates_agree():
    dataset = reread(picture(MACHINES["alpha"]), MACHINES["alpha"])
    lived = int(dataset.StudyDate) // 10000 - int(dataset.PatientBirthDate) // 10000
    assert lived - int(dataset.PatientAge[:3]) in (0, 1)
