import random

import cv2
import numpy as np
import pytest
from ultralytics.utils.instance import Instances

from mammoflow.detect.paste import LesionPaste, PhantomPaste, add, cut_out, draw_opacity, paste


@pytest.fixture(autouse=True)
def seeded():
    random.seed(5)


@pytest.fixture
def breast():
    """A breast at the left on air, (200, 160)."""
    image = np.random.default_rng(0).integers(0, 4, (200, 160)).astype(np.uint8)
    cv2.ellipse(image, (0, 100), (130, 95), 0, -90, 90, 100, -1)
    return image


@pytest.fixture
def donor(breast):
    """The same with a bright lesion of 20 x 12 pixels about (50, 100), and its frame, 0..1."""
    image = breast + 20
    cv2.ellipse(image, (50, 100), (10, 6), 0, 0, 360, 220, -1)
    return image, np.array([40 / 160, 94 / 200, 60 / 160, 106 / 200])


def labels(image, boxes=()):
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    instances = Instances(rows[:, 1:], np.zeros((len(rows), 0, 2), np.float32), bbox_format="xywh", normalized=True)
    return {"img": image[..., None], "cls": rows[:, :1], "instances": instances}


def test_the_cut_out_is_the_lesion_with_a_quarter_of_rim_on_each_side(donor):
    image, frame = donor
    patch, size = cut_out(image, frame)
    assert size == (20, 12)
    assert patch.shape == (18, 30)
    assert patch[9, 15] == 220


@pytest.mark.parametrize("seed", range(10))
def test_a_pasted_lesion_lies_on_the_breast_in_its_frame_and_fades_out(seed, breast, donor):
    random.seed(seed)
    patch, size = cut_out(*donor)
    image, (x1, y1, x2, y2) = paste(breast, patch, size)
    changed = np.argwhere(image.astype(int) - breast > 40)
    assert len(changed) > 60
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
    assert abs(left - x1) <= 3
    assert abs(top - y1) <= 3
    assert abs(right - x2) <= 3
    assert abs(bottom - y2) <= 3
    # the lesion is 100 above its surroundings there and here, whatever the donor's own level
    middle = image[int((y1 + y2) / 2), int((x1 + x2) / 2)]
    assert middle == pytest.approx(100 + 100, abs=12)
    # nothing changes beyond the rim, and the rim has no edge
    beyond = np.ones(image.shape, bool)
    beyond[int(y1) - 4 : int(y2) + 5, int(x1) - 6 : int(x2) + 7] = False
    assert np.array_equal(image[beyond], breast[beyond])


def test_no_place_no_lesion(breast, donor):
    patch, size = cut_out(*donor)
    assert paste(np.zeros_like(breast), patch, size) is None
    assert paste(breast[:10], patch, size) is None


def test_share_of_the_lesion_free_pictures(breast, donor):
    image, frame = donor
    step = LesionPaste([(7, frame)], lambda number: {7: image[..., None]}[number], 0.5)
    made = [step(labels(breast.copy())) for _ in range(200)]
    got = sum(len(one["cls"]) for one in made)
    assert 70 <= got <= 130
    one = next(one for one in made if len(one["cls"]))
    assert one["cls"].tolist() == [[0.0]]
    assert one["instances"].bboxes[0, 2:] == pytest.approx([20 / 160, 12 / 200])


def test_pictures_with_a_lesion_are_left_alone_and_a_nipple_stays(breast, donor):
    image, frame = donor
    step = LesionPaste([(7, frame)], lambda number: image[..., None], 1.0)
    there = labels(breast.copy(), [[0, 0.2, 0.5, 0.1, 0.1]])
    assert len(step(there)["cls"]) == 1
    assert np.array_equal(there["img"][..., 0], breast)
    nipple = step(labels(breast.copy(), [[1, 0.8, 0.5, 0.05, 0.05]]))
    assert nipple["cls"][:, 0].tolist() == [1, 0]
    assert len(nipple["instances"]) == 2
    assert len(LesionPaste([], lambda number: image[..., None], 1.0)(labels(breast))["cls"]) == 0


def test_an_added_opacity_is_a_share_of_the_breasts_range_of_grey_levels(breast):
    breast[:, :60] //= 2  # half of the breast at 50, half at 100: 5th and 95th percentile
    opacity = np.array([[0.1, 0.2], [0.4, 0.0]])
    image, (x1, y1, x2, y2) = add(breast, opacity)
    assert (x2 - x1, y2 - y1) == (2, 2)
    difference = image.astype(int) - breast
    assert difference[int(y1) : int(y2), int(x1) : int(x2)].tolist() == [[5, 10], [20, 0]]
    assert np.count_nonzero(difference) == 3
    assert add(np.zeros_like(breast), opacity) is None


@pytest.mark.parametrize("seed", range(10))
def test_a_drawn_lesion_fills_its_frame_and_is_about_as_large_as_asked(seed):
    random.seed(seed)
    opacity = draw_opacity(40)
    assert 20 <= max(opacity.shape) <= 52
    assert opacity[0].any()
    assert opacity[-1].any()
    assert opacity[:, 0].any()
    assert opacity[:, -1].any()
    assert 0 < opacity.max() < 2


def test_phantom_lesions_come_into_lesion_free_pictures_in_the_sizes_of_training_lesions(breast):
    step = PhantomPaste([0.1], 0.5)  # 20 of 200 pixels
    made = [step(labels(breast.copy())) for _ in range(100)]
    got = [one for one in made if len(one["cls"])]
    assert 30 <= len(got) <= 70
    sides = [max(one["instances"].bboxes[0, 2:] * [160, 200]) for one in got]
    assert min(sides) >= 20 * 0.7 / 2
    assert max(sides) <= 20 * 1.3 * 1.3
    there = labels(breast.copy(), [[0, 0.2, 0.5, 0.1, 0.1]])
    assert len(PhantomPaste([0.1], 1.0)(there)["cls"]) == 1
    assert not len(PhantomPaste([], 1.0)(labels(breast))["cls"])
