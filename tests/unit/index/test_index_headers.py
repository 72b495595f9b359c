import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from mammoflow.config import schema
from mammoflow.index.headers import (
    IMAGE_TYPES,
    NEVER_USED,
    OTHER_OBJECTS,
    PARTIAL_VIEWS,
    describe,
    kinds,
    laterality,
    view_position,
)

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
        "kind": "", "reason": "", "image_laterality": "L", "view_position": "MLO", "rows": 4,
        "columns": 4, "bits_stored": 12,
        "photometric_interpretation": "MONOCHROME2", "presentation_intent": "FOR PRESENTATION",
        "machine": "Maker Model 1", "transfer_syntax_uid": "", "imager_pixel_spacing": 0.07,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, ["for_processing"]),
        ({"PresentationIntentType": "FOR PROCESSING"}, ["for_processing"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, ["secondary_capture"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2", "Modality": "OT"}, ["secondary_capture", "not_mammography"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.50"}, ["cad_sr"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}, ["structured_report"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "Modality": "PR"}, ["presentation_state"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66"}, ["not_an_image"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, ["not_an_image"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3"}, ["tomosynthesis"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]}, ["tomosynthesis"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ"]}, ["tomosynthesis"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, ["synthesized"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_SCOUT"]}, ["stereo"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_MINUS"]}, ["stereo"]),
        ({"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]}, ["contrast"]),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "", "", "LOW_ENERGY"]}, ["contrast"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}, ["not_mammography"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "Modality": "CR"}, ["not_mammography"]),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "Modality": "MG"}, []),
        ({"Modality": None}, []),
        ({"Modality": "OT"}, []),
        ({"NumberOfFrames": 30}, ["multi_frame"]),
        ({"NumberOfFrames": 1}, []),
        ({"QualityControlImage": "YES"}, ["quality_control"]),
        ({"ViewPosition": "FLATFIELD"}, ["quality_control"]),
        ({"ProtocolName": "Breast specimen"}, ["specimen"]),
        ({"ViewPosition": None, "ViewCodeSequence": sequence({"CodeValue": "127457009"})}, ["specimen"]),
        ({"ProtocolName": "STEREO"}, ["stereo"]),
        ({"ViewCodeSequence": view_with("R-102D7")}, ["spot_compression"]),
        ({"ViewCodeSequence": view_with("399163009")}, ["magnification"]),
        ({"ViewCodeSequence": view_with("R-102D5")}, ["implant_displaced"]),
        ({"ViewCodeSequence": view_with("399011000")}, ["partial_view"]),
        ({"ViewCodeSequence": view_with("R-40AB3")}, []),
        ({"PaddleDescription": "SPOT CONTACT"}, ["spot_compression"]),
        ({"PaddleDescription": "SPOT MAG 10CM"}, ["spot_compression", "magnification"]),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, ["magnification"]),
        ({"EstimatedRadiographicMagnificationFactor": "1.073"}, []),
        ({"PartialView": "YES"}, ["partial_view"]),
        ({"BreastImplantPresent": "YES"}, ["implant"]),
        ({"BreastImplantPresent": "NO"}, []),
    ],
)
def test_kinds(header, attributes, found):
    assert kinds(header(**attributes)) == found


def test_every_kind_has_a_policy_or_is_never_used():
    found = {*OTHER_OBJECTS.values(), *PARTIAL_VIEWS.values(), *IMAGE_TYPES.values()}
    found |= {"not_mammography", "for_processing", "multi_frame", "quality_control", "implant"}
    policy = schema()["properties"]["index"]["properties"]["policy"]
    assert set(policy["properties"]) == set(policy["required"]) == found - set(NEVER_USED)


@pytest.mark.parametrize("code", PARTIAL_VIEWS)
def test_modifier_codes_are_those_of_the_standard(code):
    snomed = mapping["SRT"].get(code, code)
    known = [names[snomed] for names in concepts["SCT"].values() if snomed in names]
    meaning = next(meaning for meaning, groups in known if 4015 in groups)
    other_words = {"partial_view": "axillary tail"}
    assert meaning.lower() == other_words.get(PARTIAL_VIEWS[code], PARTIAL_VIEWS[code].replace("_", " "))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": None}, "no_image_size"),
        ({"Rows": 0}, "no_image_size"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "not_monochrome"),
        ({"BitsAllocated": 32}, "unsupported_bits_allocated"),
        ({}, ""),
    ],
)
def test_unusable_pixels(header, attributes, reason):
    assert describe(header(**attributes)).reason == reason


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
    ("name", "kind", "side", "view"),
    [
        ("MG-Im-GE-SenDS-scaled", "for_processing", "L", "CC"),
        ("MG-Im-GE_Seno_1_ForProcessing", "for_processing stereo", "L", "CC"),
        ("MG-Im-GE_Seno_1_ForPresentation", "stereo", "L", "CC"),
        ("MG-Im-GE_Seno_2_ForPresentation", "stereo", "L", "CC"),
        ("MG-Im-Hologic-PropProj", "secondary_capture quality_control", "R", "CC"),
        ("MG-RDSR-Hologic_2D", "structured_report", "", ""),
        ("MG-RDSR-Hologic_mix", "structured_report", "", ""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # odd private attributes of the vendors
def test_vendors_headers(name, kind, side, view):
    known = describe(dcmread(Path(HEADERS_ROOT, f"{name}.dcm"), stop_before_pixels=True))
    assert (known.kind, known.image_laterality, known.view_position) == (kind, side, view)
