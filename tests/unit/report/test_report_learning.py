from dataclasses import replace

import numpy as np
import pytest

from mammoflow import tables
from mammoflow.report import learning
from mammoflow.report.detection import hit_rule, judged_on
from mammoflow.report.froc import froc
from mammoflow.report.page import _learning
from mammoflow.report.study import framed

FOLDS = range(3)


@pytest.fixture
def cohort(made_up):
    return made_up.cohorts[0]


def of_folds(study, left_out):
    """Detections of the internal images of all folds but one."""
    patients = study.patients[["dataset", "patient_key", "fold"]]
    rows = study.detections.merge(patients, on=["dataset", "patient_key"])
    return rows[rows["fold"].between(0, 9) & (rows["fold"] != left_out)].drop(columns="fold")


@pytest.fixture
def same(made_up):
    """Nested detections that are those of the whole study."""
    return {fold: of_folds(made_up, fold) for fold in FOLDS}


@pytest.fixture
def worse(same):
    """Nested detections, every second one lost and the scores turned round in part."""
    rng = np.random.default_rng(5)
    lost = {fold: found.iloc[fold::2] for fold, found in same.items()}
    return {fold: found.assign(score=rng.uniform(0, 1, len(found)).round(3)) for fold, found in lost.items()}


def test_detectors_that_find_the_same_gain_nothing(made_up, same, cohort):
    rows = list(learning.measure(made_up, same.items(), cohort))
    assert len(rows) == 2 * 4
    for row in rows:
        assert row["fewer_value"] == row["more_value"] > 0
        assert [row[f"gain_{end}"] for end in ("value", "low", "high")] == [0, 0, 0]
        assert [row[f"fewer_{end}"] for end in ("low", "high")] == [row[f"more_{end}"] for end in ("low", "high")]


def test_sensitivities_are_those_of_a_search_over_all_thresholds(made_up, worse, cohort):
    for row in learning.measure(made_up, worse.items(), cohort):
        parts = [
            judged_on(learning.going_without(made_up, fold, found), "yolov6n", cohort, row["truth"], hit_rule(made_up))
            for fold, found in worse.items()
        ]
        images = sum(len(part.image_patient) for part in parts)
        best = 0.0
        for threshold in {score for part in parts for score in part.score}:
            false = sum((part.false_positive & (part.score >= threshold)).sum() for part in parts)
            if false <= row["false_positives_per_image"] * images:
                found = sum((part.lesion_score >= threshold).sum() for part in parts)
                best = max(best, found / sum(len(part.lesion_score) for part in parts))
        assert row["fewer_value"] == pytest.approx(best, abs=1e-6)
        assert row["gain_value"] == pytest.approx(row["more_value"] - best, abs=2e-6)
        assert row["gain_low"] < row["gain_value"] < row["gain_high"]


def test_the_others_are_the_reports_own_froc(made_up, worse, cohort):
    settings = made_up.settings["report"]
    for truth in ("expert", "any_lesion"):
        judged = judged_on(made_up, "yolov6n", cohort, truth, hit_rule(made_up))
        own = froc(judged, settings["false_positives_per_image"], settings["bootstrap"], made_up.settings["seed"])
        rows = [row for row in learning.measure(made_up, worse.items(), cohort) if row["truth"] == truth]
        for row, point in zip(rows, own["points"], strict=True):
            assert point["false_positives_per_image"] == row["false_positives_per_image"]
            expected = [point["sensitivity"][end] for end in ("value", "low", "high", "count")]
            assert [row["more_value"], row["more_low"], row["more_high"], row["lesions"]] == expected


def test_images_of_the_fold_left_out_count_in_nothing(made_up, same, cohort):
    """Of each image there are as many as there are other folds, and what is said of the fold left out is not heard."""
    whole = judged_on(made_up, "yolov6n", cohort, "any_lesion", hit_rule(made_up))
    every = [
        judged_on(learning.going_without(made_up, fold, made_up.detections), "yolov6n", cohort, "any_lesion",
                  hit_rule(made_up))
        for fold in FOLDS
    ]  # fmt: skip
    pool = learning.pooled(every)
    assert len(pool.image_patient) == 2 * len(whole.image_patient)
    assert sorted(pool.score) == sorted(np.repeat(whole.score, 2))
    assert sorted(pool.lesion_score) == sorted(np.repeat(whole.lesion_score, 2))
    assert (np.diff(pool.score) <= 0).all()
    assert pool.false_positive.sum() == 2 * whole.false_positive.sum()


def test_lesions_that_teach_are_counted_as_folds_are_left_out(made_up, same, cohort):
    """Counted one by one: lesions of the other folds, mean over folds and over pairs of folds."""
    lesions = framed(cohort.of(made_up.expert_lesions)).merge(made_up.pictures[["dataset", "image_id", "fold"]])
    of_fold = [int((lesions["fold"] == fold).sum()) for fold in FOLDS]
    (row, *_) = learning.measure(made_up, same.items(), cohort)
    assert row["more_taught"] == pytest.approx(np.mean([sum(of_fold) - of_fold[fold] for fold in FOLDS]))
    pairs = [(one, other) for one in FOLDS for other in FOLDS if one < other]
    assert row["fewer_taught"] == pytest.approx(np.mean([sum(of_fold) - of_fold[a] - of_fold[b] for a, b in pairs]))
    assert row["gain_taught"] == pytest.approx(row["more_taught"] - row["fewer_taught"])


def test_table_is_written_and_shown(made_up, worse, tmp_path):
    for fold, found in worse.items():
        tables.write(tables.DETECTIONS, found, tmp_path / f"{fold}.tsv")
    learning.write(made_up, {fold: str(tmp_path / f"{fold}.tsv") for fold in FOLDS}, tmp_path / "learning.tsv")
    shown = _learning(tmp_path / "learning.tsv")
    assert [(row["truth"], row["name"]) for row in shown] == [
        (truth, name) for truth in ("expert", "any_lesion") for name in ("fewer", "more", "gain")
    ]
    found = tables.read(tables.LEARNING, tmp_path / "learning.tsv")
    assert shown[2]["values"][0].startswith(f"{found['gain_value'].iloc[0]:+.2f} [")
    assert _learning(None) == []


def test_without_nested_crops_there_is_no_row(made_up, tmp_path):
    learning.write(made_up, {}, tmp_path / "learning.tsv")
    assert tables.read(tables.LEARNING, tmp_path / "learning.tsv").empty
    assert _learning(tmp_path / "learning.tsv") == []


def test_without_a_lesion_there_is_nothing_to_say(made_up, same, cohort, tmp_path):
    bare = replace(made_up, lesions=made_up.lesions.iloc[:0], truths=made_up.truths.iloc[:0])
    rows = list(learning.measure(bare, same.items(), cohort))
    assert {row["fewer_value"] for row in rows} == {row["gain_value"] for row in rows} == {None}
    table = tmp_path / "learning.tsv"
    tables.write(tables.LEARNING, tables.from_rows(tables.LEARNING, rows), table)
    assert {value for row in _learning(table) for value in row["values"]} == {"none (nothing to count)"}
