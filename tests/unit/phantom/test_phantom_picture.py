from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mammoflow.phantom.anatomy import Breast, draw_breasts, inside, nipple, outline, project
from mammoflow.phantom.lesions import DIAMETER_RANGE, KINDS, draw_lesion
from mammoflow.phantom.machines import MACHINES
from mammoflow.phantom.picture import View, draw_view, matrix
from mammoflow.phantom.streams import stream
from mammoflow.phantom.tissue import GLAND_SHARE, breast_mask, draw_tissue, power_law

SCALE = 0.5
BREAST = Breast(
    density="b",
    depth=100,
    half_height=80,
    roundness=2,
    nipple_y_cc=120,
    nipple_y_mlo=130,
    fold_y=210,
    axilla=45,
    pectoral_width=40,
    pectoral_height=120,
    nipple_diameter=12,
    wobble_phase=0,
)


@pytest.fixture(scope="module")
def patients():
    """Breasts and one lesion each of eight patients, malignant and benign in turn."""
    drawn = []
    for number in range(8):
        rng = stream(5, "patients", number)
        breast = draw_breasts(rng)["LR"[number % 2]]
        lesion = draw_lesion(rng, ["malignant", "benign"][number % 2], breast, [], number / 8)
        drawn.append(("LR"[number % 2], breast, lesion))
    return drawn


def test_streams_of_other_names_differ_and_of_the_same_agree():
    first = stream(1, "a", "bc").random(4)
    np.testing.assert_array_equal(first, stream(1, "a", "bc").random(4))
    for other in (stream(1, "ab", "c"), stream(2, "a", "bc"), stream(1, "a", "bc", 0)):
        assert not np.array_equal(first, other.random(4))


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_texture_has_the_power_spectrum_asked_for(exponent):
    texture = power_law(np.random.default_rng(0), (512, 512), 0.3, exponent, longest=154)
    power = np.abs(np.fft.fft2(texture)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512)))
    edges = np.geomspace(0.02, 0.4, 12)
    bands = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    slope = np.polyfit(np.log([frequency[b].mean() for b in bands]), np.log([power[b].mean() for b in bands]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)
    assert texture.mean() == pytest.approx(0, abs=1e-4)
    assert texture.std() == pytest.approx(1, abs=1e-4)


def test_outline_of_a_round_breast_by_hand():
    round_breast = replace(BREAST, wobble_phase=-2 * np.pi * 120 / 70)  # sin(0) at the nipple: no wobble there
    assert outline(round_breast, "CC", np.array([120.0]))[0] == pytest.approx(100)
    assert outline(round_breast, "CC", np.array([120 - 48.0]))[0] == pytest.approx(100 * 0.8, rel=0.013)
    np.testing.assert_array_equal(outline(round_breast, "CC", np.array([39.0, 201.0])), 0)
    assert outline(BREAST, "MLO", np.array([0.0]))[0] == pytest.approx(45)
    assert outline(BREAST, "MLO", np.array([210.0]))[0] == pytest.approx(0, abs=1e-9)


def test_nipple_lies_on_the_contour_in_both_views():
    for view_position in ("CC", "MLO"):
        x, y = nipple(BREAST, view_position)
        assert abs(x - outline(BREAST, view_position, np.array([y]))[0]) < 0.5


def test_projection_by_hand():
    assert project(BREAST, "CC", (60, 20, 35)) == (60, 100)  # outer is up; upper doesn't show
    x, y = project(BREAST, "MLO", (60, 20, 35))
    assert (x, y) == (60, pytest.approx(130 - 35 * 0.906308 - 20 * 0.422618, abs=1e-4))


def test_lesions_lie_inside_the_breast_in_both_views(patients):
    for _, breast, lesion in patients:
        for view_position in ("CC", "MLO"):
            assert inside(breast, view_position, project(breast, view_position, lesion.place), lesion.diameter / 2)


def test_lesions_of_a_breast_keep_apart():
    breast = replace(BREAST, depth=120, half_height=95)
    lesions = []
    for number in range(3):
        lesions.append(draw_lesion(stream(0, number), "benign", breast, lesions, number / 3))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        for view_position in ("CC", "MLO"):
            centres = [project(breast, view_position, lesions[n].place) for n in (first, second)]
            assert np.hypot(*np.subtract(*centres)) > (lesions[first].diameter + lesions[second].diameter) / 2


def test_diameters_and_contrasts_overlap_between_pathologies():
    drawn = {
        pathology: [draw_lesion(stream(1, pathology, n), pathology, BREAST, [], n / 150) for n in range(150)]
        for pathology in KINDS
    }
    for value in ("diameter", "contrast"):
        low, high = (np.array([getattr(lesion, value) for lesion in drawn[p]]) for p in ("benign", "malignant"))
        above = (high[:, None] > low[None, :]).mean()  # the AUC of this value alone
        assert 0.3 < above < 0.75
    for pathology, shares in KINDS.items():
        counts = Counter(lesion.kind for lesion in drawn[pathology])
        assert {kind: pytest.approx(150 * share, abs=1) for kind, share in shares.items()} == counts
    assert all(DIAMETER_RANGE[0] <= lesion.diameter <= DIAMETER_RANGE[1] for p in drawn for lesion in drawn[p])


@pytest.mark.parametrize("view_position", ["CC", "MLO"])
def test_box_is_where_the_lesion_changes_the_picture(patients, view_position):
    for number, (side, breast, lesion) in enumerate(patients):
        machine = replace(list(MACHINES.values())[number % 5], bits_stored=16)
        view = View(side, view_position, 7, ("twin", number))
        with_lesion, truths, _ = draw_view(view, breast, [lesion], machine, SCALE)
        without, only_nipple, _ = draw_view(view, breast, [], machine, SCALE)
        changed = with_lesion != without
        x1, y1, x2, y2 = truths[0].box
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert truths[1] == only_nipple[0]
        assert np.abs(np.subtract([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], [x1, y1, x2, y2])).max() <= 1
        assert not changed[:, :x1].any()
        assert not changed[y2:].any()
        inside = changed[y1:y2, x1:x2]
        assert truths[0].mask.shape == inside.shape
        assert not (inside & ~truths[0].mask).any()
        assert inside.sum() > 0.95 * truths[0].mask.sum()  # the rest is lost in rounding to stored values
        height_mm = (y2 - y1) * machine.imager_pixel_spacing / SCALE
        assert 0.15 * lesion.diameter < height_mm < 1.3 * lesion.diameter + 1


def test_chest_wall_is_right_for_r_and_left_for_l_and_letters_are_outside():
    machine = replace(MACHINES["gamma"], label_share=1.0)
    for side in "LR":
        view = View(side, "MLO", 3, ("sides",))
        pixels, truths, pectoral = draw_view(view, BREAST, [], machine, 0.5)
        first, last = pixels[40:300, 0].mean(), pixels[40:300, -1].mean()
        assert (first > 1.5 * last) == (side == "L")
        assert pectoral.box[1] == 0
        assert (pectoral.box[0] == 0) == (side == "L")
        assert pectoral.mask[0, 0 if side == "L" else -1]
        assert not pectoral.mask[-1, -1 if side == "L" else 0]
        x1, _, x2, _ = truths[0].box
        assert ((x1 + x2) / 2 > pixels.shape[1] / 2) == (side == "L")
        label = np.argwhere(pixels > 0.85 * pixels.max())
        assert label[:, 0].max() < 60
        assert (label[:, 1].mean() > pixels.shape[1] / 2) == (side == "L")


def test_denser_breasts_are_brighter():
    shape, spacing = matrix(MACHINES["alpha"], 0.4)
    means = []
    for density in GLAND_SHARE:
        breast = replace(BREAST, density=density)
        opacity, thickness, pectoral = draw_tissue(stream(0, "density"), breast, "CC", shape, spacing)
        assert ((thickness > 0) == breast_mask(breast, "CC", shape, spacing)).all()
        means.append(opacity[thickness > 0.9].mean())
        assert not pectoral.any()  # a CC view shows no muscle
    assert means == sorted(means)
    assert means[3] - means[0] > 0.1


def test_scale_changes_the_matrix_and_not_the_anatomy():
    machine = MACHINES["epsilon"]
    (small, truths, _), (large, large_truths, _) = (
        draw_view(View("L", "CC", 3, ("scale",)), BREAST, [], machine, scale) for scale in (0.5, 1)
    )
    assert small.shape == (320, 256)
    assert large.shape == (640, 512)
    assert np.abs(np.array(large_truths[0].box) / 2 - truths[0].box).max() <= 1
