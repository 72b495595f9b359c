import numpy as np
import pandas as pd
import pytest

from mammoflow.detect.rivals import weigh
from mammoflow.detect.shard import weighed
from mammoflow.geometry import Transform


def arrays(*scores):
    return [np.array(own, float) for own in scores]


def test_a_score_is_the_geometric_mean_of_confidence_and_share():
    (scores,) = weigh(arrays([0.3, 0.1]), [False])
    assert scores == pytest.approx([np.sqrt(0.3 * 0.75), np.sqrt(0.1 * 0.25)])


def test_frames_of_the_image_and_the_other_breast_are_rivals():
    first, second = weigh(arrays([0.4, 0.1], [0.5]), [False, True])
    assert first == pytest.approx([0.4, 0.1])  # all three sum to 1
    assert second == pytest.approx([0.5])


def test_another_view_of_the_same_breast_is_no_rival():
    # a lesion at 0.6 in one view and 0.2 in the other, where something else has 0.2 as well
    first, second = weigh(arrays([0.6], [0.2, 0.2]), [True, True])
    assert first == pytest.approx([np.sqrt(0.6)])
    assert second == pytest.approx([np.sqrt(0.2 * 0.5)] * 2)


def test_of_two_views_of_the_other_breast_the_mean_counts():
    # more views of the other breast make no more rivals; one without a frame halves them
    first, *_ = weigh(arrays([0.3], [0.2], []), [False, True, True])
    assert first == pytest.approx([np.sqrt(0.3 * 0.3 / (0.3 + 0.1))])


def test_no_frame_and_no_confidence_are_no_errors():
    assert [list(own) for own in weigh(arrays([], []), [False, True])] == [[], []]
    assert list(weigh(arrays([0.0]), [False])[0]) == [0.0]
    assert weigh([], []) == []


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
        columns=["image_id", "finding", "confidence"],
        index=[7, 5, 3, 1, 0],
    )
    result = weighed(found, images)
    # the lesions of patient p sum to 1
    assert list(result) == pytest.approx([0.4, 0.9, 0.4, 0.2, np.sqrt(0.7)], abs=1e-6)
    assert list(result.index) == list(found.index)
    assert list(found["confidence"]) == [0.4, 0.9, 0.4, 0.2, 0.7]
    assert weighed(found[:0], images).empty
