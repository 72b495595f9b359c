import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoflow import tables
from mammoflow.errors import ConfigError, DataError, LeakageError
from mammoflow.labels.patients import read_previous, update_patients

HOSPITAL = {"name": "hospital", "role": "internal", "shards": {"annotated": 2, "other": 3}}
OUTSIDE = {"name": "outside", "role": "external", "shards": {"annotated": 0, "other": 2}}
NOBODY = tables.empty(tables.PATIENTS)


def index_row(patient, number=0, **changes):
    template = {
        "dataset": "hospital",
        "image_id": f"{patient}-{number}",
        "status": "ok",
        "reason": "",
        "patient_key": patient,
        "study_key": "",
        "directory_label": "positive" if patient.startswith("m") else "negative",
        "image_laterality": "",
        "view_position": "",
        "rows": 10,
        "columns": 10,
        "bits_stored": 8,
        "photometric_interpretation": "MONOCHROME2",
        "presentation_intent": "",
        "machine": "unknown",
        "transfer_syntax_uid": "",
        "imager_pixel_spacing": None,
        "size": 1,
        "mtime_ns": 1,
        "kind": "",
        "content_digest": "",
    }
    return template | changes


def lesion_row(patient, number=0, **changes):
    template = {
        "dataset": "hospital",
        "image_id": f"{patient}-{number}",
        "lesion_id": f"{patient}-{number}-0",
        "finding": "lesion",
        "pathology": "malignant",
        "lesion_type": "unknown",
        "x1": 1.0,
        "y1": 1.0,
        "x2": 5.0,
        "y2": 5.0,
        "source": "yolo",
        "expert": True,
        "flag": "",
    }
    return template | changes


def update(patients, previous=NOBODY, folds=3, seed=1, datasets=(HOSPITAL,), annotated=None, extra=(), lesions=None):
    """Patients of one image each; those called m... have a malignant frame."""
    framed = [key for key in patients if key.startswith("m")] if annotated is None else annotated
    rows = [index_row(key) for key in patients] + list(extra)
    frames = [lesion_row(key) for key in framed] if lesions is None else lesions
    index, table = tables.from_rows(tables.INDEX, rows), tables.from_rows(tables.LESIONS, frames)
    return update_patients(list(datasets), index, table, folds, seed, previous)


def folds_of(table):
    return dict(zip(table["patient_key"], table["fold"], strict=True))


def names(prefix, count):
    return [f"{prefix}{number:03d}" for number in range(count)]


def test_the_table_fits_its_schema_and_says_who_is_who():
    table = tables.PATIENTS.validate(update([*names("m", 4), *names("n", 5)]))
    row = table.set_index("patient_key").loc
    assert list(row["m000"][["dataset", "role", "label", "annotated"]]) == ["hospital", "internal", "positive", True]
    assert list(row["n000"][["dataset", "role", "label", "annotated"]]) == ["hospital", "internal", "negative", False]
    assert row["m000"]["shard"].startswith("annotated-")
    assert row["n000"]["shard"].startswith("other-")


def test_shards_follow_the_crc_of_the_patient_key():
    # zlib.crc32(b"123456789") is the check value 0xCBF43926 = 3421780262: even, and 2 modulo 3
    table = update([*names("m", 3), "123456789"])
    assert table.set_index("patient_key").loc["123456789", "shard"] == "other-002"
    table = update([*names("m", 3), "123456789", "n1"], lesions=[lesion_row(k) for k in [*names("m", 3), "123456789"]])
    assert table.set_index("patient_key").loc["123456789", "shard"] == "annotated-000"


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_stratum_is_spread_evenly(folds):
    unframed = [index_row(key, directory_label="positive") for key in names("u", 11)]
    table = update([*names("m", 17), *names("n", 23)], folds=folds, extra=unframed)
    for stratum, members in table.groupby(["annotated", "label"]):
        sizes = Counter(members["fold"])
        assert set(sizes) == set(range(folds)), stratum
        assert max(sizes.values()) - min(sizes.values()) <= 1, stratum


@settings(max_examples=12, deadline=None)
@given(
    waves=st.lists(
        st.sets(st.from_regex(r"[mn][0-9]{3}", fullmatch=True), min_size=1, max_size=12), min_size=1, max_size=3
    ),
    seed=st.integers(0, 9),
)
def test_new_patients_move_nobody_and_keep_the_balance(waves, seed):
    present = {*names("m9", 4), *names("n9", 4)}
    before = update(sorted(present), seed=seed)
    for wave in waves:
        present |= wave
        after = update(sorted(present), previous=before, seed=seed)
        assert folds_of(before).items() <= folds_of(after).items()
        old = after[after["patient_key"].isin(before["patient_key"])].reset_index(drop=True)
        assert old["shard"].tolist() == before["shard"].tolist()
        for _, members in after.groupby("annotated"):
            sizes = members["fold"].value_counts().reindex(range(3), fill_value=0)
            assert sizes.max() - sizes.min() <= 1
        before = after


def test_the_order_of_the_rows_changes_nothing_and_the_seed_does():
    people = [*names("m", 12), *names("n", 12)]
    assert update(people).equals(update(people[::-1]))
    assert any(folds_of(update(people)) != folds_of(update(people, seed=seed)) for seed in (2, 3, 4))


def test_a_patient_who_becomes_annotated_keeps_the_fold_and_changes_the_group():
    people = [*names("m", 6), *names("n", 5)]
    before = update(people, annotated=names("m", 5)).set_index("patient_key")
    after = update(people, previous=before.reset_index()[list(tables.PATIENTS.columns)]).set_index("patient_key")
    assert before["fold"].to_dict() == after["fold"].to_dict()
    assert before.loc["m005", "shard"].startswith("other-")
    assert after.loc["m005", "shard"].startswith("annotated-")


def test_who_left_the_index_disappears_and_may_come_back():
    people = [*names("m", 6), *names("n", 6)]
    before = update(people)
    without = update([key for key in people if key != "n003"], previous=before)
    assert "n003" not in set(without["patient_key"])
    assert folds_of(without).items() <= folds_of(before).items()


def test_patients_without_a_usable_image_are_no_patients():
    table = update([*names("m", 3), "n1"], extra=[index_row("n2", status="excluded", reason="not_dicom")])
    assert "n2" not in set(table["patient_key"])


def test_another_number_of_folds_assigns_all_anew(caplog):
    people = [*names("m", 8), *names("n", 8)]
    before = update(people, folds=3)
    with caplog.at_level(logging.WARNING, "mammoflow"):
        more, fewer = update(people, previous=before, folds=4), update(people, previous=before, folds=2)
    assert folds_of(more) == folds_of(update(people, folds=4))
    assert folds_of(fewer) == folds_of(update(people, folds=2))
    assert "all patients get new folds" in caplog.text


def test_a_positive_image_makes_the_patient_positive():
    mixed = [index_row("n000", 1, directory_label="positive"), index_row("x", directory_label="unknown")]
    labels = update([*names("m", 3), *names("n", 2)], extra=mixed).set_index("patient_key")["label"]
    assert (labels["n000"], labels["n001"], labels["x"]) == ("positive", "negative", "unknown")


def test_only_lesions_that_teach_make_a_patient_annotated():
    frames = [lesion_row(key) for key in names("m", 3)]
    frames += [
        lesion_row("n000", finding="nipple", pathology="", lesion_type="nipple"),
        lesion_row("n001", expert=False),
    ]
    table = update([*names("m", 3), *names("n", 3)], lesions=frames)
    assert set(table.loc[table["annotated"], "patient_key"]) == set(names("m", 3))


def outside(key):
    return index_row(key, dataset="outside", image_id=f"outside-{key}")


def test_external_patients_have_fold_minus_one_and_no_annotated_shard():
    frames = [*(lesion_row(key) for key in names("m", 3)), lesion_row("m9", dataset="outside", image_id="outside-m9")]
    table = update([*names("m", 3), "n1"], datasets=[HOSPITAL, OUTSIDE], extra=[outside("m9")], lesions=frames)
    row = table.set_index("patient_key").loc["m9"]
    assert (row["role"], row["fold"], row["annotated"]) == ("external", -1, True)
    assert row["shard"].startswith("other-")


def test_a_patient_of_two_internal_data_sets_has_one_fold():
    other = {**HOSPITAL, "name": "outside"}
    people = [*names("m", 6), *names("n", 6)]
    table = update(people, datasets=[HOSPITAL, other], extra=[outside(key) for key in people])
    assert len(table) == 2 * len(people)
    assert (table.groupby("patient_key")["fold"].nunique() == 1).all()
    assert set(table.loc[table["dataset"] == "outside", "shard"].str[:5]) == {"other"}


def test_a_patient_may_not_be_internal_and_external():
    with pytest.raises(
        LeakageError, match=r"1 patients are in an internal and in an external data set, first m001 \(hosp"
    ):
        update([*names("m", 3), "n1"], datasets=[HOSPITAL, OUTSIDE], extra=[outside("m001")])


def test_an_external_data_set_that_becomes_internal_gets_folds():
    frames = [lesion_row(key) for key in names("m", 3)]
    setting = {"extra": [outside("n9")], "lesions": frames}
    before = update([*names("m", 3), "n1"], datasets=[HOSPITAL, OUTSIDE], **setting)
    after = update(
        [*names("m", 3), "n1"], datasets=[HOSPITAL, {**OUTSIDE, "role": "internal"}], previous=before, **setting
    )
    assert folds_of(before)["n9"] == -1
    assert folds_of(after)["n9"] in (0, 1, 2)


def test_fewer_annotated_patients_than_folds_are_refused():
    with pytest.raises(ConfigError, match=r"labels\.folds is 3, but only 2 patients have annotated lesions"):
        update([*names("m", 2), "n1"])


def test_no_annotated_lesion_is_refused():
    with pytest.raises(DataError, match=r"empty class `lesion`.*labels\.expert_classes"):
        update([*names("m", 3), "n1"], annotated=[])


def test_no_negative_patient_is_refused():
    with pytest.raises(DataError, match=r"empty class `negative`.*directories"):
        update(names("m", 3))


def test_an_image_without_patient_is_refused():
    with pytest.raises(DataError, match="1 usable images of data set `hospital` have no patient"):
        update([*names("m", 3), "n1"], extra=[index_row("", image_id="lost")])


def test_a_group_of_patients_without_shard_is_refused():
    with pytest.raises(ConfigError, match=r"shards\.annotated of data set `hospital` is 0"):
        update([*names("m", 3), "n1"], datasets=[{**HOSPITAL, "shards": {"annotated": 0, "other": 1}}])


def test_a_fold_that_lost_its_annotated_patients_is_refused():
    people = [*names("m", 4), *names("n", 4)]
    before = update(people)
    lone = next(fold for fold in range(3) if sum(before.loc[before["annotated"], "fold"] == fold) == 1)
    gone = set(before.loc[before["annotated"] & (before["fold"] == lone), "patient_key"])
    with pytest.raises(DataError, match=rf"fold {lone} has no patient with annotated lesions left"):
        update([key for key in people if key not in gone], previous=before)


def test_the_previous_table_is_read_or_empty(tmp_path):
    path = tmp_path / "patients.tsv"
    assert len(read_previous(path)) == 0
    table = update([*names("m", 3), "n1"])
    tables.write(tables.PATIENTS, table, path)
    assert read_previous(path).equals(table)
