import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mammoflow.images.png import encode_png


def decoded(png, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png)
    with Image.open(path) as checked:
        checked.verify()
    with Image.open(path) as picture:
        by_pillow = np.asarray(picture)
    by_cv2 = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(by_pillow, by_cv2)
    assert by_pillow.dtype == by_cv2.dtype
    return by_cv2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (300, 200)])
def test_two_readers_give_the_picture_back(tmp_path, dtype, shape):
    picture = np.random.default_rng(4).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    back = decoded(encode_png(picture), tmp_path)
    assert np.array_equal(back, picture)
    assert back.dtype == dtype
    assert np.array_equal(decoded(encode_png(picture[::-1, ::-1]), tmp_path), picture[::-1, ::-1])


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32 - 1))
def test_any_picture_comes_back(height, width, dtype, seed):
    picture = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width)).astype(dtype)
    back = cv2.imdecode(np.frombuffer(encode_png(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(back, picture)


def test_size_is_at_most_a_quarter_above_that_of_cv2():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:1024, :832].astype(np.float32)
    inside = np.clip(1 - (x / 420) ** 2 - ((y - 512) / 430) ** 2, 0, None)
    texture = cv2.GaussianBlur(rng.normal(0, 60, inside.shape).astype(np.float32), (0, 0), 6) * 4
    tissue = 60 + 140 * inside + texture + rng.normal(0, 1.5, inside.shape)
    picture = np.where(inside > 0, tissue, 0).clip(0, 255).astype(np.uint8)
    assert len(encode_png(picture)) <= 1.25 * len(cv2.imencode(".png", picture)[1])
