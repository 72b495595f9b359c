import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from mammoflow import tables
from mammoflow.classify.data import (
    Part,
    augment,
    class_weights,
    inner_parts,
    lacking_class,
    load_part,
    mask_center,
    read_crop,
    stack,
    training_rows,
)
from mammoflow.errors import DataError, LeakageError

STILL = {"rotation": 0, "translation": 0, "scale": 0, "contrast": 0, "brightness": 0}


def rows_of(*patients):
    """(patient, fold, label, count) -> rows with the columns that splitting needs."""
    rows = [
        {"dataset": "hospital", "crop_id": f"{patient}-{n}", "patient_key": patient, "fold": fold, "label": label}
        for patient, fold, label, count in patients
        for n in range(count)
    ]
    return pd.DataFrame(rows)


def test_training_rows_leave_the_fold_out_and_ignore_the_order_of_shards(make_crops):
    first, second = make_crops()
    forward = training_rows(tables.read_all(tables.CROPS, [first, second]), 1)
    backward = training_rows(tables.read_all(tables.CROPS, [second, first]), 1)
    assert set(forward["fold"]) == {0, 2}
    assert len(forward) == 16
    pd.testing.assert_frame_equal(forward, backward)


def test_patient_on_both_sides_of_the_fold_is_refused():
    rows = rows_of(("a", 0, "benign", 2), ("b", 1, "malignant", 1), ("a", 1, "benign", 1))
    with pytest.raises(LeakageError, match=r"1 patients are in both .* fold 1 \(first: a\)"):
        training_rows(rows, 1)


def test_external_patient_never_teaches():
    rows = rows_of(("a", 0, "benign", 2), ("b", 0, "malignant", 1), ("x", -1, "benign", 1))
    with pytest.raises(LeakageError, match="external patients"):
        training_rows(rows, 1)


@pytest.mark.parametrize(
    ("label", "counts", "mend"),
    [
        ("malignant", "0 benign, 3 malignant", "no benign crop.*false_frames_per_image"),
        ("benign", "3 benign, 0 malignant", "no malignant crop.*match_iou"),
    ],
)
def test_an_empty_class_is_said_with_counts_and_mend(label, counts, mend):
    said = lacking_class(training_rows(rows_of(("a", 0, label, 3), ("b", 1, "benign", 1)), 1))
    assert re.search(mend, said)
    assert counts in said


def test_two_classes_lack_nothing():
    assert lacking_class(rows_of(("a", 0, "malignant", 1), ("b", 1, "benign", 1))) == ""


def part_of(*patients):
    rows = rows_of(*patients)
    labels = (rows["label"] == "malignant").to_numpy().astype(np.int64)
    return Part(rows, np.arange(len(rows), dtype=np.uint8)[:, None, None], labels)


def patients_in(part):
    return set(part.rows["patient_key"])


def test_inner_parts_judge_every_crop_once_and_never_by_its_patient():
    whole = part_of(
        *((f"m{n}", 0, "malignant", 1 + n % 3) for n in range(9)), *((f"b{n}", 0, "benign", 2) for n in range(20))
    )
    pairs = inner_parts(whole, 3, seed=1)
    assert len(pairs) == 3
    assert sorted(np.concatenate([judged.crops.ravel() for _, judged in pairs])) == list(range(len(whole)))
    for learned, judged in pairs:
        assert not patients_in(learned) & patients_in(judged)
        assert len(learned) + len(judged) == len(whole)
        kinds = judged.rows.drop_duplicates("patient_key")["label"].value_counts()
        assert kinds["malignant"] == 3
        assert kinds["benign"] in (6, 7)
        assert (judged.labels == (judged.rows["label"] == "malignant")).all()


def test_inner_parts_depend_on_the_seed_and_not_on_the_order():
    patients = [*((f"m{n}", 0, "malignant", 1) for n in range(9)), *((f"b{n}", 0, "benign", 1) for n in range(9))]
    first = [patients_in(judged) for _, judged in inner_parts(part_of(*patients), 3, seed=1)]
    assert first == [patients_in(judged) for _, judged in inner_parts(part_of(*patients[::-1]), 3, seed=1)]
    assert first != [patients_in(judged) for _, judged in inner_parts(part_of(*patients), 3, seed=2)]


def test_few_patients_give_fewer_inner_parts():
    patients = [("m0", 0, "malignant", 1), ("m1", 0, "malignant", 2), *((f"b{n}", 0, "benign", 1) for n in range(5))]
    assert len(inner_parts(part_of(*patients), 4, seed=1)) == 2


@pytest.mark.parametrize(
    "patients",
    [
        [("m", 0, "malignant", 3), ("b0", 0, "benign", 1), ("b1", 0, "benign", 1)],
        # Every patient has a malignant crop; the benign ones all come from one of them.
        [("m0", 0, "malignant", 1), ("m1", 0, "malignant", 1), ("m1", 0, "benign", 1)],
    ],
)
def test_too_few_patients_give_no_inner_parts(patients):
    assert inner_parts(part_of(*patients), 3, seed=1) == []


def test_no_inner_parts_when_none_are_asked_for():
    patients = [*((f"m{n}", 0, "malignant", 1) for n in range(5)), *((f"b{n}", 0, "benign", 1) for n in range(5))]
    assert inner_parts(part_of(*patients), 0, seed=1) == []


def test_class_weights_by_hand_and_against_sklearn():
    labels = np.array([0] * 6 + [1] * 2)
    assert class_weights(labels).tolist() == pytest.approx([8 / 12, 8 / 4])  # N / (2 * N_class)
    assert class_weights(labels).tolist() == pytest.approx(
        compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    )


def test_augment_without_reach_only_mirrors():
    crops = torch.arange(36.0).reshape(1, 1, 6, 6).repeat(40, 1, 1, 1) / 36
    varied = augment(crops, STILL, torch.Generator().manual_seed(0))
    mirrored = [crops[0], crops[0].flip(1), crops[0].flip(2), crops[0].flip(1, 2)]
    seen = [next(i for i, known in enumerate(mirrored) if torch.allclose(crop, known, atol=1e-5)) for crop in varied]
    assert set(seen) == {0, 1, 2, 3}


def test_augment_shifts_by_at_most_the_share_of_the_side():
    crops = torch.zeros(200, 1, 41, 41)
    crops[:, :, 20, 20] = 1.0
    varied = augment(crops, STILL | {"translation": 0.1}, torch.Generator().manual_seed(0))
    offsets = torch.tensor([[(crop[0] == crop.max()).nonzero()[0].tolist()] for crop in varied])[:, 0] - 20
    assert offsets.abs().max() == 4  # 0.1 * 41 px, rounded
    assert offsets.min() < -2 < 2 < offsets.max()


def test_augment_brightness_and_contrast_by_hand():
    crops = torch.tensor([0.4, 0.6]).repeat(100, 1, 2, 1)
    flat = augment(crops, STILL | {"brightness": 0.1}, torch.Generator().manual_seed(0))
    assert 0.08 < (flat.mean(dim=(1, 2, 3)) - 0.5).abs().max() <= 0.1
    steep = augment(crops, STILL | {"contrast": 0.5}, torch.Generator().manual_seed(0))
    spread = steep.amax(dim=(1, 2, 3)) - steep.amin(dim=(1, 2, 3))
    assert 0.1 <= spread.min() < 0.12
    assert 0.28 < spread.max() <= 0.3
    assert torch.allclose(steep.mean(dim=(1, 2, 3)), torch.tensor(0.5), atol=1e-6)


def test_part_holds_pictures_and_labels(make_crops):
    rows = tables.read_all(tables.CROPS, make_crops(patients=3))
    part = load_part(rows, 16)
    assert part.crops.shape == (6, 16, 16)
    assert part.crops.dtype == np.uint8
    assert [("benign", "malignant")[label] for label in part.labels] == rows["label"].tolist()


def test_unreadable_crop_is_named(tmp_path):
    (tmp_path / "crop.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"crop\.png"):
        read_crop(tmp_path / "crop.png")


def test_masked_centre_by_hand():
    crop = np.full((8, 12), 40, np.uint8)
    crop[2:6, 3:9] = 250  # the middle half of each side
    crop[0, 0] = 112  # 96 - 24 pixels are around: their mean is 41
    masked = mask_center(crop)
    assert (masked[2:6, 3:9] == 41).all()
    outside = np.ones(crop.shape, bool)
    outside[2:6, 3:9] = False
    assert (masked[outside] == crop[outside]).all()
    assert crop[3, 4] == 250


def test_eight_bits_beside_sixteen_become_sixteen():
    both = stack([np.full((2, 2), 255, np.uint8), np.full((2, 2), 65535, np.uint16)])
    assert both.dtype == np.uint16
    assert (both == 65535).all()
    assert stack([np.zeros((2, 2), np.uint8)]).dtype == np.uint8
