import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import LetterBox

from mammoflow.detect.preprocess import common_size, letterbox
from mammoflow.detect.trainer import GreyResponse, MammogramDataset
from mammoflow.geometry import Transform

SHAPES = [(64, 48), (48, 64), (320, 256), (801, 333), (37, 320), (320, 320), (19, 11)]


@pytest.mark.parametrize("shape", SHAPES)
def test_box_goes_to_the_input_and_back_within_a_pixel(shape):
    height, width = shape
    _, transform = letterbox(np.zeros(shape, np.uint8), 320)
    box = [[0.0, 0.0, width, height], [width / 3, height / 4, width / 2, height * 0.9]]
    inside = transform.forward(box)
    assert inside.min() >= 0
    assert inside.max() <= 320
    assert np.abs(transform.backward(inside) - box).max() < 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_mark_is_where_the_transform_says(shape):
    height, width = shape
    image = np.zeros(shape, np.uint8)
    x1, y1, x2, y2 = width // 4, height // 4, width // 4 + max(4, width // 5), height // 4 + max(4, height // 5)
    image[y1:y2, x1:x2] = 255
    tensor, transform = letterbox(image, 320)
    rows, columns = np.nonzero(tensor[0, 0].numpy() > 0.5)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    scale = max(1.0, transform.scale_x, transform.scale_y)
    assert np.abs(transform.forward([[x1, y1, x2, y2]])[0] - found).max() <= scale


@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (320, 251), (320, 320), (192, 320), (96, 320)])
def test_same_as_ultralytics_letterbox_with_black_padding(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    tensor, _ = letterbox(image, max(shape))
    ours = (tensor[0, 0] * 255).round().byte().numpy()
    theirs = LetterBox(new_shape=(max(shape), max(shape)), auto=True, stride=32, padding_value=0)
    assert np.array_equal(ours, theirs(image=image[..., None])[..., 0])
    square = (letterbox(image, max(shape), square=True)[0][0, 0] * 255).round().byte().numpy()
    theirs = LetterBox(new_shape=(max(shape), max(shape)), padding_value=0)
    assert np.array_equal(square, theirs(image=image[..., None])[..., 0])


def test_padding_is_background_and_range_is_0_to_1():
    tensor, transform = letterbox(np.full((100, 50), 255, np.uint8), 64, square=True)
    assert tensor.shape == (1, 1, 64, 64)
    assert tensor.dtype == torch.float32
    assert transform == Transform(0.64, 0.64, 16.0, 0.0, 64, 64)
    assert tensor[..., :16].max() == 0
    assert tensor[..., 48:].max() == 0
    assert tensor[..., 16:48].min() == 1


def dataset(study, augment: bool, **hyperparameters: float) -> MammogramDataset:
    listed = study.root / "train.txt"
    listed.write_text("\n".join(row["train_png"] for row in study.rows))
    defaults = {"degrees": 0.0, "translate": 0.1, "scale": 0.2, "fliplr": 0.5}
    return MammogramDataset(
        img_path=str(listed),
        imgsz=64,
        batch_size=4,
        augment=augment,
        hyp=get_cfg(overrides={**defaults, **hyperparameters}),
        rect=False,
        data={
            "names": {0: "lesion", 1: "nipple"},
            "channels": 1,
            "augment": {"gamma": 0.2, "gain": 0.1},
            "copy_paste": 0.0,
            "phantom_paste": 0.0,
            "input_size": (64, 64),
        },
    )


def test_validation_input_is_inference_input(tiny_study):
    for sample in dataset(tiny_study, augment=False):
        tensor, _ = letterbox(cv2.imread(sample["im_file"], cv2.IMREAD_GRAYSCALE), 64)
        assert torch.equal((tensor[0] * 255).round().byte(), sample["img"])
        break


def test_augmented_frame_stays_on_its_disc_and_the_border_is_black(tiny_study):
    for number in range(8):
        sample = dataset(tiny_study, augment=True)[number]
        image = sample["img"][0].numpy()
        x, y, width, _ = sample["bboxes"][0].numpy() * 64
        rows, columns = np.nonzero(image > 150)
        assert abs(columns.mean() + 0.5 - x) < 1
        assert abs(rows.mean() + 0.5 - y) < 1
        assert abs(columns.max() + 1 - columns.min() - width) < 3
        assert 114 not in image[[0, -1]]
        assert (image == 0).mean() > 0.2


def test_grey_response_keeps_background_and_order():
    levels = np.arange(256, dtype=np.uint8)[None, :, None]
    changed = GreyResponse(0.5, 0.2)({"img": levels})["img"]
    assert changed[0, 0, 0] == 0
    assert (np.diff(changed[0, :, 0].astype(int)) >= 0).all()
    assert changed.dtype == np.uint8


def test_the_input_of_training_is_as_wide_as_nearly_all_pictures_need():
    sizes = [(100 + n, 200) for n in range(100)]  # widths 100..199: 95 of 100 are at most 194
    assert common_size(sizes, 640) == (640, 640)
    assert common_size(sizes, 200) == (192 + 8, 200)  # the next multiple of 32 would be beyond the long side
    assert common_size([(100, 200)] * 99 + [(200, 200)], 640) == (320, 640)
    assert common_size([(200, 90)], 640) == (640, 288)
