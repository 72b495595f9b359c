import json
import logging
import os
import stat

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from mammoflow import tables
from mammoflow.errors import ConfigError, DataError
from mammoflow.index import bounded, entries, scan
from mammoflow.index.entries import _read_header
from mammoflow.index.headers import describe
from mammoflow.provenance import file_sha256

PERSON_TAGS = [
    "PatientName", "PatientID", "PatientBirthName", "OtherPatientNames", "PatientMotherBirthName",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy",
    "ResponsiblePerson", "RequestingPhysician", "PatientAddress", "PatientTelephoneNumbers", "AccessionNumber",
    "StudyID", "InstitutionName", "InstitutionAddress", "StationName", "StudyDescription", "SeriesDescription",
    "ProtocolName", "PatientComments", "ImageComments", "DeviceSerialNumber", "DetectorID", "BodyPartExamined",
    "PaddleDescription", "AcquisitionDeviceProcessingDescription",
]  # fmt: skip


def test_folder_of_odd_files(save, index, tmp_path):
    save("good.dcm")
    save("processing.dcm", PresentationIntentType="FOR PROCESSING")
    save("report.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.50", Modality="SR", Rows=None)
    whole = save("cut.dcm").read_bytes()
    (tmp_path / "root/cut.dcm").write_bytes(whole[: whole.index(b"\x28\x00\x10\x00")])  # before Rows
    (tmp_path / "root/cut_early.dcm").write_bytes(whole[:150])
    (tmp_path / "root/empty.dcm").write_bytes(b"")
    (tmp_path / "root/text.dcm").write_text("no DICOM at all, only words, " * 20)
    (tmp_path / "root/zeros").write_bytes(bytes(1000))
    (tmp_path / "root/noise").write_bytes(np.random.default_rng(0).bytes(5000))
    for beside in ("Info.txt", "frames.xml", ".DS_Store", "DICOMDIR", "truth.tsv"):
        (tmp_path / "root" / beside).write_text("x")
    (tmp_path / "root/nowhere.dcm").symlink_to(tmp_path / "missing")
    rows = index()
    assert rows["reason"].to_dict() == {
        "good.dcm": "", "processing.dcm": "for_processing", "report.dcm": "cad_sr", "cut.dcm": "no_image_size",
        "cut_early.dcm": "unreadable_header", "empty.dcm": "empty_file", "text.dcm": "not_dicom", "zeros": "not_dicom",
        "noise": "not_dicom", "Info.txt": "not_an_image", "frames.xml": "not_an_image", ".DS_Store": "not_an_image",
        "DICOMDIR": "not_an_image", "truth.tsv": "not_an_image", "nowhere.dcm": "unreadable_header",
    }  # fmt: skip
    assert (rows["status"] == "ok").sum() == 1
    assert rows["image_id"].is_unique


def test_file_without_preamble_is_read(save, index):
    path = save("old.dcm")
    path.write_bytes(path.read_bytes()[132:])
    assert index()["reason"].to_dict() == {"old.dcm": ""}


def test_directory_labels_take_the_longest_match(save, index):
    save("pos/a.dcm")
    save("pos/other/b.dcm")
    save("neg/c.dcm")
    save("else/d.dcm")
    rows = index(directories={"positive": "pos", "negative": "neg"})
    assert rows["directory_label"].to_dict() == {
        "pos/a.dcm": "positive",
        "pos/other/b.dcm": "positive",
        "neg/c.dcm": "negative",
    }
    nested = index(directories={"positive": ".", "negative": "neg", "unknown": "pos/other"})
    assert nested["directory_label"].to_dict() == {
        "pos/a.dcm": "positive", "pos/other/b.dcm": "unknown", "neg/c.dcm": "negative", "else/d.dcm": "positive"
    }  # fmt: skip
    assert set(index()["directory_label"]) == {"unknown"}
    assert scan.directory_label("positive2/a.dcm", {"positive": "positive"}) == "unknown"


def test_duplicate_uids(save, index):
    for name in ("b.dcm", "a.dcm", "c.dcm"):
        save(name, SOPInstanceUID="1.2.3.4.5")
    save("0.dcm", SOPInstanceUID="1.2.3.4.5", PresentationIntentType="FOR PROCESSING")
    rows = index()
    assert rows["reason"].to_dict() == {
        "a.dcm": "", "b.dcm": "duplicate_sop_instance_uid", "c.dcm": "duplicate_sop_instance_uid",
        "0.dcm": "for_processing",
    }  # fmt: skip
    first = rows["image_id"]["a.dcm"]
    assert sorted(rows["image_id"]) == [first, f"{first}-2", f"{first}-3", f"{first}-4"]


def test_nothing_identifies_a_patient(save, index, tmp_path, caplog):
    planted = "ZQXJKV"
    caplog.set_level(logging.INFO)
    values = {keyword: "19310203" if keyword.endswith("Date") else planted for keyword in PERSON_TAGS}
    save(f"{planted}/{planted}.dcm", **values, ViewPosition=planted, PatientBirthDate="19310203")
    save("second.dcm")
    index(directories={"positive": planted, "negative": "."})
    out = tmp_path / "results/index"
    for name in ("d.tsv", ".cache/d.json"):
        content = (out / name).read_text().replace(f'"{planted}/{planted}.dcm"', "the path")
        assert planted.lower() not in content.lower()
        assert "19310203" not in content
    assert planted not in caplog.text
    assert planted in (out / "d.sources.tsv").read_text()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("trick", ["../../../etc/passwd", "..", "/etc/passwd", "$(touch pwned)", "a\tb\nc", "{shard}"])
def test_tricks_in_identifiers_become_plain_keys(save, index, tmp_path, trick):
    """Every name of a later file is made of these keys: none may lead out of results/ or into a shell."""
    save("a.dcm", SOPInstanceUID=trick, StudyInstanceUID=trick, PatientID=trick)
    rows = index()
    for key in ("image_id", "patient_key", "study_key"):
        assert rows[key].str.fullmatch("[0-9a-f]+").all(), key
    assert not (tmp_path / "pwned").exists()


def test_keys_are_stable_and_salted(save, index, tmp_path):
    save("a.dcm", PatientID="p1")
    save("b.dcm", PatientID=" p1 ")
    save("c.dcm", PatientID="p2")
    first, other_seed = index(), index(seed=2)
    columns = ["image_id", "patient_key", "study_key"]
    assert first[columns].equals(index()[columns])
    assert not set(first[columns].stack()) & set(other_seed[columns].stack())
    assert first["patient_key"]["a.dcm"] == first["patient_key"]["b.dcm"] != first["patient_key"]["c.dcm"]
    secret = index(secret_file=str(tmp_path / "secret"))
    assert not set(secret[columns].stack()) & set(first[columns].stack())
    assert secret[columns].equals(index(secret_file=str(tmp_path / "secret"))[columns])


def test_patients_without_an_id(save, index, caplog):
    save("a/1.dcm", PatientID="", StudyInstanceUID="1.1")
    save("b/2.dcm", PatientID=None, StudyInstanceUID="1.1")
    save("c/3.dcm", PatientID="", StudyInstanceUID=None)
    save("c/4.dcm", PatientID="", StudyInstanceUID="")
    save("c/5.dcm", PatientID="known")
    with caplog.at_level(logging.WARNING):
        keys = index()["patient_key"]
    assert keys["a/1.dcm"] == keys["b/2.dcm"]
    assert keys["c/3.dcm"] == keys["c/4.dcm"]
    assert keys.nunique() == 3
    assert "2 images have no PatientID: their study" in caplog.text


def test_patient_rules(save, index):
    for number in (1, 2, 3, 10):
        save(f"films/mdb{number:03d}.dcm", PatientID="same")
    pairs = index(patient_rule="mias_pairs")["patient_key"].rename(lambda path: int(path[-7:-4]))
    assert pairs[1] == pairs[2]
    assert pairs.nunique() == 3
    assert index(patient_rule="directory")["patient_key"].nunique() == 1
    named = index(patient_from=r"mdb(0)")
    assert named["patient_key"].nunique() == 1
    assert set(named["status"]) == {"ok"}
    with pytest.raises(DataError, match="no_patient_in_name 4"):
        index(patient_from=r"subject(\d+)")


def test_pictures_as_source(index, tmp_path):
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    for name, picture in [
        ("p1/a.png", grey),
        ("p1/b.tif", grey + 1),
        ("p2/c.png", (grey + 2).astype(np.uint16)),
        ("p3/d.png", grey),
    ]:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    (tmp_path / "root/p2/e.pgm").write_bytes(b"P5 20 10 4095\n" + bytes(400))
    (tmp_path / "root/p2/f.png").write_text("no picture")
    (tmp_path / "root/p2/g.png").write_bytes(b"")
    rows = index(source="raster")
    assert rows["reason"].to_dict() == {
        "p1/a.png": "", "p1/b.tif": "", "p2/c.png": "", "p3/d.png": "duplicate_content", "p2/e.pgm": "",
        "p2/f.png": "not_a_picture", "p2/g.png": "empty_file",
    }  # fmt: skip
    assert rows.loc["p1/a.png", ["rows", "columns", "bits_stored"]].tolist() == [10, 20, 8]
    assert rows["bits_stored"]["p2/c.png"] == 16
    keys = rows["patient_key"]
    assert keys["p1/a.png"] == keys["p1/b.tif"] != keys["p2/c.png"] == keys["p2/e.pgm"]
    by_name = index(source="raster", patient_from=r"p\d/(.)")
    assert by_name[by_name["status"] == "ok"]["patient_key"].is_unique


def test_only_new_and_changed_files_are_read_again(save, index, monkeypatch):
    for number in range(4):
        save(f"{number}.dcm", PatientID=f"p{number}")
    first = index()
    read = []
    monkeypatch.setattr(
        scan, "read_entry", lambda file, **known: read.append(file.path) or entries.read_entry(file, **known)
    )
    assert index().equals(first)
    assert read == []
    save("1.dcm", PatientID="someone else")
    save("new.dcm")
    second = index()
    assert sorted(read) == ["1.dcm", "new.dcm"]
    assert second["patient_key"]["1.dcm"] != first["patient_key"]["1.dcm"]
    read.clear()
    index(seed=5)
    assert len(read) == 5
    read.clear()
    index(seed=5, patient_rule="directory")
    assert len(read) == 5


def test_broken_cache_is_read_over(save, index, tmp_path):
    save("a.dcm")
    first = index()
    for content in ("", "{", json.dumps({"key": "other"})):
        (tmp_path / "results/index/.cache/d.json").write_text(content)
        assert index().equals(first)


def test_too_many_excluded(save, index, tmp_path):
    save("good.dcm")
    save("p1.dcm", Rows=None)
    (tmp_path / "root/Info.txt").write_text("not counted")
    assert len(index(max_excluded=0.5)) == 3
    with pytest.raises(
        DataError, match=r"'d': 1 of 2 files can't be used \(no_image_size 1\).*0\.4.*index\.max_excluded"
    ):
        index(max_excluded=0.4)


def test_exclusions_by_policy_are_no_faults(save, index):
    save("good.dcm")
    for number in range(5):
        save(f"p{number}.dcm", PresentationIntentType="FOR PROCESSING")
    save("sr.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.50", Modality="SR", Rows=None)
    assert index(max_excluded=0.0)["reason"].value_counts().to_dict() == {"for_processing": 5, "": 1, "cad_sr": 1}


def test_policy_uses_what_it_names_and_reads_nothing_again(save, index, monkeypatch):
    save("spot.dcm", PaddleDescription="SPOT MAG")
    save("raw.dcm", PresentationIntentType="FOR PROCESSING", Rows=None)
    save("sr.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.50", Modality="SR", Rows=None)
    save("whole.dcm")
    strict = index()
    assert strict["kind"].to_dict() == {
        "spot.dcm": "spot_compression magnification", "raw.dcm": "for_processing", "sr.dcm": "cad_sr", "whole.dcm": "",
    }  # fmt: skip
    assert strict["reason"]["spot.dcm"] == "spot_compression"
    monkeypatch.setattr(scan, "read_entry", print)  # not the reader of rows: a call would fail
    half = index(policy={"spot_compression": "use"})
    assert half["reason"]["spot.dcm"] == "magnification"
    policy = {"spot_compression": "use", "magnification": "use", "for_processing": "use"}
    assert index(policy=policy)["reason"].to_dict() == {
        "spot.dcm": "", "raw.dcm": "no_image_size", "sr.dcm": "cad_sr", "whole.dcm": ""
    }  # fmt: skip


def test_larger_pictures_than_allowed(save, index):
    save("small.dcm")
    save("large.dcm", Rows=65535, Columns=65535)
    assert index()["reason"].to_dict() == {"small.dcm": "", "large.dcm": "too_many_pixels"}
    assert set(index(max_pixels=65535**2)["reason"]) == {""}


def test_endless_numbers(header):
    endless = header(Rows=None, ImagerPixelSpacing=None)
    endless.add_new("ImagerPixelSpacing", "LO", ["1e400", "1"])
    endless.add_new("Rows", "LO", "1e400")
    endless.add_new("NumberOfFrames", "LO", "nan")
    known = describe(endless)
    assert (known.imager_pixel_spacing, known.rows, known.kind, known.reason) == (None, 0, "", "no_image_size")


def test_file_that_inflates_without_bound(save, index, tmp_path, monkeypatch):
    path = save("bomb.dcm")
    save("good.dcm")
    monkeypatch.setattr(bounded, "MOST_BYTES", 2**20)
    for name, size in (("bomb.dcm", 2**21), ("deflated.dcm", 2**10)):
        header = dcmread(path)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        header.SOPInstanceUID = f"1.2.{size}"
        header.PixelData = bytes(size)
        header.save_as(tmp_path / "root" / name)
    assert index()["reason"].to_dict() == {"bomb.dcm": "inflates_too_far", "deflated.dcm": "", "good.dcm": ""}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_file_of_millions_of_elements(save, index, tmp_path, monkeypatch, syntax):
    header = dcmread(save("good.dcm"))
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPInstanceUID = "1.2.3.9"
    header.OtherPatientIDsSequence = [Dataset() for _ in range(2000)]
    header["OtherPatientIDsSequence"].is_undefined_length = True  # else pydicom leaves it unread
    header.save_as(tmp_path / "root" / "many.dcm")
    assert index()["reason"].to_dict() == {"good.dcm": "", "many.dcm": ""}
    assert index()["transfer_syntax_uid"]["many.dcm"] == syntax
    monkeypatch.setattr(bounded, "MOST_READS", 1000)
    os.utime(tmp_path / "root" / "many.dcm")
    assert index()["reason"].to_dict() == {"good.dcm": "", "many.dcm": "unreadable_header"}


def test_deflated_file_without_a_preamble(save, index, tmp_path):
    """It is inflated in bounded memory, too: the group of file meta information starts it."""
    header = dcmread(save("good.dcm"))
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.SOPInstanceUID = "1.2.3.9"
    header.save_as(tmp_path / "bare.dcm")
    (tmp_path / "root" / "bare.dcm").write_bytes((tmp_path / "bare.dcm").read_bytes()[132:])
    assert index()["reason"].to_dict() == {"bare.dcm": "", "good.dcm": ""}


def test_permission_is_asked_again(save, index, monkeypatch):
    path = save("locked.dcm")
    save("open.dcm")

    def refuse(_path):
        raise PermissionError

    with monkeypatch.context() as locked:
        locked.setattr(entries, "_read_header", lambda file: refuse(file) if file == path else _read_header(file))
        assert index()["reason"]["locked.dcm"] == "no_permission"
    assert index()["reason"]["locked.dcm"] == ""


def test_content_is_verified_when_asked(save, index):
    paths = [save(f"{number}.dcm") for number in range(3)]
    by_time = index()
    assert set(by_time["content_digest"]) == {""}
    first = index(verify="content")
    assert first["content_digest"].to_dict() == {path.name: file_sha256(path)[:16] for path in paths}
    status = paths[1].stat()
    changed = paths[1].read_bytes().replace(b"p1", b"p9")
    paths[1].write_bytes(changed)
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    second = index(verify="content")
    assert second["patient_key"]["1.dcm"] != first["patient_key"]["1.dcm"]
    assert second.drop("1.dcm").equals(first.drop("1.dcm"))


def test_removed_files_disappear(save, index, tmp_path):
    save("a.dcm")
    gone = save("secret_name.dcm")
    index()
    gone.unlink()
    assert index().index.tolist() == ["a.dcm"]
    assert "secret_name" not in (tmp_path / "results/index/.cache/d.json").read_text()


def test_private_map_only_when_asked(save, index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("a.dcm", PatientID="p1")
    save("b.dcm", PatientID="p2")
    index()
    maps = tmp_path / "private/maps"
    assert not maps.exists()
    rows = index(identities=str(maps))  # after a scan that remembered the rows without it
    path = maps / "d.tsv"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(maps.stat().st_mode) == 0o700
    known = tables.read(tables.IDENTITIES, path).set_index("path")
    assert known["patient_id"].to_dict() == {"a.dcm": "p1", "b.dcm": "p2"}
    assert known["image_id"].equals(rows["image_id"].loc[known.index])
    content = path.read_bytes()
    read = []
    monkeypatch.setattr(
        scan, "read_entry", lambda file, **more: read.append(file.path) or entries.read_entry(file, **more)
    )
    index(identities=str(maps))
    assert read == []
    assert path.read_bytes() == content
    (tmp_path / "root/b.dcm").unlink()
    save("c.dcm", PatientID="p3")
    index(identities=str(maps))
    assert read == ["c.dcm"]
    assert set(tables.read(tables.IDENTITIES, path)["patient_id"]) == {"p1", "p3"}


def test_private_map_inside_results_is_refused(save, index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("a.dcm")
    with pytest.raises(ConfigError, match=r"deidentify\.map 'results/maps' lies inside results/"):
        index(identities="results/maps")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"deidentify\.map.*directory"):
        index(identities=str(tmp_path / "file/maps"))


def test_nothing_usable(save, index, tmp_path):
    save("p1.dcm", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    with pytest.raises(DataError, match="not_mammography 1"):
        index(max_excluded=1.0)
    (tmp_path / "root/p1.dcm").unlink()
    with pytest.raises(DataError, match="no image files found"):
        index()
    with pytest.raises(ConfigError, match="missing"):
        index(directories={"positive": "missing"})


@pytest.mark.slow
def test_workers_do_not_matter(save, index, monkeypatch, tmp_path):
    for number in range(6):
        save(f"{number}.dcm", PatientID=f"p{number}")
    one = index()
    (tmp_path / "results/index/.cache/d.json").unlink()
    monkeypatch.setattr(scan, "WORTH_PROCESSES", 1)
    assert index(workers=2).equals(one)
