import os
from pathlib import Path

import numpy as np
import pytest

from mammoflow.images import breast_box, breast_mask, render
from mammoflow.images.breast import chest_wall
from mammoflow.images.stored import read_stored
from mammoflow.images.windows import brightness
from mammoflow.phantom.machines import MACHINES
from mammoflow.phantom.patients import draw_patient, patients_of
from mammoflow.phantom.picture import View, draw_view, matrix
from mammoflow.phantom.tissue import breast_mask as outline_mask

MIAS_ROOT = os.environ.get("MAMMOFLOW_MIAS_ROOT")


def ellipse(shape, x, y, a, b):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns - x) ** 2 / a**2 + (rows - y) ** 2 / b**2 < 1


def film(shape=(1200, 900), tissue=30000, air=1500, noise=400):
    """A breast (half ellipse at the left, box 0, 250, 500, 951) on noisy air: bright (H, W)."""
    picture = np.random.default_rng(3).normal(air, noise, shape)
    inside = ellipse(shape, 0, 600, 500, 350.5)
    picture[inside] += tissue
    return picture.clip(0, 65535).astype(np.uint16), inside


def test_box_of_a_breast():
    bright, _ = film()
    assert np.abs(np.array(breast_box(bright)) - [0, 250, 500, 951]).max() <= 12


def test_labels_and_film_edges_are_left_out():
    bright, inside = film()
    bright[20:120, 700:880] = 65535  # a label brighter than tissue
    bright[:, -4:] = 60000  # the film's edge
    bright[-4:, :] = 60000
    mask = breast_mask(bright)
    assert (mask & inside).sum() > 0.98 * inside.sum()
    assert mask.sum() < 1.05 * inside.sum()


def test_dense_centre_does_not_hide_fat():
    bright, inside = film(tissue=12000)
    bright[ellipse(bright.shape, 120, 600, 100, 100)] = 60000
    assert (breast_mask(bright) & inside).sum() > 0.97 * inside.sum()


def test_no_breast():
    assert breast_box(np.zeros((300, 200), np.uint16)) is None
    assert breast_box(np.full((300, 200), 65535, np.uint16)) is None
    label = np.zeros((600, 400), np.uint16)
    label[10:40, 10:50] = 65535
    assert breast_box(label) is None
    assert breast_box(np.ones((1, 1), np.uint16)) is None


def test_air_with_an_offset_and_padding(mammogram, save, breast_picture):
    air = breast_picture + 60
    air[:, 150:] = 4095  # collimated part, marked as padding
    header = mammogram(air, PixelPaddingValue=4095)
    picture, record = render(save(header), {"mode": "none"})
    x1, y1, x2, y2 = record.breast_box
    assert (x1, x2) == (0, 120) or abs(x2 - 120) <= 3
    assert abs(y1 - 41) <= 3
    assert abs(y2 - 260) <= 3
    assert not picture[:, 150:].any()
    # 40th percentile of tissue by hand: greys are those of the window over the breast's pixels
    inside = breast_picture[(breast_picture > 0) & (np.arange(200) < 150)]
    expected = np.percentile((inside + 60) / 4095 * 255, [5, 50, 95])
    assert np.abs(np.array(record.greys) - expected).max() < 4


@pytest.mark.parametrize("width", [0.01, 0.06, 0.15])
@pytest.mark.parametrize("level", [1.0, 0.9])
def test_bright_frame_is_no_breast(width, level):
    # joined to the breast along the chest wall
    bright, inside = film()
    edge = int(width * min(bright.shape))
    picture = np.full_like(bright, int(level * 65535))
    within = np.s_[edge:-edge, edge:-edge]
    picture[within] = bright[within]
    picture[edge + 20 : edge + 60, 600:660] = 65535  # a label as bright as anything
    mask = breast_mask(picture)
    true = np.zeros_like(inside)
    true[within] = inside[within]
    assert (mask & true).sum() > 0.95 * (mask | true).sum()
    assert chest_wall(mask) == "L"


def test_unexposed_margin_of_one_side_is_no_breast():
    bright, inside = film()
    bright[:, 700:] = 64000
    mask = breast_mask(bright)
    assert (mask & inside).sum() > 0.97 * (mask | inside).sum()


@pytest.mark.parametrize("machine", MACHINES.values(), ids=list(MACHINES))
def test_phantoms_outline(machine):
    patient = next(patients_of("d", 5, {"malignant": 1}, [machine.name]))
    breasts, lesions = draw_patient(patient)
    shape, spacing = matrix(machine, 1)
    for side, view in [("L", "CC"), ("R", "MLO")]:
        stored, *_ = draw_view(View(side, view, 5, patient.names), breasts[side], lesions[side], machine, 1)
        grey = machine.full_range - stored if machine.photometric_interpretation == "MONOCHROME1" else stored
        true = outline_mask(breasts[side], view, shape, spacing)
        true = true[:, ::-1] if side == "R" else true
        mask = breast_mask((grey.astype(float) / machine.full_range * 65535).astype(np.uint16))
        assert (mask & true).sum() > 0.97 * (mask | true).sum()
        assert chest_wall(mask) == side


@pytest.mark.mias
@pytest.mark.skipif(not MIAS_ROOT, reason="MAMMOFLOW_MIAS_ROOT doesn't name the directory of the mini-MIAS films")
# films with a bright margin beside and a label above the breast; boxes as seen by eye
@pytest.mark.parametrize(
    ("film_name", "box"), [("negative/mdb145", (305, 0, 1010, 960)), ("negative/mdb146", (10, 0, 745, 930))]
)
def test_films_with_bright_margins(film_name, box):
    stored = read_stored(Path(MIAS_ROOT, "dicom", f"{film_name}.dcm"))
    found = breast_box(brightness(stored)[stored.patterns])
    assert np.abs(np.array(found) - box).max() < 60
