"""What a DICOM header says of an image: side, view, machine, what kind of object it is, and what is wrong with it."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

MG_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
# Other objects than mammograms, by the start of their SOP Class UID (PS3.4 annex B.5)
OTHER_OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.7": "secondary_capture",
    "1.2.840.10008.5.1.4.1.1.88.50": "cad_sr",
    "1.2.840.10008.5.1.4.1.1.88": "structured_report",
    "1.2.840.10008.5.1.4.1.1.11": "presentation_state",
    "1.2.840.10008.5.1.4.1.1.13": "tomosynthesis",
    "1.2.840.10008.5.1.4.1.1.66": "not_an_image",
    "1.2.840.10008.5.1.4.1.1.104": "not_an_image",
    "1.2.840.10008.1.3.10": "not_an_image",
}
# Kinds that hold no single picture; no policy can use them. All other kinds are keys of `index.policy` in the config.
NEVER_USED = ("not_an_image", "cad_sr", "structured_report", "presentation_state", "multi_frame")
# Views by code (CID 4014), SNOMED CT and the older SRT
VIEW_CODES = {
    "399162004": "CC", "R-10242": "CC",
    "399368009": "MLO", "R-10226": "MLO",
    "399260004": "ML", "R-10224": "ML",
    "399352003": "LM", "R-10228": "LM",
    "399099002": "LMO", "R-10230": "LMO",
    "399196006": "FB", "R-10244": "FB",
    "399188001": "SIO", "R-102D0": "SIO",
    "441555000": "ISO", "R-40AAA": "ISO",
    "399192008": "XCCL", "R-1024A": "XCCL",
    "399101009": "XCCM", "R-1024B": "XCCM",
    "127457009": "SPECIMEN", "G-8310": "SPECIMEN",
}  # fmt: skip
VIEWS = {*VIEW_CODES.values(), "XCC"}
# Modifiers of a view (CID 4015) that show a part of the breast only, or show it enlarged
PARTIAL_VIEWS = {
    "399055006": "spot_compression", "R-102D7": "spot_compression",
    "399163009": "magnification", "R-102D6": "magnification",
    "399209000": "implant_displaced", "R-102D5": "implant_displaced",
    "399110001": "tangential", "R-102C2": "tangential",
    "399161006": "cleavage", "R-102D2": "cleavage",
    "399011000": "partial_view", "R-102D1": "partial_view",  # axillary tail
}  # fmt: skip
# Purposes by value 3, 4 and 5 of Image Type (PS3.3 C.8.11.7.1.4, C.8.21.6.1.1), by how the value begins
IMAGE_TYPES = {
    "STEREO": "stereo", "PREFIRE": "stereo", "POSTFIRE": "stereo", "POSTBIOPSY": "stereo", "POSTMARKER": "stereo",
    "TOMO_SCOUT": "stereo", "TOMO": "tomosynthesis", "GENERATED_2D": "synthesized", "PRE_CONTRAST": "contrast",
    "POST_CONTRAST": "contrast", "SUBTRACTION": "contrast", "ADDITION": "contrast", "LOW_ENERGY": "contrast",
    "HIGH_ENERGY": "contrast", "SPECIMEN": "specimen",
}  # fmt: skip
SIDE_CODES = {"24028007": "R", "G-A100": "R", "7771000": "L", "G-A101": "L"}
LONGEST_NAME = 64  # characters of a Long String (PS3.5 6.2)
# Contact views reach 1.1; magnification stands begin at 1.5
MAGNIFIED_FROM = 1.3

TAGS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType",
    "Manufacturer", "ManufacturerModelName", "PatientID", "StudyInstanceUID", "ProtocolName", "BodyPartExamined",
    "PaddleDescription", "EstimatedRadiographicMagnificationFactor", "ImagerPixelSpacing", "ViewPosition",
    "ImageLaterality", "Laterality", "PatientOrientation", "ViewCodeSequence", "AnatomicRegionSequence",
    "SharedFunctionalGroupsSequence", "SpecimenDescriptionSequence", "QualityControlImage", "PartialView",
    "BreastImplantPresent", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
]  # fmt: skip


class Header(NamedTuple):
    """Columns of the index that the header alone fills; see `mammoflow.tables.INDEX`."""

    kind: str
    reason: str
    image_laterality: str
    view_position: str
    rows: int
    columns: int
    bits_stored: int
    photometric_interpretation: str
    presentation_intent: str
    machine: str
    transfer_syntax_uid: str
    imager_pixel_spacing: float | None


def describe(header: Dataset) -> Header:
    """Read the index's columns from a DICOM header.

    Parameters
    ----------
    header : data set with (at least) the attributes named in `TAGS`.

    Returns
    -------
    Header; `kind` names all that is special of the object (see `kinds`), `reason` what makes its pixels unusable.
    """
    photometric = text(header, "PhotometricInterpretation")
    intent = text(header, "PresentationIntentType")
    meta = getattr(header, "file_meta", Dataset())
    spacing = numbers(header, "ImagerPixelSpacing")
    syntax = text(meta, "TransferSyntaxUID")
    return Header(
        kind=" ".join(kinds(header)),
        reason=_pixel_format(header),
        image_laterality=laterality(header),
        view_position=view_position(header),
        rows=whole(header, "Rows"),
        columns=whole(header, "Columns"),
        bits_stored=whole(header, "BitsStored"),
        photometric_interpretation=photometric if re.fullmatch(r"[A-Z0-9_ ]{1,16}", photometric) else "",
        presentation_intent=intent if intent in ("FOR PRESENTATION", "FOR PROCESSING") else "",
        machine=machine(header),
        transfer_syntax_uid=syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "",
        imager_pixel_spacing=spacing[0] if spacing and 0 < spacing[0] < math.inf else None,
    )


def kinds(header: Dataset) -> list[str]:
    """Return what is special of an object, most telling first, each once; none for an ordinary mammogram.

    Told by SOP class, Modality, presentation intent, number of frames, Image Type, view modifiers, paddle,
    magnification, implant and partial view (PS3.3 C.8.11.7). Each is one of `NEVER_USED` or a key of `index.policy`.
    """
    return list(dict.fromkeys(kind for kind in _kinds(header) if kind))


def _kinds(header: Dataset) -> Iterator[str]:
    sop_class = text(header, "SOPClassUID")
    other = _other_object(sop_class)
    yield other
    yield "not_mammography" if not is_mammography(header) and other in ("", "secondary_capture") else ""
    intent = text(header, "PresentationIntentType")
    yield "for_processing" if sop_class == MG_FOR_PROCESSING or intent == "FOR PROCESSING" else ""
    yield "multi_frame" if whole(header, "NumberOfFrames") > 1 else ""
    yield from _purposes(header)
    yield from _partial_views(header)
    yield "implant" if text(header, "BreastImplantPresent").upper() == "YES" else ""


def is_mammography(header: Dataset) -> bool:
    """Whether SOP class or Modality says so; a wrong or missing Modality doesn't outweigh the SOP class."""
    return text(header, "SOPClassUID").startswith(MG_FOR_PRESENTATION) or text(header, "Modality") == "MG"


def _other_object(sop_class: str) -> str:
    starts = (start for start in OTHER_OBJECTS if sop_class == start or sop_class.startswith(f"{start}."))
    return OTHER_OBJECTS.get(max(starts, key=len, default=""), "")


def _purposes(header: Dataset) -> Iterator[str]:
    """Images made for something else than reading a whole breast."""
    protocol = text(header, "ProtocolName").upper()
    if text(header, "QualityControlImage").upper() == "YES" or text(header, "ViewPosition").upper() == "FLATFIELD":
        yield "quality_control"
    if header.get("SpecimenDescriptionSequence") or "SPECIMEN" in protocol or view_position(header) == "SPECIMEN":
        yield "specimen"
    if "STEREO" in protocol:
        yield "stereo"
    types = [kind.upper() for kind in values(header, "ImageType")[2:]]
    found = [purpose for kind in types for start, purpose in IMAGE_TYPES.items() if kind.startswith(start)]
    # a scout of a tomosynthesis biopsy is no slice, and a picture computed from slices isn't one either
    better = {"stereo", "synthesized"} & set(found)
    yield from (purpose for purpose in found if purpose != "tomosynthesis" or not better)


def _partial_views(header: Dataset) -> Iterator[str]:
    modifiers = (item for view in items(header, "ViewCodeSequence") for item in items(view, "ViewModifierCodeSequence"))
    yield from (PARTIAL_VIEWS.get(text(item, "CodeValue"), "") for item in modifiers)
    paddle = text(header, "PaddleDescription").upper()
    yield "spot_compression" if "SPOT" in paddle else ""
    factor = numbers(header, "EstimatedRadiographicMagnificationFactor")
    yield "magnification" if "MAG" in paddle or (factor and factor[0] >= MAGNIFIED_FROM) else ""
    yield "partial_view" if text(header, "PartialView").upper() == "YES" else ""


def _pixel_format(header: Dataset) -> str:
    if not whole(header, "Rows") or not whole(header, "Columns"):
        return "no_image_size"
    if text(header, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        return "not_monochrome"
    if whole(header, "SamplesPerPixel") > 1:
        return "not_monochrome"
    return "" if whole(header, "BitsAllocated") in (8, 16) else "unsupported_bits_allocated"


def laterality(header: Dataset) -> str:
    """Return the breast's side, ``L`` or ``R``; empty when unknown, both or contradictory in form.

    Taken from Image Laterality, else Laterality, Frame Laterality, Patient Orientation (a mammogram is stored with
    lateral or axillary tissue at the top, PS3.3 C.8.11.7.1.4, so its columns run towards the other side), else the
    coded anatomic region's modifier.
    """
    found = (
        text(header, "ImageLaterality"),
        text(header, "Laterality"),
        _frame_laterality(header),
        _orientation_laterality(header),
        _coded_laterality(header),
    )
    return next((side.upper() for side in found if side.upper() in ("L", "R")), "")


def _frame_laterality(header: Dataset) -> str:
    groups = items(header, "SharedFunctionalGroupsSequence")
    anatomies = (anatomy for group in groups for anatomy in items(group, "FrameAnatomySequence"))
    return next((text(anatomy, "FrameLaterality") for anatomy in anatomies), "")


def _orientation_laterality(header: Dataset) -> str:
    directions = [direction.upper() for direction in values(header, "PatientOrientation")]
    if len(directions) != 2 or directions[0] not in ("A", "P"):
        return ""
    sides = set(directions[1]) & {"L", "R"}
    return {"L": "R", "R": "L"}[sides.pop()] if len(sides) == 1 else ""


def _coded_laterality(header: Dataset) -> str:
    regions = items(header, "AnatomicRegionSequence")
    codes = (text(item, "CodeValue") for region in regions for item in items(region, "AnatomicRegionModifierSequence"))
    return next((SIDE_CODES[code] for code in codes if code in SIDE_CODES), "")


def view_position(header: Dataset) -> str:
    """Return the view: View Position where it holds a known one (``MLO``, ``LMLO`` of a left breast), else its code."""
    named = text(header, "ViewPosition").upper()
    for candidate in (named, named[1:] if named[:1] in ("L", "R") else ""):
        if candidate in VIEWS:
            return candidate
    codes = (text(item, "CodeValue") for item in items(header, "ViewCodeSequence"))
    return next((VIEW_CODES[code] for code in codes if code in VIEW_CODES), "")


def machine(header: Dataset) -> str:
    """Return manufacturer and model as one name, ``unknown`` when neither is given."""
    named = " ".join(text(header, keyword)[:LONGEST_NAME] for keyword in ("Manufacturer", "ManufacturerModelName"))
    printable = "".join(letter if letter.isprintable() else " " for letter in named)
    return " ".join(printable.split()) or "unknown"


def text(header: Dataset, keyword: str) -> str:
    """Return an attribute's first value as stripped text; empty when absent."""
    return next(iter(values(header, keyword)), "")


def values(header: Dataset, keyword: str) -> list[str]:
    """Return an attribute's values as stripped texts; an absent, empty or malformed one has none."""
    try:
        value: Any = header.get(keyword)
    except ValueError:
        return []
    if value is None or value == "":
        return []
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(one).strip(" \0") for one in several]


def numbers(header: Dataset, keyword: str) -> list[float]:
    """Return an attribute's values as numbers; none when one of them is no number."""
    try:
        return [float(one) for one in values(header, keyword)]
    except ValueError:
        return []


def whole(header: Dataset, keyword: str) -> int:
    """Return an attribute's first value as a whole number from 0 to 2^31 - 1; 0 when absent, none or out of range."""
    found = numbers(header, keyword)
    return int(found[0]) if found and 0 <= found[0] < 2**31 else 0


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none when it is absent or no sequence."""
    value: Any = header.get(keyword)
    return list(value) if value is not None and not isinstance(value, str | bytes) else []
