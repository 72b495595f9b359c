from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mammoflow import tables

SETTINGS = {
    "members": 1,
    "weights": None,
    "image_size": 64,
    "epochs": 2,
    "batch": 4,
    "learning_rate": 0.002,
    "validation_share": 0.2,
    "patience": 0,
    "background": "annotated",
    "background_per_positive": None,
    "copy_paste": 0.5,
    "phantom_paste": 0.5,
    "tiles": None,
    "precision": "float32",
    "test_time": None,
    "rivals": False,
    "ensemble_iou": 0.5,
    "min_score": 0.01,
    "nms_iou": 0.4,
    "threads": 1,
    "augment": {"scale": 0.2, "translate": 0.1, "degrees": 0, "fliplr": 0.5, "gamma": 0.3, "gain": 0.1},
}


def study(root: Path, patients: int = 8, folds: int = 2, width: int = 48, height: int = 64) -> SimpleNamespace:
    """Pictures of a bright disc on a dim half-ellipse, one a patient, in the layout of results/, with their tables."""
    random = np.random.default_rng(0)
    pictures, labels = root / "images" / "hospital" / "annotated-000", root / "labels" / "hospital" / "annotated-000"
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    rows = []
    for number in range(patients):
        image = np.zeros((height, width), np.uint8)
        cv2.ellipse(image, (0, height // 2), (width - 8, height // 2 - 4), 0, -90, 90, 90, -1)
        x, y, radius = random.integers(10, width // 2), random.integers(20, height - 20), 5
        cv2.circle(image, (int(x), int(y)), radius, 230, -1)
        name = f"image{number}"
        cv2.imwrite(str(pictures / f"{name}.png"), image)
        box = [(x + 0.5) / width, (y + 0.5) / height, (2 * radius + 1) / width, (2 * radius + 1) / height]
        (labels / f"{name}.txt").write_text("0 " + " ".join(f"{value:.6f}" for value in box) + "\n")
        rows.append(
            {
                "dataset": "hospital",
                "image_id": name,
                "patient_key": f"patient{number}",
                "fold": number % folds,
                "train_png": str(pictures / f"{name}.png"),
                "label_file": str(labels / f"{name}.txt"),
                "lesions": 1,
                "nipples": 0,
                "unframed": 0,
                "pixel_digest": f"{number:016x}",
            }
        )
    table = root / "labels" / "hospital" / "annotated-000.tsv"
    tables.write(tables.TRAINING, tables.from_rows(tables.TRAINING, rows), table)
    return SimpleNamespace(root=root, table=table, rows=rows, settings=SETTINGS)


@pytest.fixture
def tiny_study(tmp_path: Path) -> SimpleNamespace:
    return study(tmp_path)
