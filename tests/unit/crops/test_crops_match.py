import math

import pytest

from mammoflow import tables
from mammoflow.crops import expert_frames, mine


def detections(*rows: tuple) -> object:
    return tables.from_rows(
        tables.DETECTIONS,
        [
            {
                "dataset": "hospital",
                "image_id": "image0",
                "patient_key": "patient0",
                "detection_id": f"image0-yolov6n-{number:03d}",
                "detector": "yolov6n",
                "model_fold": 0,
                "held_out": True,
                "finding": "lesion",
                "confidence": score,
                "score": score,
                **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
                "model_digest": "0123456789abcdef",
            }
            for number, (score, box) in enumerate(rows)
        ],
    )


def lesions(*rows: tuple) -> object:
    return tables.from_rows(
        tables.LESIONS,
        [
            {
                "dataset": "hospital",
                "image_id": "image0",
                "lesion_id": f"lesion{number}",
                "finding": "lesion",
                "pathology": pathology,
                "lesion_type": "unknown",
                **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
                "source": "yolo",
                "expert": True,
                "flag": "",
            }
            for number, (pathology, box) in enumerate(rows)
        ],
    )


A, B = (0, 0, 10, 10), (100, 100, 120, 120)
SHIFTED = (5, 0, 15, 10)  # IoU with A: 50 / 150


def labels(mined) -> list[tuple[str, str]]:
    return [(candidate.detection_id[-3:], candidate.label) for candidate in mined.candidates]


def test_negative_patient_gives_benign_crops_above_the_threshold():
    mined = mine(detections((0.2, A), (0.5, B), (0.49, A)), lesions(), "negative", 0.49, 0.2)
    assert labels(mined) == [("001", "benign"), ("002", "benign")]
    assert mined.candidates[0].origin == "detection"
    assert math.isnan(mined.candidates[0].iou)
    assert mined.candidates[0].model_digest == "0123456789abcdef"


def test_unlabelled_patient_gives_none():
    assert mine(detections((0.9, A)), lesions(("malignant", A)), "unknown", 0.1, 0.2).candidates == []


def test_positive_patient_gives_matched_detections_only():
    mined = mine(detections((0.9, B), (0.8, SHIFTED)), lesions(("malignant", A)), "positive", 0.1, 0.2)
    assert labels(mined) == [("001", "malignant")]
    assert mined.unmatched == 1
    assert mined.candidates[0].iou == pytest.approx(1 / 3)
    assert mined.candidates[0].lesion_id == "lesion0"


def test_of_two_detections_of_a_lesion_the_higher_score_is_kept():
    mined = mine(detections((0.6, A), (0.8, SHIFTED)), lesions(("malignant", A)), "positive", 0.1, 0.2)
    assert labels(mined) == [("001", "malignant")]
    assert (mined.repeated, mined.unmatched) == (1, 0)


def test_centre_inside_is_a_match_below_the_iou():
    tiny = (40, 40, 44, 44)
    mined = mine(detections((0.6, tiny)), lesions(("malignant", (0, 0, 80, 80))), "positive", 0.1, 0.5)
    assert mined.candidates[0].iou == pytest.approx(16 / 6400)


def test_best_overlap_decides_between_two_lesions_and_gives_its_pathology():
    both = lesions(("malignant", (0, 0, 30, 30)), ("benign", A))
    mined = mine(detections((0.6, A)), both, "positive", 0.1, 0.1)
    assert (mined.candidates[0].lesion_id, mined.candidates[0].label) == ("lesion1", "benign")


def test_lesion_of_unknown_pathology_gives_none():
    mined = mine(detections((0.6, A)), lesions(("unknown", A)), "positive", 0.1, 0.2)
    assert (mined.candidates, mined.unmatched) == ([], 1)


def test_no_detection_at_all():
    assert mine(detections(), lesions(("malignant", A)), "positive", 0.1, 0.2).candidates == []


def test_experts_malignant_frames_are_the_papers_crops():
    (frame,) = expert_frames(lesions(("malignant", A), ("benign", B), ("unknown", B)))
    assert (frame.label, frame.origin, frame.box, frame.lesion_id) == ("malignant", "expert", A, "lesion0")
    assert math.isnan(frame.score)
    assert frame.model_digest == ""
