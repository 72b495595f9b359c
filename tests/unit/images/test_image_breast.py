import numpy as np

from mammoflow.images import breast_box, breast_mask, render


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
