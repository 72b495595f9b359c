import json
import shutil

import cv2
import numpy as np
import pytest

from mammoflow import tables
from mammoflow.geometry import Transform
from mammoflow.images import converting, kept
from mammoflow.images.converting import convert_shard
from mammoflow.images.stored import read_stored


@pytest.fixture
def study(tmp_path, mammogram, breast_picture, monkeypatch):
    """Three patients in two shards: a1 and a2 (a truncated file) are patient p1's, b1 p2's, x1 is excluded."""
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    index, sources = [], []
    for image_id, patient, status in [
        ("a2", "p1", "ok"),
        ("a1", "p1", "ok"),
        ("b1", "p2", "ok"),
        ("x1", "p1", "excluded"),
    ]:
        header = mammogram(breast_picture + len(sources), WindowCenter=2000, WindowWidth=4000)
        header.save_as(raw / f"{image_id}.dcm", enforce_file_format=True)
        texts = (
            "kind",
            "content_digest",
            "study_key",
            "image_laterality",
            "view_position",
            "presentation_intent",
            "transfer_syntax_uid",
        )
        numbers = {
            "rows": 300,
            "columns": 200,
            "bits_stored": 12,
            "size": 1,
            "mtime_ns": 1,
            "imager_pixel_spacing": None,
        }
        index.append(
            dict.fromkeys(texts, "") | numbers
            | {"dataset": "d", "image_id": image_id, "status": status, "reason": "", "patient_key": patient,
               "directory_label": "unknown", "photometric_interpretation": "MONOCHROME2", "machine": "unknown"}
        )  # fmt: skip
        sources.append({"image_id": image_id, "path": f"{image_id}.dcm"})
    truncated = raw / "a2.dcm"
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    patients = [
        {"dataset": "d", "patient_key": key, "role": "internal", "label": "unknown", "annotated": False, "fold": 0,
         "shard": shard}
        for key, shard in (("p1", "other-000"), ("p2", "other-001"))
    ]  # fmt: skip
    for name, schema, rows in [
        ("index", tables.INDEX, index), ("sources", tables.SOURCES, sources), ("patients", tables.PATIENTS, patients),
    ]:  # fmt: skip
        tables.write(schema, tables.from_rows(schema, rows), f"{name}.tsv")
    return {"name": "d", "root": "raw", "window": {"mode": "dicom", "index": 0}}


WHOLE = {"format": "png", "train_size": 120, "breast_crop": False, "breast_margin": 0.05, "same_side": False}


def convert(study, shard="other-000", **changes):
    settings = {
        "dataset": study, "shard": shard, "settings": WHOLE, "index": "index.tsv",
        "sources": "sources.tsv", "patients": "patients.tsv", "table": f"results/{shard}.tsv",
        "pictures": f"results/{shard}",
    }  # fmt: skip
    convert_shard(**settings | changes)
    return tables.read(tables.IMAGES, (settings | changes)["table"])


def test_shard_holds_its_usable_images(study, breast_picture):
    rows = convert(study)
    assert rows["image_id"].tolist() == ["a1", "a2"]
    assert rows["status"].tolist() == ["ok", "excluded"]
    assert rows["reason"].tolist() == ["", "truncated_pixel_data"]
    made = rows.iloc[0]
    assert (made["png"], made["train_png"]) == ("results/other-000/a1.png", "results/other-000/train/a1.png")
    assert (made["width"], made["height"]) == (200, 300)
    assert json.loads(made["window"])["center"] == 2000
    picture = cv2.imread(made["png"], cv2.IMREAD_UNCHANGED)
    x = breast_picture.astype(float) + 1  # LINEAR by hand
    grey = np.clip(((x - 1999.5) / 3999 + 0.5) * 255, 0, 255)
    assert np.array_equal(picture, np.floor(np.round(grey, 6) + 0.5))


def test_training_picture_is_an_area_mean(study):
    made = convert(study).iloc[0]
    full, small = (cv2.imread(made[name], cv2.IMREAD_UNCHANGED) for name in ("png", "train_png"))
    transform = Transform.from_json(made["transform"])
    assert small.shape == (120, 80) == (transform.height, transform.width)
    # 2.5 source pixels a pixel: the top left pixel averages 2 full and one half column and row
    weights = np.array([1, 1, 0.5])
    mean = weights @ full[:3, :3] @ weights / weights.sum() ** 2
    assert abs(small[0, 0] - mean) <= 0.5
    assert transform.backward(transform.forward([[10, 20, 30, 40]])) == pytest.approx(np.array([[10, 20, 30, 40]]))


def test_small_images_are_not_enlarged(study):
    made = convert(study, settings={**WHOLE, "train_size": 1000}).iloc[0]
    assert Transform.from_json(made["transform"]) == Transform(1, 1, 0, 0, 200, 300)


def test_workers_do_not_matter(study, tmp_path):
    one = convert(study, workers=1)
    content = {path.name: path.read_bytes() for path in (tmp_path / "results/other-000").rglob("*.png")}
    two = convert(study, workers=3, pictures="results/again", table="results/again.tsv")
    assert {path.name: path.read_bytes() for path in (tmp_path / "results/again").rglob("*.png")} == content
    paths = ["png", "train_png"]
    assert one.drop(columns=paths).equals(two.drop(columns=paths))


def test_jpeg_when_asked(study):
    made = convert(study, settings={**WHOLE, "format": "jpeg"}).iloc[0]
    assert made["png"].endswith("a1.jpg")
    assert made["train_png"].endswith("train/a1.png")
    assert cv2.imread(made["png"], cv2.IMREAD_UNCHANGED).shape == (300, 200)


def test_shard_without_patients(study, tmp_path):
    assert len(convert(study, shard="other-007")) == 0
    assert (tmp_path / "results/other-007").is_dir()


def test_other_shard(study):
    assert convert(study, shard="other-001")["image_id"].tolist() == ["b1"]


@pytest.fixture
def rendered(monkeypatch):
    """Names of the files that are read, in the order of reading."""
    names = []

    def counting(path, decoders):
        names.append(path.name)
        return read_stored(path, decoders)

    monkeypatch.setattr(converting, "read_stored", counting)
    return names


def fresh(study, tmp_path, **changes):
    """Convert as Snakemake has it done: the outputs of the run before are gone."""
    shutil.rmtree(tmp_path / "results/other-000", ignore_errors=True)
    return convert(study, kept="results/.kept/other-000", **changes)


def content(tmp_path):
    root = tmp_path / "results/other-000"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_unchanged_images_are_not_converted_again(study, tmp_path, rendered):
    first, before = fresh(study, tmp_path), content(tmp_path)
    rendered.clear()
    again = fresh(study, tmp_path)
    assert rendered == ["a2.dcm"]  # no picture came of it: why may have changed
    assert again.equals(first)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": WHOLE | {"train_size": 90}},
        {"settings": WHOLE | {"format": "jpeg"}},
        {"settings": WHOLE | {"masters": True}},
    ],
)
def test_other_settings_convert_again(study, tmp_path, rendered, changes):
    fresh(study, tmp_path)
    rendered.clear()
    fresh(study, tmp_path, **changes)
    assert "a1.dcm" in rendered


def test_another_window_code_or_file_converts_again(study, tmp_path, rendered, monkeypatch, mammogram, breast_picture):
    fresh(study, tmp_path)
    rendered.clear()
    fresh(study | {"window": {"mode": "none"}}, tmp_path)
    monkeypatch.setattr(converting, "code_digest", lambda stage: f"other {stage}")
    fresh(study | {"window": {"mode": "none"}}, tmp_path)
    mammogram(breast_picture[:, ::-1]).save_as(tmp_path / "raw/a1.dcm", enforce_file_format=True)
    changed = fresh(study | {"window": {"mode": "none"}}, tmp_path)
    assert rendered.count("a1.dcm") == 3
    assert changed.iloc[0]["breast_x2"] == 200


def test_pictures_edited_in_place_are_not_taken_over(study, tmp_path, rendered):
    fresh(study, tmp_path)
    before = content(tmp_path)
    picture = tmp_path / "results/other-000/a1.png"
    picture.write_bytes(picture.read_bytes()[:100])
    rendered.clear()
    fresh(study, tmp_path)
    assert "a1.dcm" in rendered
    assert content(tmp_path) == before


def test_what_a_killed_job_made_is_taken_over(study, tmp_path, rendered, monkeypatch):
    def killed(rows, reused):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(converting, "_tell", killed)
        with pytest.raises(KeyboardInterrupt):
            fresh(study, tmp_path)
    rendered.clear()
    assert fresh(study, tmp_path)["status"].tolist() == ["ok", "excluded"]
    assert rendered == ["a2.dcm"]


def test_removed_images_are_forgotten(study, tmp_path):
    fresh(study, tmp_path)
    assert (tmp_path / "results/.kept/other-000/a1.png").exists()
    fresh(study, tmp_path, shard="other-000", patients=str(empty_patients(tmp_path)))
    assert not [path for path in (tmp_path / "results/.kept/other-000").rglob("*") if path.is_file()]
    assert content(tmp_path) == {}


def empty_patients(tmp_path):
    tables.write(tables.PATIENTS, tables.empty(tables.PATIENTS), tmp_path / "none.tsv")
    return tmp_path / "none.tsv"


def test_file_systems_without_hard_links(study, tmp_path, rendered, monkeypatch):
    def refuse(source, target):
        raise OSError(1, "not permitted")

    monkeypatch.setattr(kept.os, "link", refuse)
    fresh(study, tmp_path)
    rendered.clear()
    assert fresh(study, tmp_path)["status"].tolist() == ["ok", "excluded"]
    assert "a1.dcm" in rendered


def test_masters_when_asked(study, tmp_path, breast_picture):
    made = convert(study, settings=WHOLE | {"masters": True}, shard="other-001")
    masters = tables.read(tables.MASTERS, tmp_path / "results/other-001/masters.tsv")
    assert masters["image_id"].tolist() == made["image_id"].tolist() == ["b1"]
    master = cv2.imread(masters.iloc[0]["master_png"], cv2.IMREAD_UNCHANGED)
    assert master.dtype == np.uint16
    assert np.array_equal(master, breast_picture + 2)
    assert masters.iloc[0][["offset", "slope"]].tolist() == [0, 1]
    convert(study, shard="other-001", pictures="results/without")
    assert not (tmp_path / "results/without/masters").exists()


@pytest.mark.parametrize(("laterality", "flag"), [("L", ""), ("R", "side_disagrees"), ("", "")])
def test_side_seen_against_the_header(study, caplog, laterality, flag):
    index = tables.read(tables.INDEX, "index.tsv")
    index["image_laterality"] = laterality
    tables.write(tables.INDEX, index, "index.tsv")
    with caplog.at_level("WARNING", "mammoflow"):
        made = convert(study)
    assert made["flag"].tolist() == [flag, ""]  # the breast is at the left; the other file gives no picture
    assert ("1 of 2 images are doubtful: side_disagrees" in caplog.text) == bool(flag)


def test_pixels_of_two_instances_are_flagged(study, tmp_path, caplog):
    shutil.copy(tmp_path / "raw/a1.dcm", tmp_path / "raw/a2.dcm")
    with caplog.at_level("WARNING", "mammoflow"):
        made = fresh(study, tmp_path)
    assert made["flag"].tolist() == ["repeated_pixels"] * 2
    assert made["pixel_digest"].nunique() == 1
    assert "2 of 2 images are doubtful: repeated_pixels" in caplog.text
    (tmp_path / "raw/a2.dcm").unlink()
    assert fresh(study, tmp_path)["flag"].tolist() == ["", ""]  # of what was kept, too


def test_labels_are_masked_when_asked(study, breast_picture):
    plain, masked = convert(study).iloc[0], convert(study, mask_labels=True, table="results/m.tsv").iloc[0]
    assert (plain["labels_masked"], masked["labels_masked"]) == (False, True)
    picture = cv2.imread(masked["png"], cv2.IMREAD_UNCHANGED)
    assert not picture[10:30, 160:190].any()  # the label
    inside = breast_picture[:, :150] > 0
    x = breast_picture.astype(float) + 1  # LINEAR by hand
    grey = np.floor(np.round(np.clip(((x - 1999.5) / 3999 + 0.5) * 255, 0, 255), 6) + 0.5)
    assert np.array_equal(picture[:, :150][inside], grey[:, :150][inside])
    edges = [f"breast_{edge}" for edge in ("x1", "y1", "x2", "y2")]
    assert np.abs(masked[edges].astype(float) - plain[edges].astype(float)).max() <= 4


def test_without_a_breast_nothing_says_where_labels_are(study, mammogram):
    label = np.zeros((300, 200))
    label[10:30, 160:190] = 4000
    mammogram(label).save_as("raw/a1.dcm", enforce_file_format=True)
    assert convert(study, mask_labels=True)["reason"].tolist()[0] == "no_breast_to_mask_by"
