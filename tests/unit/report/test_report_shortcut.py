import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mammoflow.report import classification, shortcut
from mammoflow.report.bootstrap import Resamples
from mammoflow.report.roc import roc_auc


def crops(count=120, seed=0, **columns):
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(count) < 0.5, "malignant", "benign")
    table = pd.DataFrame({name: rng.normal(size=count) for name in shortcut.NUMBERS})
    return table.assign(machine=rng.choice(["a", "b"], count), label=label, fold=np.arange(count) % 3, **columns)


def auc(table):
    return roc_auc((table["label"] == "malignant").to_numpy(), shortcut.probabilities(table).to_numpy())


def test_a_shortcut_is_found_and_noise_is_not():
    noise = crops()
    assert 0.3 < auc(noise) < 0.7
    framed_larger = noise.assign(log_area=noise["log_area"] + 3 * (noise["label"] == "malignant"))
    assert auc(framed_larger) > 0.9
    one_machine = noise.assign(machine=np.where(noise["label"] == "malignant", "a", "b"))
    assert auc(one_machine) == 1


def test_a_crop_is_never_judged_by_a_model_that_saw_its_fold():
    table = crops()
    first = shortcut.probabilities(table)
    flipped = table.copy()
    own = table["fold"] == 1
    flipped.loc[own, "label"] = np.where(table.loc[own, "label"] == "malignant", "benign", "malignant")
    again = shortcut.probabilities(flipped)
    np.testing.assert_allclose(first[own], again[own])
    assert not np.allclose(first[~own], again[~own])


def test_nested_crops_teach_in_place_of_those_that_are_judged():
    table, fold = crops(), 1
    own = table["fold"] == fold
    nested = crops(seed=5).query("fold != 1")
    judged = shortcut.probabilities(table, {fold: nested})
    model = shortcut.baseline().fit(nested[shortcut.FEATURES], nested["label"] == "malignant")
    np.testing.assert_allclose(judged[own], model.predict_proba(table.loc[own, shortcut.FEATURES])[:, 1])
    np.testing.assert_allclose(judged[~own], shortcut.probabilities(table)[~own])


def test_external_crops_teach_nothing():
    internal, external = crops(), crops(40, seed=1, dataset="outside").assign(fold=-1, machine="unseen")
    both = pd.concat([internal, external], ignore_index=True)
    judged = shortcut.probabilities(both)
    np.testing.assert_allclose(judged[: len(internal)], shortcut.probabilities(internal))
    assert judged[len(internal) :].notna().all()


def test_missing_scores_and_one_class():
    table = crops()
    no_scores = table.assign(score=np.where(np.arange(len(table)) % 2, np.nan, table["score"]))
    assert shortcut.probabilities(no_scores).notna().all()
    assert shortcut.probabilities(table.assign(score=np.nan)).notna().all()
    assert shortcut.probabilities(table.assign(label="benign")).isna().all()


def test_mean_grey(tmp_path):
    Image.fromarray(np.array([[0, 100], [100, 200]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert shortcut.mean_grey(tmp_path / "a.png") == 100
    assert np.isnan(shortcut.mean_grey(tmp_path / "none.png"))


def test_the_lead_is_paired():
    rng = np.random.default_rng(0)
    count = 200
    malignant = np.arange(count) % 2 == 0
    rows = pd.DataFrame(
        {
            "label": np.where(malignant, "malignant", "benign"),
            "patient_key": [f"p{i:03d}" for i in range(count)],
            "calibrated": rng.normal(malignant * 1.0, 1),
            "fold": 0,
        }
    )
    resamples = Resamples.draw(rows["patient_key"], 200, seed=1)
    same = classification.shortcut_lead(rows.assign(shortcut=rows["calibrated"]), resamples)
    assert (same["difference"]["value"], same["difference"]["low"], same["difference"]["high"]) == (0, 0, 0)
    assert same["clearly_better"] is False
    better = classification.shortcut_lead(rows.assign(shortcut=rng.normal(size=count)), resamples)
    assert better["clearly_better"] is True
    assert better["difference"]["value"] == pytest.approx(
        roc_auc(malignant, rows["calibrated"].to_numpy()) - better["roc_auc"]["value"], abs=1e-5
    )
    hidden = classification.masked_lead(rows.assign(masked=rng.normal(malignant * 1.0, 1)), resamples)
    assert hidden["clearly_better"] is False
    assert hidden["roc_auc"]["count"] == count
