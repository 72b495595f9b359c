from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from mammoflow import boxes, tables
from mammoflow.detect import infer, shard
from mammoflow.detect.infer import Frames, detect_images, detect_views, fuse
from mammoflow.detect.model import Detector
from mammoflow.errors import DataError, ModelError
from mammoflow.geometry import Transform

SETTINGS = {
    "min_score": 0.01,
    "nms_iou": 0.4,
    "test_time": None,
    "rivals": False,
    "ensemble_iou": 0.5,
    "backend": "torch",
    "background": "annotated",
}


class BrightSpot(torch.nn.Module):
    """A YOLO that frames the brightest pixel, 10 x 10 input pixels, with a score that names the model."""

    def __init__(self, score: float):
        super().__init__()
        self.score = torch.nn.Parameter(torch.tensor(score))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        output = torch.zeros(len(batch), 6, 8)
        for number, image in enumerate(batch[:, 0]):
            y, x = divmod(int(image.argmax()), image.shape[1])
            output[number, :5, 0] = torch.tensor([x + 0.5, y + 0.5, 10.0, 10.0, float(self.score)])
        return output


def detector(fold: int) -> Detector:
    model = BrightSpot(0.5 + fold / 10)
    return Detector(model, "yolo26.x", ("lesion", "nipple"), 64, fold, f"{fold:016x}")


@pytest.fixture
def hospital(tmp_path, monkeypatch):
    """Six images of 160 x 200 pixels with a bright pixel, their pictures of 64 x 80, patients in folds -1 to 2."""
    rows, patients = [], []
    for number in range(6):
        stored = (20 * number + 30, 100)
        step = Transform.resize(160, 200, 64, 80)
        picture = np.zeros((80, 64), np.uint8)
        x, y = int(stored[0] * 0.4), int(stored[1] * 0.4)
        picture[y, x] = 255
        path = tmp_path / f"image{number}.png"
        cv2.imwrite(str(path), picture)
        rows.append(
            {
                "dataset": "hospital", "image_id": f"image{number}", "patient_key": f"patient{number}", "status": "ok",
                "reason": "", "png": str(path), "train_png": str(path), "width": 160, "height": 200,
                "transform": step.to_json(), "breast_x1": 0, "breast_y1": 0, "breast_x2": 160, "breast_y2": 200,
                "window": "none", "pixel_digest": f"{number}", "grey_p05": 0, "grey_p50": 0, "grey_p95": 0,
                "flag": "", "labels_masked": False,
            }
        )  # fmt: skip
        fold = -1 if number == 5 else number % 3
        patients.append(
            {
                "dataset": "hospital",
                "patient_key": f"patient{number}",
                "role": "external" if fold < 0 else "internal",
                "label": "positive",
                "annotated": number != 4,
                "fold": fold,
                "shard": "other-000",
            }
        )
    monkeypatch.setattr(shard, "load_detector", lambda path, device: detector(int(path)))
    return SimpleNamespace(root=tmp_path, rows=rows, patients=patients)


def run(hospital, models, shards=1, without=None, **changed):
    """Detections of the six images, dealt to as many shards."""
    root, settings = hospital.root, SETTINGS | changed
    images = [root / f"images{number}.tsv" for number in range(shards)]
    for number, path in enumerate(images):
        tables.write(tables.IMAGES, tables.from_rows(tables.IMAGES, hospital.rows[number::shards]), path)
    tables.write(tables.PATIENTS, tables.from_rows(tables.PATIENTS, hospital.patients), root / "patients.tsv")
    shard.detect_shards(models, images, root / "patients.tsv", settings, "cpu", 1, root / "detections.tsv", without)
    return tables.read(tables.DETECTIONS, root / "detections.tsv")


def test_every_patient_is_judged_by_its_own_folds_model(hospital):
    found = run(hospital, ["0", "1", "2"]).set_index("image_id")
    assert list(found["model_fold"]) == [0, 1, 2, 0, 1, -1]
    assert list(found["score"])[:5] == pytest.approx([0.5, 0.6, 0.7, 0.5, 0.6])
    assert found["held_out"].all()
    assert found.loc["image2", "model_digest"] == f"{2:016x}"
    assert found.loc["image5", "model_digest"] == "+".join(f"{fold:016x}" for fold in range(3))


@pytest.mark.parametrize("rivals", [False, True])
def test_batches_fill_across_shards_without_a_word_of_difference(hospital, monkeypatch, rivals):
    one = run(hospital, ["0", "1", "2"], rivals=rivals)
    sizes, judge = [], shard.judge_images
    monkeypatch.setattr(shard, "judge_images", lambda *given: sizes.append(len(given[1])) or judge(*given))
    pd.testing.assert_frame_equal(run(hospital, ["0", "1", "2"], shards=4, rivals=rivals), one)
    assert sizes == [1, 2, 2, 1]  # of the external patient and of folds 0, 1 and 2: as many as there are


def test_external_patient_gets_the_mean_of_all_models(hospital):
    found = run(hospital, ["0", "1", "2"]).set_index("image_id")
    assert found.loc["image5", "score"] == pytest.approx(0.6)


@pytest.fixture
def members(monkeypatch):
    """Two members a fold: the second one's scores are higher by 0.04."""

    def load(path, device):
        fold, _, second = path.partition("-")
        one = detector(int(fold))
        return replace(one, model=BrightSpot(one.model.score.item() + 0.04), digest=path) if second else one

    monkeypatch.setattr(shard, "load_detector", load)
    return ["0", "0-1", "1", "1-1", "2", "2-1"]


def test_members_of_a_fold_judge_together(hospital, members):
    found = run(hospital, members).set_index("image_id")
    assert list(found["model_fold"]) == [0, 1, 2, 0, 1, -1]
    assert list(found["score"]) == pytest.approx([0.52, 0.62, 0.72, 0.52, 0.62, 0.62])
    assert found["held_out"].all()
    assert found.loc["image1", "model_digest"] == f"{1:016x}+1-1"
    assert found.loc["image5", "model_digest"].count("+") == 5


def test_members_of_one_fold_judge_everybody_in_the_papers_protocol(hospital, members):
    found = run(hospital, members[:2]).set_index("image_id")
    assert list(found["score"]) == pytest.approx([0.52] * 6)
    assert found["detection_id"].str.contains("-paper-").all()
    assert list(found["held_out"]) == [True, False, False, True, True, True]


@pytest.mark.parametrize("models", [["0", "0-1", "1", "2"], ["0", "1", "1-1"], ["0-1", "1", "0", "1-1"]])
def test_folds_with_other_members_or_in_another_order_are_refused(hospital, members, models):
    with pytest.raises(ModelError, match=r"was trained without fold \d, expected without fold \d"):
        run(hospital, models)


def test_a_last_fold_that_lacks_a_member_is_refused(hospital, members):
    with pytest.raises(ModelError, match="expected 2 of each as of fold 0"):
        run(hospital, members[:-1])


@pytest.fixture
def pairs(hospital, monkeypatch):
    """Detectors that saw neither of two folds, ``1-3`` for one; their sum is the score in tenths."""

    def load(path, device):
        first, second = map(int, path.split("-"))
        return replace(detector(second), model=BrightSpot((first + second) / 10), without=first, digest=path)

    monkeypatch.setattr(shard, "load_detector", load)
    hospital.patients.pop()  # the external one: nested detections are of internal patients
    hospital.rows.pop()
    for number, row in enumerate(hospital.patients):
        row["fold"] = number % 4
    return hospital


def test_without_a_fold_pictures_are_judged_by_models_that_saw_neither_it_nor_theirs(pairs):
    found = run(pairs, ["0-1", "1-2", "1-3"], without=1).set_index("image_id")
    assert list(found.index) == ["image0", "image2", "image3", "image4"]
    assert list(found["model_fold"]) == [0, 2, 3, 0]
    assert list(found["model_digest"]) == ["0-1", "1-2", "1-3", "0-1"]
    assert list(found["score"]) == pytest.approx([0.1, 0.3, 0.4, 0.1])
    assert found["held_out"].all()
    assert found["detection_id"].str.contains("-without1-").all()


@pytest.mark.parametrize("models", [["0-1", "1-2", "2-3"], ["1-2", "0-1", "1-3"], ["0-1", "1-2", "1-2"]])
def test_a_model_that_saw_the_fold_left_out_is_refused(pairs, models):
    with pytest.raises(ModelError, match=r"trained without fold \d and \d, expected without fold \d and \d"):
        run(pairs, models, without=1)


def test_a_model_of_a_pair_is_none_of_a_fold_and_the_other_way_round(pairs, monkeypatch):
    with pytest.raises(ModelError, match="without fold 0 and 1, expected without fold 0;"):
        run(pairs, ["0-1", "1-2", "1-3"])
    monkeypatch.setattr(shard, "load_detector", lambda path, device: detector(int(path)))
    with pytest.raises(ModelError, match="without fold 0, expected without fold 0 and 1"):
        run(pairs, ["0", "2", "3"], without=1)


def test_rivals_weigh_scores_and_leave_the_confidence_as_it_is(hospital):
    hospital.rows[1]["patient_key"] = "patient0"  # the other breast of patient 0, both judged by model 0
    step = Transform.from_json(hospital.rows[1]["transform"])
    hospital.rows[1]["transform"] = replace(step, scale_x=-step.scale_x, shift_x=64.0).to_json()
    found = run(hospital, ["0", "1", "2"], rivals=True).set_index("image_id")
    assert list(found["confidence"])[:3] == pytest.approx([0.5, 0.5, 0.7])
    assert list(found["score"])[:3] == pytest.approx([0.5, 0.5, 0.7**0.5], abs=1e-6)  # 0.5 / sqrt(0.5 + 0.5)
    plain = run(hospital, ["0", "1", "2"])
    assert (plain["score"] == plain["confidence"]).all()


def test_frames_come_back_to_the_stored_image(hospital):
    for row in run(hospital, ["0", "1", "2"]).itertuples():
        center = boxes.centers([row.x1, row.y1, row.x2, row.y2])[0]
        number = int(row.image_id[5:])
        # a picture pixel is 2.5 stored pixels; the picture of 64 x 80 pixels is 52 x 64 in the input
        assert np.abs(center - [20 * number + 30, 100]).max() <= 2.5 * 1.25
        assert row.x2 - row.x1 == pytest.approx(10 * 64 / 52 * 2.5, abs=0.02)
        assert row.y2 - row.y1 == pytest.approx(10 * 80 / 64 * 2.5, abs=0.02)


def test_single_model_judges_everybody_and_says_whom_it_saw(hospital):
    found = run(hospital, ["0"])
    assert set(found["model_fold"]) == {0}
    # patients 1 and 2 were trained on, 4 isn't annotated, 5 is external
    assert list(found["held_out"]) == [True, False, False, True, True, True]
    assert set(found["detection_id"]) == {f"image{number}-yolo26_x-paper-000" for number in range(6)}
    # unless it learned its background from patients that nobody annotated as well
    assert list(run(hospital, ["0"], background="all")["held_out"]) == [True, False, False, True, False, True]


def test_models_in_another_order_are_refused(hospital):
    with pytest.raises(ModelError, match="without fold 1, expected without fold 0"):
        run(hospital, ["1", "0", "2"])


def test_excluded_images_and_empty_shards_give_an_empty_table(hospital):
    for row in hospital.rows:
        row.update(status="excluded", reason="blank")
    assert len(run(hospital, ["0", "1", "2"])) == 0


def test_unknown_patient_is_named(hospital):
    hospital.patients.pop(3)
    with pytest.raises(DataError, match="patient3"):
        run(hospital, ["0", "1", "2"])


def frames(*rows: tuple[float, ...]) -> Frames:
    table = np.array(rows, float).reshape(-1, 6)
    return Frames(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_fusion_by_hand():
    # two models agree: corners weighted by score, mean score; the third model's silence costs a third
    merged = fuse([frames((10, 10, 20, 20, 0.8, 0)), frames((12, 10, 22, 20, 0.4, 0)), frames()], 100, 50, 0.5)
    expected_x1 = (10 * 0.8 + 12 * 0.4) / 1.2
    assert merged.boxes[0] == pytest.approx([expected_x1, 10, expected_x1 + 10, 20], abs=1e-4)
    assert merged.scores[0] == pytest.approx(0.6 * 2 / 3)


def test_fusion_keeps_classes_and_distant_frames_apart():
    merged = fuse(
        [frames((10, 10, 20, 20, 0.9, 0)), frames((10, 10, 20, 20, 0.6, 1), (60, 10, 70, 20, 0.3, 0))], 99, 50, 0.5
    )
    assert sorted(zip(merged.classes, merged.scores.round(3), strict=True)) == [(0, 0.15), (0, 0.45), (1, 0.3)]
    assert len(fuse([frames(), frames()], 10, 10, 0.5).scores) == 0


def test_detection_is_cut_at_the_pictures_border():
    image = np.zeros((64, 32), np.uint8)
    image[0, 0] = 255
    found = detect_images(detector(0), [image], 0.01, 0.4)[0]
    assert found.boxes[0] == pytest.approx([0, 0, 5.5, 5.5])
    assert detect_images(detector(0), [], 0.01, 0.4) == []


def test_views_by_hand(hospital):
    image = np.zeros((80, 64), np.uint8)
    image[30:32, 40:42] = 255
    views = {"mirror": True, "smaller": [0.5]}
    found = detect_views(detector(0), [image, image], SETTINGS | {"test_time": views})
    assert [len(view) for view in found] == [2] * 4
    assert infer.views(views) == [(1.0, False), (1.0, True), (0.5, False), (0.5, True)]
    for (scale, _), view in zip(infer.views(views), found, strict=True):
        # the frame of 10 x 10 pixels of the input, where the picture is 52 x 64 pixels, is about the spot in every view
        assert boxes.centers(view[0].boxes)[0] == pytest.approx([41, 31], abs=2 / scale)
        assert boxes.area(view[0].boxes)[0] == pytest.approx(10 / (52 / 64) * 10 / (64 / 80) / scale**2, rel=0.01)


def test_a_picture_seen_in_several_views_gets_one_frame_of_the_mean_score(hospital):
    plain = run(hospital, ["0", "1", "2"]).set_index("image_id")
    seen = run(hospital, ["0", "1", "2"], test_time={"mirror": True, "smaller": []}).set_index("image_id")
    assert list(seen.index) == list(plain.index)
    assert seen["score"].to_numpy() == pytest.approx(plain["score"].to_numpy())
    edges = ["x1", "y1", "x2", "y2"]
    assert seen[edges].to_numpy() == pytest.approx(plain[edges].to_numpy(), abs=6)  # spots lie on whole pixels
