import dataclasses

import pandas as pd
import pytest
from fabricated import fabricate

from mammoflow import tables
from mammoflow.report import audit
from mammoflow.report.study import load


@pytest.fixture
def rows():
    table = pd.DataFrame(
        [
            ("i1", "malignant", "CC", "a", 10.0, "mass_spiculated"),
            ("i2", "malignant", "MLO", "a", 20.0, "calcifications"),
            ("i3", "benign", "CC", "a", 30.0, "calcifications"),
            ("i4", "benign", "CC", "b", 200.0, "no lesion"),
            ("i4", "benign", "CC", "b", 200.0, "no lesion"),
            ("i5", "benign", "", "b", float("nan"), "no lesion"),
        ],
        columns=["image_id", "label", "view_position", "machine", "grey_p50", "content"],
    )
    return table.assign(dataset="d", density=["a", "b", "b", "a", "a", None])


def test_groups_by_hand(rows):
    found = {(attribute, group): part.index.tolist() for attribute, group, part in audit.groups(rows)}
    assert found == {
        ("view_position", "CC"): [0, 2, 3, 4],
        ("view_position", "MLO"): [1],
        ("view_position", "unknown"): [5],
        ("density", "a"): [0, 3, 4],
        ("density", "b"): [1, 2],
        ("density", "not known"): [5],
        ("brightness", "darkest third"): [0],
        ("brightness", "middle third"): [1],
        ("brightness", "brightest third"): [2, 3, 4],  # a machine's only image is its brightest
        ("malignant_type", "calcifications"): [1, 2, 3, 4, 5],
        ("malignant_type", "mass_spiculated"): [0, 2, 3, 4, 5],
        ("benign_content", "calcifications"): [0, 1, 2],
        ("benign_content", "no lesion"): [0, 1, 3, 4, 5],
    }


def test_content_is_the_lesion_that_the_frame_finds(made_up):
    found = audit.described(made_up, "out_of_fold").set_index("crop_id")["content"]
    crops = made_up.crops.set_index("crop_id")
    assert set(found[crops["label"] == "malignant"]) <= {"mass_spiculated", "mass_ill_defined", "calcifications"}
    assert "no lesion" in set(found[crops["label"] == "benign"])
    assert "mass_circumscribed" in set(found[crops["label"] == "benign"])


def test_every_crop_has_its_groups(made_up_metrics):
    entry = made_up_metrics["classification"][0]
    for attribute in ("view_position", "density", "brightness"):
        parts = [row for row in entry["by_group"] if row["attribute"] == attribute]
        assert sum(row["crops"] for row in parts) == entry["crops"]
    assert {row["attribute"] for row in entry["by_group"]} == {
        "view_position", "density", "brightness", "malignant_type", "benign_content",
    }  # fmt: skip
    assert {row["group"] for row in entry["by_group"] if row["attribute"] == "density"} == {"a", "b"}
    outside = next(one for one in made_up_metrics["classification"] if one["role"] == "external")
    assert {row["group"] for row in outside["by_group"] if row["attribute"] == "density"} == {"not known"}


def test_the_baseline_learns_from_the_crops_that_taught_the_classifier_of_the_fold(made_up):
    fold, protocol = 1, "out_of_fold"
    crops = made_up.crops[made_up.crops["protocol"] == protocol]
    own = crops.set_index(["dataset", "crop_id"])["fold"] == fold
    flipped = crops[crops["fold"].isin([0, 2])].assign(
        label=lambda rows: rows["label"].map({"malignant": "benign", "benign": "malignant"})
    )
    plain = audit.described(made_up, protocol).set_index(["dataset", "crop_id"])["shortcut"]
    nested = dataclasses.replace(made_up, nested={fold: flipped})
    taught = audit.described(nested, protocol).set_index(["dataset", "crop_id"])["shortcut"]
    assert own.any()
    assert taught[own].to_numpy() == pytest.approx(1 - plain[own].to_numpy(), abs=1e-3)
    assert taught[~own].equals(plain[~own])
    if "paper" in set(made_up.crops["protocol"]):
        assert audit.described(nested, "paper").equals(audit.described(made_up, "paper"))


def test_nested_crops_are_loaded_by_their_fold(settings, made_up, tmp_path):
    paths = fabricate(tmp_path / "study")
    assert load(settings, paths).nested == {}
    crops = made_up.crops.iloc[:3]
    tables.write(tables.CROPS, crops, tmp_path / "nested.tsv")
    found = load(settings, paths | {"nested1": [str(tmp_path / "nested.tsv")]}).nested
    assert list(found) == [1]
    assert list(found[1]["crop_id"]) == list(crops["crop_id"])
