import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from mammoflow.index.headers import describe, exclusion, laterality, view_position

HEADERS_ROOT = os.environ.get("MAMMOFLOW_MG_HEADERS_ROOT")
NO_SIDE = {"ImageLaterality": None}


def sequence(*items):
    made = []
    for attributes in items:
        item = Dataset()
        for keyword, value in attributes.items():
            setattr(item, keyword, value)
        made.append(item)
    return made


def view_with(modifier):
    return sequence({"CodeValue": "R-10242", "ViewModifierCodeSequence": sequence({"CodeValue": modifier})})


def test_usable_header(header):
    known = describe(header())
    assert known._asdict() == {
        "reason": "", "image_laterality": "L", "view_position": "MLO", "rows": 4, "columns": 4, "bits_stored": 12,
        "photometric_interpretation": "MONOCHROME2", "presentation_intent": "FOR PRESENTATION",
        "machine": "Maker Model 1", "transfer_syntax_uid": "", "imager_pixel_spacing": 0.07,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, "for_processing"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.50"}, "cad_sr"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}, "structured_report"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "presentation_state"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}, "tomosynthesis"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]}, "tomosynthesis"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}, "not_mammography"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "Modality": "CR"}, "not_mammography"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "Modality": "MG"}, ""),
        ({"Modality": None}, ""),
        ({"Modality": "OT"}, ""),
        ({"NumberOfFrames": 30}, "multi_frame"),
        ({"NumberOfFrames": 1}, ""),
        ({"QualityControlImage": "YES"}, "quality_control"),
        ({"ViewPosition": "FLATFIELD"}, "quality_control"),
        ({"ProtocolName": "Breast specimen"}, "specimen"),
        ({"ViewPosition": None, "ViewCodeSequence": sequence({"CodeValue": "127457009"})}, "specimen"),
        ({"ProtocolName": "STEREO"}, "stereo"),
        ({"ViewCodeSequence": view_with("R-102D7")}, "spot_compression"),
        ({"ViewCodeSequence": view_with("399163009")}, "magnification"),
        ({"ViewCodeSequence": view_with("R-102D5")}, "implant_displaced"),
        ({"ViewCodeSequence": view_with("R-40AB3")}, ""),
        ({"PaddleDescription": "SPOT CONTACT"}, "spot_compression"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, "magnification"),
        ({"EstimatedRadiographicMagnificationFactor": "1.073"}, ""),
        ({"Rows": None}, "no_image_size"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "not_monochrome"),
        ({"BitsAllocated": 32}, "unsupported_bits_allocated"),
    ],
)
def test_exclusions(header, attributes, reason):
    assert exclusion(header(**attributes)) == reason


def test_laterality_by_precedence(header):
    anatomy = sequence({"FrameAnatomySequence": sequence({"FrameLaterality": "R"})})
    assert laterality(header(ImageLaterality="R", Laterality="L")) == "R"
    assert laterality(header(**NO_SIDE, Laterality="R", SharedFunctionalGroupsSequence=[])) == "R"
    assert laterality(header(**NO_SIDE, SharedFunctionalGroupsSequence=anatomy, PatientOrientation=["A", "R"])) == "R"
    region = sequence({"AnatomicRegionModifierSequence": sequence({"CodeValue": "G-A101"})})
    assert laterality(header(**NO_SIDE, AnatomicRegionSequence=region)) == "L"
    assert laterality(header(ImageLaterality="B")) == ""


@pytest.mark.parametrize(
    ("orientation", "side"),
    # IHE mammography: left CC A\R, right CC P\L, left MLO A\FR, right MLO P\FL; turned and lateral views don't tell
    [(["A", "R"], "L"), (["P", "L"], "R"), (["A", "FR"], "L"), (["P", "HL"], "R"), (["R", "P"], ""), (["A", "F"], "")],
)
def test_laterality_by_orientation(header, orientation, side):
    assert laterality(header(**NO_SIDE, PatientOrientation=orientation)) == side


@pytest.mark.parametrize(
    ("position", "code", "view"),
    [("CC", None, "CC"), ("ML", "R-10226", "ML"), ("LM", None, "LM"), ("RMLO", None, "MLO"), ("LCC", None, "CC"),
     ("", "R-10226", "MLO"), ("", "399260004", "ML"), ("", "R-10228", "LM"), ("OTHER", "R-10242", "CC"),
     ("", None, "")],
)  # fmt: skip
def test_views(header, position, code, view):
    codes = {"ViewCodeSequence": sequence({"CodeValue": code})} if code else {}
    assert view_position(header(ViewPosition=position, **codes)) == view


@pytest.mark.skipif(not HEADERS_ROOT, reason="MAMMOFLOW_MG_HEADERS_ROOT names no directory of vendors' headers")
@pytest.mark.parametrize(
    ("name", "reason", "side", "view"),
    [
        ("MG-Im-GE-SenDS-scaled", "for_processing", "L", "CC"),
        ("MG-Im-GE_Seno_1_ForProcessing", "for_processing", "L", "CC"),
        ("MG-Im-GE_Seno_1_ForPresentation", "stereo", "L", "CC"),
        ("MG-Im-Hologic-PropProj", "secondary_capture", "R", "CC"),
        ("MG-RDSR-Hologic_2D", "structured_report", "", ""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # odd private attributes of the vendors
def test_vendors_headers(name, reason, side, view):
    known = describe(dcmread(Path(HEADERS_ROOT, f"{name}.dcm"), stop_before_pixels=True))
    assert (known.reason, known.image_laterality, known.view_position) == (reason, side, view)
