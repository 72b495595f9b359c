"""One file's row of the index, from its header alone."""

import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from mammoflow.index import headers
from mammoflow.index.bounded import InflatesTooFarError, read_bounded
from mammoflow.index.keys import key
from mammoflow.index.listing import ListedFile
from mammoflow.provenance import DIGEST_LENGTH, file_sha256

Row = dict[str, Any]
# What lies beside images on purpose: texts, tables, annotations, archives
BESIDE_IMAGES = {
    ".txt", ".md", ".rst", ".log", ".pdf", ".doc", ".docx", ".html", ".htm", ".xml", ".json", ".yaml", ".yml", ".ini",
    ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".zip", ".gz", ".tar", ".py", ".r", ".m", ".sh", ".db", ".sha256", ".md5",
}  # fmt: skip
NAMES_BESIDE_IMAGES = {"dicomdir", "license", "licence", "readme", "copying", "thumbs.db", "desktop.ini"}
RASTER_FORMATS = ["PNG", "PPM", "TIFF"]
# Bits of a grey pixel by Pillow's mode
RASTER_BITS = {"1": 1, "L": 8, "I;16": 16, "I;16B": 16, "I": 16, "LA": 8, "RGB": 8, "RGBA": 8}
# What a row holds of its file's own identifiers, for the private map alone; never in a table or a cache of results/
IDENTIFIERS = ("patient_id", "study_instance_uid", "sop_instance_uid")


class PatientRule(NamedTuple):
    """What makes a patient.

    `rule` is ``patient_id``, ``directory`` or ``mias_pairs``; `pattern`, when given, goes before it: a regular
    expression whose one group takes the patient from the path below the root. Names and directories tell patients
    apart within `dataset` only; a PatientID does so in the whole study.
    """

    rule: str = "patient_id"
    pattern: str = ""
    dataset: str = ""


def read_entry(
    file: ListedFile, root: str, source: str, salt: bytes, rule: PatientRule, with_digest: bool = False
) -> Row:
    """Read one file's row, without the columns that depend on other files (`dataset`, label, duplicates).

    Parameters
    ----------
    file : the file below `root`.
    root : directory of the data set.
    source : ``dicom`` or ``raster``.
    salt : the study's secret.
    rule : what makes a patient.
    with_digest : whether to read the whole file for `content_digest`.

    Returns
    -------
    Columns of `mammoflow.tables.INDEX`; `patient_from`, how the patient was told; and `IDENTIFIERS`. What the object
    is (`kind`) doesn't exclude it here: that is the policy's part.
    """
    reason = _skipped(file)
    if not reason:
        reader = _read_raster if source == "raster" else _read_dicom
        row = reader(file, Path(root, file.path), salt, rule)
        return row | {"content_digest": content_digest(file, root)} if with_digest else row
    return _row(file, salt, reason)


def content_digest(file: ListedFile, root: str) -> str:
    """SHA-256 of a file's bytes, 16 hexadecimal digits; empty when it can't be read."""
    try:
        return file_sha256(Path(root, file.path))[:DIGEST_LENGTH]
    except OSError:
        return ""


def _skipped(file: ListedFile) -> str:
    name = os.path.basename(file.path).lower()
    if name.startswith(".") or name in NAMES_BESIDE_IMAGES or os.path.splitext(name)[1] in BESIDE_IMAGES:
        return "not_an_image"
    try:
        file.path.encode("utf-8")
    except UnicodeEncodeError:
        return "unreadable_name"
    return "empty_file" if file.size == 0 else ""


def _row(file: ListedFile, salt: bytes, reason: str, **known: Any) -> Row:
    unknown = {
        "image_id": key(salt, "path", file.path),
        "kind": "",
        "patient_key": "",
        "study_key": "",
        "image_laterality": "",
        "view_position": "",
        "rows": 0,
        "columns": 0,
        "bits_stored": 0,
        "photometric_interpretation": "",
        "presentation_intent": "",
        "machine": "unknown",
        "transfer_syntax_uid": "",
        "imager_pixel_spacing": None,
        "content_digest": "",
        "patient_from": "",
        **dict.fromkeys(IDENTIFIERS, ""),
    }
    return unknown | {"status": "excluded" if reason else "ok", "reason": reason} | known


def _read_dicom(file: ListedFile, path: Path, salt: bytes, rule: PatientRule) -> Row:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values, which may identify a patient
            header, reason = _read_header(path)
            return _row(file, salt, reason) if reason else _dicom_row(file, path, header, salt, rule)
    except PermissionError:
        return _row(file, salt, "no_permission")
    except InflatesTooFarError:
        return _row(file, salt, "inflates_too_far")
    except (
        Exception
    ):  # pydicom promises no exception of its own for a damaged header, and one file mustn't end the scan
        return _row(file, salt, "unreadable_header")


def _dicom_row(file: ListedFile, path: Path, header: Dataset, salt: bytes, rule: PatientRule) -> Row:
    known = headers.describe(header)
    study = headers.text(header, "StudyInstanceUID")
    patient_id, uid = headers.text(header, "PatientID"), headers.text(header, "SOPInstanceUID")
    patient_key, patient_from, no_patient = _patient(file, patient_id, study, salt, rule)
    columns = known._asdict() | {
        "image_id": key(salt, "image", uid) if uid else _content_key(path, salt),
        "patient_key": patient_key,
        "patient_from": patient_from,
        "study_key": key(salt, "study", study) if study else "",
        **dict(zip(IDENTIFIERS, (patient_id, study, uid), strict=True)),
    }
    return _row(file, salt, columns.pop("reason") or no_patient, **columns)


def _read_header(path: Path) -> tuple[Dataset, str]:
    """Read a header; the reason, when not empty, says that the file is no DICOM object."""
    tags = list(headers.TAGS)
    with path.open("rb") as stream:
        try:
            header = read_bounded(stream, stop_before_pixels=True, specific_tags=tags)
        except InvalidDicomError:
            # objects written without the preamble of PS3.10 exist; other files must not be taken for one
            stream.seek(0)
            try:
                header = read_bounded(stream, stop_before_pixels=True, specific_tags=tags, force=True)
            except Exception:
                return Dataset(), "not_dicom"
            if not headers.text(header, "SOPClassUID").startswith("1.2.840.10008."):
                return header, "not_dicom"
    return header, "" if "SOPClassUID" in header or "Rows" in header else "unreadable_header"


def _read_raster(file: ListedFile, path: Path, salt: bytes, rule: PatientRule) -> Row:
    try:
        with Image.open(path, formats=RASTER_FORMATS) as picture:
            columns, rows = picture.size
            mode, frames = picture.mode, getattr(picture, "n_frames", 1)
    except PermissionError:
        return _row(file, salt, "no_permission")
    except UnidentifiedImageError:
        return _row(file, salt, "not_a_picture")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return _row(file, salt, "unreadable_header")
    reason = "multi_frame" if frames > 1 else "" if mode in RASTER_BITS else "not_monochrome"
    # without a header, the nearest to an id is the directory
    raster_rule = rule if rule.rule != "patient_id" else rule._replace(rule="directory")
    patient_key, patient_from, no_patient = _patient(file, "", "", salt, raster_rule)
    known = {
        "image_id": _content_key(path, salt),
        "patient_key": patient_key,
        "patient_from": patient_from,
        "rows": rows,
        "columns": columns,
        "bits_stored": RASTER_BITS.get(mode, 0),
        "photometric_interpretation": "MONOCHROME2",
    }
    return _row(file, salt, reason or no_patient, **known)


def _content_key(path: Path, salt: bytes) -> str:
    return key(salt, "content", file_sha256(path))


def _patient(file: ListedFile, patient_id: str, study: str, salt: bytes, rule: PatientRule) -> tuple[str, str, str]:
    """Return patient_key, how it was told, and the reason when it can't be told."""
    if rule.pattern:
        match = re.search(rule.pattern, file.path)
        if not match or not match[1]:
            return "", "", "no_patient_in_name"
        return key(salt, f"name {rule.dataset}", match[1]), "name", ""
    if rule.rule == "mias_pairs":
        film = re.search(r"(\d+)\.[^.]+$", file.path)
        if not film:
            return "", "", "no_patient_in_name"
        return key(salt, f"film_pair {rule.dataset}", str((int(film[1]) + 1) // 2)), "film_number", ""
    if rule.rule == "patient_id" and patient_id:
        return key(salt, "patient", patient_id), "patient_id", ""
    if rule.rule == "patient_id" and study:
        return key(salt, "study_as_patient", study), "study", ""
    return key(salt, f"directory {rule.dataset}", os.path.dirname(file.path)), "directory", ""
