import numpy as np
import pandas as pd
import pytest

from mammoflow.detect.rivals import shares
from mammoflow.detect.shard import weighed
from mammoflow.geometry import Transform


def arrays(*scores):
    return [np.array(own, float) for own in scores]


def test_frames_of_the_image_and_the_other_breast_are_rivals():
    first, second = shares(arrays([0.4, 0.1], [0.5]), [False, True])
    assert first == pytest.approx([0.4 / 1.0, 0.1 / 1.0])
    assert second == pytest.approx([0.5 / 1.0])


def test_another_view_of_the_same_breast_is_no_rival():
    # a lesion at 0.6 in one view and 0.2 in the other, where something else has 0.2 as well
    assert [list(own) for own in shares(arrays([0.6], [0.2, 0.2]), [True, True])] == [[1.0], [0.5, 0.5]]


def test_of_two_views_of_the_other_breast_the_mean_counts():
    # more views of the other breast make no more rivals; one without a frame halves them
    first, *_ = shares(arrays([0.3], [0.2], []), [False, True, True])
    assert first == pytest.approx([0.3 / (0.3 + 0.1)])


def test_a_frame_that_stands_alone_keeps_its_score_and_none_is_no_error():
    assert [list(own) for own in shares(arrays([0.002], []), [False, True])] == [[1.0], []]
    assert list(shares(arrays([0.0]), [False])[0]) == [0.0]
    assert shares([], []) == []


def image(name, patient, mirrored):
    scale = -0.5 if mirrored else 0.5
    return {"image_id": name, "patient_key": patient, "transform": Transform(scale, 0.5, 0.0, 0.0, 10, 10).to_json()}


def test_scores_of_a_table_are_weighed_within_the_patient_and_nipples_left_alone():
    images = pd.DataFrame([image("a", "p", False), image("b", "p", True), image("c", "q", False)])
    found = pd.DataFrame(
        [
            ("a", "lesion", 0.4),
            ("a", "nipple", 0.9),
            ("b", "lesion", 0.4),
            ("a", "lesion", 0.2),
            ("c", "lesion", 0.7),
        ],
        columns=["image_id", "finding", "score"],
        index=[7, 5, 3, 1, 0],
    )
    result = weighed(found, images)
    assert list(result["share"]) == pytest.approx([0.4, 1, 0.4, 0.2, 1])
    assert list(result["score"]) == pytest.approx([0.16, 0.9, 0.16, 0.04, 0.7])
    assert list(found["score"]) == [0.4, 0.9, 0.4, 0.2, 0.7]
    assert weighed(found[:0], images).empty
