import numpy as np
import pytest

from mammoflow import tables
from mammoflow.geometry import Transform
from mammoflow.report import mining
from mammoflow.report.detection import at_mining_threshold, found, judged_on, measure, outcomes
from mammoflow.report.froc import HitRule

SPOT, ELSEWHERE, THIRD = (10, 10, 30, 30), (60, 60, 80, 80), (100, 10, 120, 30)


def box(edges):
    return dict(zip(("x1", "y1", "x2", "y2"), edges, strict=True))


class Hand:
    """Rows of a study written by hand: one image per patient, named after it."""

    def __init__(self):
        self.rows = {
            name: []
            for name in ("indices", "patients", "images", "lesions", "truths", "detections", "crops", "densities")
        }

    def image(self, name, label, machine="Alpha", status="ok", fold=0):
        key = {"dataset": "hospital", "image_id": name, "patient_key": f"p{name}"}
        self.rows["patients"].append(
            {**key, "role": "internal", "label": label, "annotated": False, "fold": fold, "shard": "other-000"}
        )
        self.rows["indices"].append(
            {**key, "status": "ok", "reason": "", "study_key": "", "directory_label": label, "image_laterality": "L",
             "view_position": "CC", "rows": 200, "columns": 200, "bits_stored": 8, "machine": machine, "size": 1,
             "photometric_interpretation": "MONOCHROME2", "presentation_intent": "", "transfer_syntax_uid": "",
             "imager_pixel_spacing": np.nan, "mtime_ns": 0, "kind": "", "content_digest": ""}
        )  # fmt: skip
        self.rows["images"].append(
            {**key, "status": status, "reason": "" if status == "ok" else "bad", "png": "", "train_png": "",
             "width": 200, "height": 200, "transform": Transform.resize(1, 1, 1, 1).to_json(), "window": "",
             "pixel_digest": name, **{f"breast_{edge}": np.nan for edge in ("x1", "y1", "x2", "y2")},
             "grey_p05": np.nan, "grey_p50": np.nan, "grey_p95": np.nan, "flag": "", "labels_masked": False}
        )  # fmt: skip

    def lesion(self, name, edges, pathology="malignant", expert=None, kind="mass_spiculated"):
        expert = pathology == "malignant" if expert is None else expert
        row = {"dataset": "hospital", "image_id": name, "lesion_id": f"l{len(self.rows['truths'])}",
               "finding": "lesion", "pathology": pathology, "lesion_type": kind, **box(edges), "source": "table",
               "expert": expert, "flag": ""}  # fmt: skip
        self.rows["truths"].append(row)
        if expert:
            self.rows["lesions"].append(row)

    def detection(self, name, edges, score, held_out=True):
        self.rows["detections"].append(
            {"dataset": "hospital", "image_id": name, "patient_key": f"p{name}", "detector": "yolov6n",
             "detection_id": f"d{len(self.rows['detections'])}", "model_fold": 0, "held_out": held_out,
             "finding": "lesion", "confidence": score, "score": score, **box(edges), "model_digest": "m"}
        )  # fmt: skip

    def crop(self, name, edges, label="benign"):
        self.rows["crops"].append(
            {"dataset": "hospital", "crop_id": f"c{len(self.rows['crops'])}", "image_id": name,
             "patient_key": f"p{name}", "fold": 0, "protocol": "out_of_fold", "label": label, "origin": "detection",
             "detection_id": "d", "lesion_id": "", "iou": 0.0, "score": 0.5, "threshold": 0.5, **box(edges),
             **{f"crop_{edge}": value for edge, value in box(edges).items()}, "png": "", "model_digest": "m",
             "config_digest": "c"}
        )  # fmt: skip

    def density(self, name, value):
        self.rows["densities"].append({"dataset": "hospital", "image_id": name, "density": value})

    def tables(self, threshold=0.5):
        schemas = {"indices": tables.INDEX, "patients": tables.PATIENTS, "images": tables.IMAGES,
                   "lesions": tables.LESIONS, "truths": tables.LESIONS, "detections": tables.DETECTIONS,
                   "crops": tables.CROPS, "densities": tables.DENSITIES}  # fmt: skip
        made = {name: tables.from_rows(schema, self.rows[name]) for name, schema in schemas.items()}
        row = {"detector": "yolov6n", "fold": 0, "threshold": threshold, "false_frames_per_image": 0.5,
               "sensitivity": 0.5, "images": 1, "lesions": 1}  # fmt: skip
        return made | {"thresholds": tables.from_rows(tables.THRESHOLDS, [row])}


@pytest.fixture
def hand():
    made = Hand()
    for name in "abcde":
        made.image(name, "positive")
        made.lesion(name, SPOT)
    for name in ("n1", "n2", "n3"):
        made.image(name, "negative")
    made.detection("a", SPOT, 0.9)  # located, though another frame is wrong
    made.detection("a", ELSEWHERE, 0.8)
    made.detection("b", ELSEWHERE, 0.7)  # incorrect
    made.detection("c", SPOT, 0.4)  # below the threshold: no frame
    made.lesion("d", ELSEWHERE, "benign")
    made.detection("d", ELSEWHERE, 0.6)  # only another true lesion
    made.detection("n1", SPOT, 0.9)
    made.detection("n1", THIRD, 0.5)  # just at the threshold
    return made


def test_located_and_incorrect_by_hand(hand, study_of):
    study = study_of(**hand.tables())
    table = outcomes(study, "yolov6n", study.cohorts[0]).set_index("image_id")
    assert table["outcome"].loc[list("abcde")].tolist() == [
        "located", "incorrect", "no_frame", "other_lesion", "no_frame",
    ]  # fmt: skip
    rates = at_mining_threshold(study, "yolov6n", study.cohorts[0])
    values = {name: rate["value"] for name, rate in rates.items() if name != "thresholds"}
    assert values == {
        "located": 0.2,
        "other_lesion": 0.2,
        "incorrect": 0.2,
        "no_frame": 0.4,
        "negative_with_frame": pytest.approx(1 / 3, abs=1e-6),
        "frames_per_image": 0.75,  # 2 + 1 + 0 + 1 + 0 + 2 + 0 + 0 of 8 images
        "frames_per_negative_image": pytest.approx(2 / 3, abs=1e-6),
    }
    assert rates["located"]["count"] == 5
    assert rates["thresholds"] == [{"fold": 0, "threshold": 0.5}]


def test_froc_on_both_truths(hand, study_of):
    study = study_of(**hand.tables())
    rule = HitRule(0.3, True)
    expert = judged_on(study, "yolov6n", study.cohorts[0], "expert", rule)
    everything = judged_on(study, "yolov6n", study.cohorts[0], "any_lesion", rule)
    assert (len(expert.lesion_score), len(everything.lesion_score)) == (5, 6)
    assert (expert.ignored.sum(), everything.ignored.sum()) == (1, 0)
    assert expert.false_positive.sum() == everything.false_positive.sum() == 4
    assert len(expert.image_patient) == 8  # negative images count


def test_detections_by_a_model_that_saw_the_patient_are_not_counted(hand, study_of):
    hand.detection("c", SPOT, 0.99, held_out=False)
    study = study_of(**hand.tables())
    assert outcomes(study, "yolov6n", study.cohorts[0]).set_index("image_id").loc["c", "outcome"] == "no_frame"


def test_an_image_whose_lesion_has_no_frame_is_left_out(hand, study_of):
    hand.image("u", "positive")
    hand.lesion("u", (np.nan,) * 4)
    hand.detection("u", SPOT, 0.95)
    study = study_of(**hand.tables())
    judged = judged_on(study, "yolov6n", study.cohorts[0], "expert", HitRule(0.3, True))
    assert (len(judged.image_patient), judged.false_positive.sum()) == (8, 4)


def test_no_detection_is_a_sensitivity_of_zero(hand, study_of):
    hand.rows["detections"].clear()
    study = study_of(**hand.tables())
    entry = measure(study, "yolov6n", study.cohorts[0])
    assert [point["sensitivity"]["value"] for point in entry["froc"][0]["points"]] == [0.0] * 4
    assert entry["froc"][0]["average_precision"]["value"] == 0
    assert entry["at_mining_threshold"]["no_frame"]["value"] == 1


def test_dropped_frames_and_the_threshold_curve_by_hand(study_of):
    made = Hand()
    made.image("n1", "negative")
    made.image("p1", "positive")
    made.lesion("n1", SPOT, "benign")
    frames = [("n1", SPOT, "nipple"), ("n1", ELSEWHERE, "nipple"), ("n1", THIRD, ""), ("p1", SPOT, "label")]
    screened = [
        {"dataset": "hospital", "image_id": name, "patient_key": f"p{name}", "protocol": "out_of_fold",
         "detection_id": f"d{number}", "score": 0.5, "threshold": 0.5, **box(edges), "breast_share": 1.0,
         "kept": not reason, "reason": reason}
        for number, (name, edges, reason) in enumerate(frames)
    ]  # fmt: skip
    curve = [
        {"detector": "yolov6n", "fold": fold, "threshold": number / 100, "false_frames_per_image": 1.0,
         "sensitivity": np.nan, "precision": 0.5, "chosen": number == 3}
        for fold in (0, -1) for number in range(100)
    ]  # fmt: skip
    study = study_of(
        **made.tables(),
        screened=tables.from_rows(tables.SCREENED, screened),
        curves=tables.from_rows(tables.CURVE, curve),
    )
    entry = mining.measure(study, "out_of_fold", study.cohorts[0])
    assert entry["screening"] == {
        "frames": 3, "dropped": [{"reason": "nipple", "frames": 2, "on_true_lesions": 1}]
    }  # fmt: skip
    shown = [point["threshold"] for point in entry["threshold_curve"]]
    assert shown == [0.0, *(n / 100 for n in range(3, 100, 3))]
    assert [point["threshold"] for point in entry["threshold_curve"] if point["chosen"]] == [0.03]
    assert entry["threshold_curve"][0]["sensitivity"] is None


def test_mining_quality_by_hand(study_of):
    made = Hand()
    made.image("n1", "negative", "Alpha")
    made.image("n2", "negative", "Beta")
    made.image("n3", "negative", "Beta")
    made.image("p1", "positive", "Beta")
    made.lesion("n1", SPOT, "benign", kind="mass_circumscribed")
    made.lesion("n1", ELSEWHERE, "benign", kind="calcifications")
    made.lesion("n2", SPOT, "benign", kind="calcifications")
    made.lesion("p1", SPOT, "benign")  # positive patients aren't mined
    made.crop("n1", (10, 10, 30, 20))  # half of SPOT: IoU 0.5
    made.crop("n1", SPOT)  # the same lesion again
    made.crop("n3", SPOT)  # nothing there
    made.crop("p1", SPOT, "malignant")
    made.density("n1", "b")
    made.density("n2", "d")
    made.density("p1", "d")
    study = study_of(**made.tables())
    entry = mining.measure(study, "out_of_fold", study.cohorts[0])
    assert (entry["images"], entry["crops"], entry["true_lesions"]) == (3, 3, 3)
    assert entry["precision"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert entry["recall"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert entry["mean_iou_of_hits"]["value"] == pytest.approx(0.75)
    assert entry["crops_per_image"]["value"] == 1
    by_type = {
        row["lesion_type"]: (row["recall"]["value"], row["mean_iou"]["value"]) for row in entry["by_lesion_type"]
    }
    assert by_type == {"calcifications": (0.0, None), "mass_circumscribed": (1.0, 1.0)}  # of two crops the better one
    by_machine = {row["machine"]: row for row in entry["by_machine"]}
    assert by_machine["Alpha"]["precision"]["value"] == 1
    assert by_machine["Beta"]["precision"]["value"] == 0
    assert by_machine["Beta"]["mean_iou_of_hits"]["value"] is None
    by_density = {row["density"]: row for row in entry["by_density"]}  # n3's isn't known
    assert {name: (row["images"], row["crops"], row["true_lesions"]) for name, row in by_density.items()} == {
        "b": (1, 2, 2), "d": (1, 0, 1)
    }  # fmt: skip
    assert by_density["b"]["recall"]["value"] == 0.5
    assert by_density["d"]["recall"]["value"] == 0
    assert by_density["d"]["precision"]["value"] is None


def test_lesions_found_at_the_mining_threshold_by_hand(study_of):
    made = Hand()
    for name, label, density in (("p1", "positive", "b"), ("p2", "positive", "d"), ("n1", "negative", "b")):
        made.image(name, label)
        made.density(name, density)
    made.image("p3", "positive")  # of unknown density
    made.lesion("p1", SPOT)
    made.lesion("p2", SPOT)
    made.lesion("p3", SPOT, kind="calcifications")
    made.lesion("n1", SPOT, "benign", kind="mass_circumscribed")
    made.lesion("n1", ELSEWHERE, "benign", kind="mass_circumscribed")
    for name, score in (("p1", 0.9), ("p2", 0.4), ("p3", 0.5), ("n1", 0.6)):  # the threshold is 0.5
        made.detection(name, SPOT, score)
    study = study_of(**made.tables())
    shares = {
        (row["pathology"], row["group"], row["value"]): (row["sensitivity"]["value"], row["sensitivity"]["count"])
        for row in found(study, "yolov6n", study.cohorts[0])
    }
    assert shares == {
        ("malignant", "lesion_type", "mass_spiculated"): (0.5, 2),
        ("malignant", "lesion_type", "calcifications"): (1.0, 1),
        ("benign", "lesion_type", "mass_circumscribed"): (0.5, 2),
        ("malignant", "density", "b"): (1.0, 1),
        ("malignant", "density", "d"): (0.0, 1),
        ("benign", "density", "b"): (0.5, 2),
    }
