import numpy as np
import pandas as pd
import pytest
from test_report_detection import ELSEWHERE, SPOT, Hand

from mammoflow import tables
from mammoflow.report import two_stage


class Judged(Hand):
    """A study by hand whose frames a classifier judged."""

    def __init__(self):
        super().__init__()
        self.frames = []

    def view(self, name, patient, side, directory):
        self.image(name, directory)
        self.rows["patients"].pop()
        for table in ("indices", "images"):
            self.rows[table][-1]["patient_key"] = patient
        self.rows["indices"][-1]["image_laterality"] = side

    def frame(self, name, score, calibrated, patient):
        row = {"dataset": "hospital", "image_id": name, "patient_key": patient, "detector": "yolov6n", "accepted": True,
               "detection_id": f"d{len(self.frames)}", "fold": 0, "protocol": "out_of_fold", "classifier": "resnet50",
               "score": score, "x1": 1, "y1": 1, "x2": 2, "y2": 2, "probability": calibrated, "calibrated": calibrated,
               "model_fold": 0, "model_digest": "m"}  # fmt: skip
        self.frames.append(row)

    def of(self, study_of):
        patients = {row["patient_key"]: row["directory_label"] for row in self.rows["indices"]}
        self.rows["patients"] = [
            {"dataset": "hospital", "patient_key": key, "role": "internal", "label": label, "annotated": False,
             "fold": number % 2, "shard": "other-000"}
            for number, (key, label) in enumerate(patients.items())
        ]  # fmt: skip
        return study_of(**self.tables(), judged_frames=tables.from_rows(tables.FRAMES, self.frames))


@pytest.fixture
def study(study_of):
    """Patient p: malignant right breast, seen in one of two views; n: negative; q: positive, lesion unknown."""
    made = Judged()
    made.view("prcc", "p", "R", "positive")
    made.lesion("prcc", SPOT)
    made.view("prmlo", "p", "R", "positive")
    made.view("plcc", "p", "L", "positive")
    made.view("nrcc", "n", "R", "negative")
    made.lesion("nrcc", ELSEWHERE, "benign")
    made.view("nx", "n", "", "negative")
    made.view("qrcc", "q", "R", "positive")
    made.frame("prcc", 0.5, 0.8, "p")
    made.frame("prcc", 0.9, 0.2, "p")
    made.frame("prmlo", 0.6, 0.5, "p")
    made.frame("nrcc", 0.7, 0.1, "n")
    made.frame("nx", 0.2, 0.9, "n")
    made.frame("qrcc", 0.9, 0.9, "q")
    return made.of(study_of)


def test_images_by_hand(study):
    rows = two_stage.image_scores(study, "out_of_fold", "resnet50").set_index("image_id")
    assert rows["label"].to_dict() == {
        "prcc": "malignant", "prmlo": "benign", "plcc": "benign", "nrcc": "benign", "nx": "benign", "qrcc": "",
    }  # fmt: skip
    # the largest product, not the product of the largest
    assert rows["two_stage"].to_dict() == pytest.approx(
        {"prcc": 0.4, "prmlo": 0.3, "plcc": 0, "nrcc": 0.07, "nx": 0.18, "qrcc": 0.81}
    )
    assert rows.loc["prcc", ["detector", "classifier"]].tolist() == [0.9, 0.8]
    assert rows.loc["plcc", ["detector", "classifier"]].tolist() == [0, 0]


def test_breasts_and_patients_by_hand(study):
    images = two_stage.image_scores(study, "out_of_fold", "resnet50")
    breasts, left_out = two_stage.grouped(images, "breast")
    assert left_out == 1  # of patient q, unknown
    assert sorted(zip(breasts["patient_key"], breasts["image_laterality"], breasts["label"], strict=True)) == [
        ("n", "R", "benign"), ("p", "L", "benign"), ("p", "R", "malignant"),
    ]  # fmt: skip
    patients, left_out = two_stage.grouped(images, "patient")
    assert patients.set_index("patient_key")["label"].to_dict() == {"n": "benign", "p": "malignant"}
    assert patients.set_index("patient_key")["two_stage"].to_dict() == pytest.approx({"n": 0.18, "p": 0.4})
    assert left_out == 1


def test_figures_by_hand(study):
    entry = two_stage.measure(study, "out_of_fold", "resnet50", study.cohorts[0])
    image, breast, patient = entry["levels"]
    assert (image["units"], image["malignant"], image["left_out"]) == (5, 1, 1)
    assert image["roc_auc"]["value"] == 1
    assert image["detector_roc_auc"]["value"] == 1
    assert image["classifier_roc_auc"]["value"] == 0.75  # 0.9 of a negative image beats 0.8
    assert image["gain_over_detector"]["value"] == 0
    assert (breast["units"], patient["units"]) == (3, 2)
    assert patient["roc_auc"]["value"] == 1


def test_a_directory_of_unknown_label_makes_nothing_benign(study_of):
    made = Judged()
    made.view("a", "p", "R", "unknown")
    made.lesion("a", (np.nan,) * 4)  # malignant, without a frame: malignant all the same
    made.view("b", "p", "L", "unknown")
    study = made.of(study_of)
    assert two_stage.image_scores(study, "out_of_fold", "resnet50")["label"].tolist() == ["malignant", ""]


def test_a_study_without_frames_has_no_figure(empty):
    for entry in empty[1]["two_stage"]:
        assert [level["roc_auc"]["value"] for level in entry["levels"]] == [None] * 3


def test_without_a_known_side_no_breast_is_judged_and_the_note_says_so(study):
    study.pictures["image_laterality"] = ""
    _, breast, _ = two_stage.measure(study, "out_of_fold", "resnet50", study.cohorts[0])["levels"]
    assert (breast["units"], breast["left_out"]) == (0, 0)
    assert [breast[name]["note"] for name in ("roc_auc", "gain_over_detector")] == ["nothing to judge"] * 2


@pytest.fixture
def units():
    """Scores of five folds' units, a third of them malignant and higher than the others by chance."""
    rng = np.random.default_rng(3)
    malignant = rng.random(200) < 1 / 3
    scores = np.where(rng.random(200) < 0.1, 0, rng.beta(2, 5, 200) * 0.6 + 0.2 * malignant)
    return pd.DataFrame({
        "two_stage": scores, "label": np.where(malignant, "malignant", "benign"), "fold": np.arange(200) % 5,
        "patient_key": [f"p{number // 2}" for number in range(200)],
    })  # fmt: skip


def test_probabilities_come_from_the_other_folds(units):
    likely = two_stage.probabilities(units, units)
    assert ((likely > 0) & (likely < 1)).all()
    for fold in range(5):
        changed = units.assign(label=units["label"].where(units["fold"] != fold, "benign"))
        here = (units["fold"] == fold).to_numpy()
        assert two_stage.probabilities(changed, changed)[here] == pytest.approx(
            likely[here]
        )  # own labels teach nothing
        order = np.argsort(units.loc[here, "two_stage"], kind="stable")
        assert (np.diff(likely[here][order]) >= 0).all()


def test_probabilities_are_those_of_a_fit_by_newtons_method(units):
    """Ridge-penalised log likelihood, as scikit-learn's default: intercept free, slope's square halved."""
    own = units[units["fold"] == 0]
    others = units[units["fold"] != 0]
    clipped = others["two_stage"].clip(1e-6, 1 - 1e-6).to_numpy()
    x = np.column_stack([np.ones(len(others)), np.log(clipped / (1 - clipped))])
    y, weights, penalty = (others["label"] == "malignant").to_numpy(float), np.zeros(2), np.diag([0.0, 1.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        hessian = (x.T * (p * (1 - p))) @ x + penalty
        weights -= np.linalg.solve(hessian, x.T @ (p - y) + penalty @ weights)
    clipped = own["two_stage"].clip(1e-6, 1 - 1e-6).to_numpy()
    expected = 1 / (1 + np.exp(-(weights[0] + weights[1] * np.log(clipped / (1 - clipped)))))
    assert two_stage.probabilities(own, units) == pytest.approx(expected, abs=1e-3)


def test_external_units_are_judged_by_all_internal_ones_and_one_class_teaches_nothing(units):
    outside = units.iloc[:30].assign(fold=-1, label="benign")
    likely = two_stage.probabilities(outside, units)
    again = two_stage.probabilities(outside.assign(label="malignant"), units)
    assert np.isfinite(likely).all()
    assert likely == pytest.approx(again)
    assert np.isnan(two_stage.probabilities(outside, units.assign(label="benign"))).all()


def test_levels_say_what_their_probabilities_are_worth(made_up_metrics):
    """Brier score of the made-up study: better than saying each time how many are malignant."""
    (first, *_) = [entry for entry in made_up_metrics["two_stage"] if entry["role"] == "internal"]
    for level in first["levels"]:
        share = level["malignant"] / level["units"]
        assert 0 < level["calibration"]["brier"]["value"] < share * (1 - share)
        counted = sum(group["malignant_share"]["count"] for group in level["calibration"]["bins"])
        assert counted == level["units"]
        assert len(level["decision_curve"]["net_benefit"]) == len(level["decision_curve"]["threshold"]) > 0
