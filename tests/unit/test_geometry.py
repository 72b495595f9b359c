import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mammoflow.geometry import Transform

size = st.integers(1, 5000)


@st.composite
def chains(draw):
    transform = Transform.fit_long_side(draw(size), draw(size), draw(st.integers(64, 2000)))
    if draw(st.booleans()):
        x1, y1 = draw(st.integers(-50, 50)), draw(st.integers(-50, 50))
        side = draw(st.integers(1, 300))
        transform = transform.then(Transform.window(x1, y1, x1 + side, y1 + side, 96, 96))
    return transform.mirrored() if draw(st.booleans()) else transform


@given(chains(), st.lists(st.floats(0, 4000), min_size=4, max_size=4))
def test_there_and_back(transform, numbers):
    x, y, width, height = numbers
    box = [[x, y, x + width, y + height]]
    assert np.allclose(transform.backward(transform.forward(box)), box, atol=1e-6)


@given(chains())
def test_json_round_trip(transform):
    assert Transform.from_json(transform.to_json()) == transform


def test_mirror_by_hand():
    mirrored = Transform.resize(100, 50, 200, 100).mirrored()
    assert mirrored.forward([[0, 0, 10, 5]]).tolist() == [[180, 0, 200, 10]]


def test_never_enlarges():
    assert Transform.fit_long_side(100, 60, 640).forward([[0, 0, 100, 60]]).tolist() == [[0, 0, 100, 60]]


def test_agrees_with_resized_pixels():
    image = np.zeros((90, 120), np.float32)
    image[30:60, 40:80] = 1
    transform = Transform.fit_long_side(120, 90, 60)
    small = cv2.resize(image, (transform.width, transform.height), interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(small > 0.5)
    assert transform.forward([[40, 30, 80, 60]]).tolist() == [
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    ]
