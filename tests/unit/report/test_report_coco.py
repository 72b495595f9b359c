import numpy as np
import pandas as pd
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from mammoflow import boxes
from mammoflow.report.bootstrap import Resamples
from mammoflow.report.coco import average_precision
from mammoflow.report.froc import HitRule, froc, judge
from mammoflow.report.froc import average_precision as all_points

EDGES = ["x1", "y1", "x2", "y2"]


def made_up(seed, images=12):
    """Lesions and detections of images, some shifted, some false, some images with neither."""
    rng = np.random.default_rng(seed)
    lesions, detections = [], []
    for number in range(images):
        for _ in range(rng.integers(0, 3)):
            x, y, side = [*rng.uniform(0, 300, 2).tolist(), rng.uniform(20, 60)]
            lesions.append((f"i{number:02d}", x, y, x + side, y + side))
            if rng.random() < 0.8:
                dx, dy = rng.normal(0, side / 6, 2)
                detections.append((f"i{number:02d}", x + dx, y + dy, x + side + dx, y + side + dy, rng.random()))
        for _ in range(rng.integers(0, 3)):
            x, y = rng.uniform(400, 700, 2)
            detections.append((f"i{number:02d}", x, y, x + 40, y + 30, 0.8 * rng.random()))
    frames = pd.DataFrame(detections, columns=["image_id", *EDGES, "score"]).assign(dataset="d")
    frames = frames.assign(patient_key=frames["image_id"], detection_id=[f"d{at}" for at in range(len(frames))])
    names = [f"i{number:02d}" for number in range(images)]
    return (
        frames,
        pd.DataFrame(lesions, columns=["image_id", *EDGES]).assign(dataset="d"),
        pd.DataFrame({"dataset": "d", "image_id": names, "patient_key": names}),
    )


def slow(detections, lesions, min_iou):
    """COCO's definition: greedy by score, best free lesion; precision made monotone, read at 101 recalls."""
    free = {name: list(part[EDGES].itertuples(index=False)) for name, part in lesions.groupby("image_id")}
    hits = []
    for row in detections.sort_values("score", ascending=False, kind="stable").itertuples():
        there = free.get(row.image_id, [])
        overlaps = [boxes.iou([[row.x1, row.y1, row.x2, row.y2]], [lesion])[0, 0] for lesion in there]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hits.append(best >= 0 and overlaps[best] >= min_iou)
        if hits[-1]:
            there.pop(best)
    true = np.cumsum(hits)
    precision = np.maximum.accumulate((true / np.arange(1, len(hits) + 1))[::-1])[::-1]
    recall = true / len(lesions)
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.mean([precision[i] if i < len(precision) else 0.0 for i in at])


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_definition(seed):
    detections, lesions, images = made_up(seed)
    found = average_precision(detections, lesions, images)
    assert found["lesions"] == len(lesions)
    assert found["average_precision_50"] == pytest.approx(slow(detections, lesions, 0.5), abs=1e-6)
    assert found["average_precision_75"] == pytest.approx(slow(detections, lesions, 0.75), abs=1e-6)
    every = [slow(detections, lesions, level) for level in np.linspace(0.5, 0.95, 10)]
    assert found["average_precision"] == pytest.approx(np.mean(every), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_the_reports_own_average_precision_is_near_cocos(seed):
    """Two implementations: all points of the curve here, 101 points there."""
    detections, lesions, images = made_up(seed, images=60)
    judged = judge(detections, lesions, lesions.iloc[:0], images, HitRule(0.5, False))
    patients = Resamples.draw(images["patient_key"], 1, 0)
    own = all_points(judged, np.ones((1, len(images))), patients)[0]
    assert average_precision(detections, lesions, images)["average_precision_50"] == pytest.approx(own, abs=0.01)


def coco_matches(detections, lesions, images, min_iou):
    """Score of each detection and whether COCO's own code gives it a lesion."""
    numbers = {name: number for number, name in enumerate(images["image_id"], start=1)}

    def entries(table):
        edges = table[EDGES].to_numpy()
        sides = edges[:, 2:] - edges[:, :2]
        return [
            {"image_id": numbers[name], "category_id": 1, "bbox": [*corner, *side], "area": float(side.prod())}
            for name, corner, side in zip(table["image_id"], edges[:, :2].tolist(), sides, strict=True)
        ]

    truth = COCO(
        {
            "info": {},
            "images": [{"id": number, "width": 1, "height": 1} for number in numbers.values()],
            "categories": [{"id": 1, "name": "lesion"}],
            "annotations": [{**row, "id": at, "iscrowd": 0} for at, row in enumerate(entries(lesions), start=1)],
        }
    )
    scored = zip(entries(detections), detections["score"].tolist(), strict=True)
    found = truth.loadRes([row | {"score": score} for row, score in scored])
    evaluation = COCOeval_faster(truth, found, iouType="bbox", extra_calc=True)
    evaluation.params.iouThrs = np.array([min_iou])
    evaluation.evaluate()
    evaluation.accumulate()
    rows = list(found.anns.values())
    return np.array([row["score"] for row in rows]), np.array([row.get("tp", False) for row in rows])


@pytest.mark.parametrize("seed", range(4))
def test_froc_agrees_with_the_matches_of_cocos_own_code(seed):
    """No lesion here is framed twice, which COCO calls false and FROC doesn't."""
    detections, lesions, images = made_up(seed, images=40)
    levels = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0]
    judged = judge(detections, lesions, lesions.iloc[:0], images, HitRule(0.3, False))
    score, true = coco_matches(detections, lesions, images, 0.3)
    order = np.argsort(-score)
    found, false = np.cumsum(true[order]), np.cumsum(~true[order])
    expected = [max([0, *found[false <= level * len(images)]]) / len(lesions) for level in levels]
    points = froc(judged, levels, resamples=2, seed=0)["points"]
    assert [point["sensitivity"]["value"] for point in points] == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 3


def test_nothing_to_find_and_nothing_found():
    detections, lesions, images = made_up(0)
    assert average_precision(detections, lesions.iloc[:0], images)["average_precision"] is None
    assert average_precision(detections.iloc[:0], lesions, images)["average_precision_50"] == 0
