import pytest

from mammoflow import tables
from mammoflow.errors import DataError, LeakageError
from mammoflow.labels.leakage import check


def patient(key, fold, dataset="hospital"):
    return {
        "dataset": dataset,
        "patient_key": key,
        "role": "external" if fold < 0 else "internal",
        "label": "negative",
        "annotated": False,
        "fold": fold,
        "shard": "other-000",
    }


def image(number, key, digest, dataset="hospital", **changes):
    template = {
        "dataset": dataset,
        "image_id": f"i{number}",
        "patient_key": key,
        "status": "ok",
        "reason": "",
        **dict.fromkeys(("png", "train_png", "transform", "window"), ""),
        "width": 10,
        "height": 10,
        "pixel_digest": digest,
        **{f"breast_{edge}": None for edge in ("x1", "y1", "x2", "y2")},
        **{f"grey_p{p}": 1.0 for p in ("05", "50", "95")},
        "flag": "",
        "labels_masked": False,
    }
    return template | changes


def run(images, patients):
    return check(tables.from_rows(tables.IMAGES, images), tables.from_rows(tables.PATIENTS, patients))


PEOPLE = [
    patient("p0", 0),
    patient("p1", 0),
    patient("p2", 1),
    patient("x1", -1, "outside"),
    patient("x2", -1, "outside"),
]


def test_nothing_repeated_gives_an_empty_table():
    table = run([image(0, "p0", "a"), image(1, "p2", "b")], PEOPLE)
    assert len(table) == 0
    assert list(tables.DUPLICATES.validate(table).columns) == ["dataset", "image_id", "pixel_digest", "fold"]


def test_repeats_within_a_fold_are_listed():
    images = [image(0, "p0", "b"), image(1, "p1", "b"), image(2, "p0", "a"), image(3, "p2", "c")]
    images += [image(4, "x1", "e", "outside"), image(5, "x2", "e", "outside")]
    table = run(images, PEOPLE)
    assert table.to_numpy().tolist() == [
        ["hospital", "i0", "b", 0],
        ["hospital", "i1", "b", 0],
        ["outside", "i4", "e", -1],
        ["outside", "i5", "e", -1],
    ]


def test_the_same_pixels_in_two_folds_are_refused():
    message = r"image i1 of patient p0, hospital fold 0; image i2 of patient p2, hospital fold 1.*remove the copies"
    with pytest.raises(LeakageError, match=message):
        run([image(1, "p0", "a"), image(2, "p2", "a")], PEOPLE)


def test_the_same_pixels_inside_and_outside_are_refused():
    with pytest.raises(LeakageError, match=r"1 pictures are in two folds.*patient x1, outside fold -1"):
        run([image(1, "p0", "a"), image(2, "x1", "a", "outside")], PEOPLE)


def test_a_patient_in_two_folds_is_refused():
    with pytest.raises(LeakageError, match=r"1 patients are in two folds, first p0 \(hospital fold 0, other fold 1\)"):
        run([], [*PEOPLE, patient("p0", 1, "other")])


def test_a_patient_inside_and_outside_is_refused():
    with pytest.raises(LeakageError, match="first p0"):
        run([], [*PEOPLE, patient("p0", -1, "outside")])


def test_images_without_picture_are_left_aside():
    assert len(run([image(0, "p0", ""), image(1, "p2", "", status="excluded", reason="x")], PEOPLE)) == 0


def test_an_image_of_a_patient_without_fold_is_refused():
    with pytest.raises(DataError, match="image i0: its patient has no fold"):
        run([image(0, "stranger", "a")], PEOPLE)
