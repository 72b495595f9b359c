"""Phantom mammograms as DICOM files: Digital Mammography X-Ray Image, For Presentation (PS3.3 A.27, B.5.1.10)."""

from dataclasses import dataclass
from io import BytesIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    generate_uid,
)

from mammoflow.phantom import jpeg_lossless
from mammoflow.phantom.machines import Machine

IMPLEMENTATION_UID = generate_uid(entropy_srcs=["mammoflow", "phantom"])
VIEW_CODES = {
    ("SRT", "CC"): ("R-10242", "cranio-caudal"),
    ("SRT", "MLO"): ("R-10226", "medio-lateral oblique"),
    ("SCT", "CC"): ("399162004", "cranio-caudal"),
    ("SCT", "MLO"): ("399368009", "medio-lateral oblique"),
}
BREAST_CODES = {"SRT": ("T-04000", "Breast"), "SCT": ("76752008", "Breast")}
ORIENTATIONS = {  # what the rows and the columns run towards, chest wall left for L and right for R
    ("L", "CC"): ["A", "R"],
    ("R", "CC"): ["P", "L"],
    ("L", "MLO"): ["A", "FR"],
    ("R", "MLO"): ["P", "FL"],
}


@dataclass(frozen=True)
class Header:
    """What a file says of its patient, study and view."""

    patient_id: str
    patient_name: str
    birth_date: str  # YYYYMMDD
    age: str  # nnnY
    study_date: str
    study_time: str  # HHMMSS
    accession_number: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    instance_number: int
    image_laterality: str
    view_position: str


def encode_file(pixels: NDArray[np.uint16], machine: Machine, spacing: float, header: Header) -> bytes:
    """Return a whole DICOM file, the same bytes for the same arguments.

    Parameters
    ----------
    pixels : uint16 (rows, columns), stored values.
    spacing : mm a pixel at the detector.
    """
    dataset = FileDataset("", {}, file_meta=_file_meta(machine, header), preamble=b"\0" * 128)
    _describe_patient_and_study(dataset, header)
    _describe_equipment(dataset, machine, spacing)
    _describe_view(dataset, machine, header)
    _describe_pixels(dataset, machine, pixels)
    _describe_voi(dataset, machine)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _file_meta(machine: Machine, header: Header) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(header.sop_instance_uid)
    meta.TransferSyntaxUID = machine.transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "MAMMOFLOW"
    return meta


def _describe_patient_and_study(dataset: Dataset, header: Header) -> None:
    dataset.PatientName = header.patient_name
    dataset.PatientID = header.patient_id
    dataset.PatientBirthDate = header.birth_date
    dataset.PatientSex = "F"
    dataset.PatientAge = header.age
    dataset.StudyInstanceUID = header.study_uid
    dataset.SeriesInstanceUID = header.series_uid
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = UID(header.sop_instance_uid)
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = header.study_date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = header.study_time
    dataset.AccessionNumber = header.accession_number
    dataset.StudyID = "1"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = header.instance_number  # one image a series, as PS3.3 C.8.11.7 allows one view each
    dataset.InstanceNumber = 1
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]


def _describe_equipment(dataset: Dataset, machine: Machine, spacing: float) -> None:
    dataset.Manufacturer = "Phantom"
    dataset.ManufacturerModelName = f"{machine.name.capitalize()} {machine.bits_stored}"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.BodyPartExamined = "BREAST"
    dataset.PositionerType = "MAMMOGRAPHIC"
    dataset.EstimatedRadiographicMagnificationFactor = 1.0
    dataset.ImagerPixelSpacing = [f"{spacing:.6g}"] * 2
    dataset.DetectorType = "DIRECT"
    dataset.KVP = "28"
    dataset.OrganExposed = "BREAST"


def _describe_view(dataset: Dataset, machine: Machine, header: Header) -> None:
    dataset.ImageLaterality = header.image_laterality
    dataset.ViewPosition = header.view_position
    dataset.PatientOrientation = ORIENTATIONS[header.image_laterality, header.view_position]
    view = _code(machine.snomed, *VIEW_CODES[machine.snomed, header.view_position])
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.AnatomicRegionSequence = [_code(machine.snomed, *BREAST_CODES[machine.snomed])]
    dataset.AcquisitionContextSequence = []
    dataset.BreastImplantPresent = "NO"
    dataset.QualityControlImage = "NO"
    dataset.BurnedInAnnotation = "NO"  # letters of side and view identify nobody


def _code(scheme: str, value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _describe_pixels(dataset: Dataset, machine: Machine, pixels: NDArray[np.uint16]) -> None:
    inverted = machine.photometric_interpretation == "MONOCHROME1"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = machine.photometric_interpretation
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = machine.bits_stored
    dataset.HighBit = machine.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.LossyImageCompression = "00"
    if machine.transfer_syntax == ExplicitVRLittleEndian:
        dataset.PixelData = pixels.astype("<u2").tobytes()
    else:
        dataset.PixelData = encapsulate([_compress(pixels, machine)])
    dataset["PixelData"].VR = "OW" if machine.transfer_syntax == ExplicitVRLittleEndian else "OB"


def _compress(pixels: NDArray[np.uint16], machine: Machine) -> bytes:
    """Return a codestream that decodes to exactly `pixels`."""
    if machine.transfer_syntax == JPEGLosslessSV1:
        return jpeg_lossless.encode(pixels, machine.bits_stored)
    bits = machine.bits_stored
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", bitspersample=bits, reversible=True, numthreads=1)
    )


def _describe_voi(dataset: Dataset, machine: Machine) -> None:
    """Windows and, on some machines, a VOI LUT that is a little steeper in the middle (PS3.3 C.11.2)."""
    names, centers, widths = zip(*machine.window_values(), strict=True)
    dataset.WindowCenter, dataset.WindowWidth = list(centers), list(widths)
    dataset.WindowCenterWidthExplanation = list(names)
    dataset.VOILUTFunction = machine.voi_lut_function
    if machine.with_voi_lut:
        dataset.VOILUTSequence = [_voi_lut(machine, centers[0], widths[0])]


def _voi_lut(machine: Machine, center: float, width: float) -> Dataset:
    entries = machine.full_range + 1
    ramp = np.clip((np.arange(entries) - center) / width + 0.5, 0, 1)
    curve = ramp + 0.08 * np.sin(2 * np.pi * (ramp - 0.5))
    lut = Dataset()
    lut.LUTDescriptor = [entries, 0, machine.bits_stored]
    lut.LUTExplanation = "NORMAL"
    lut.LUTData = np.rint(curve * machine.full_range).astype("<u2").tobytes()
    lut["LUTData"].VR = "OW"
    return lut
