import cv2
import numpy as np
import pytest

from mammoflow import tables

SETTINGS = {
    "architectures": ["resnet10t"],
    "weights": None,
    "pretrain": None,
    "crop_size": 32,
    "epochs": 3,
    "batch": 8,
    "learning_rate": 0.002,
    "ema": 0.5,
    "validation_folds": 2,
    "patience": 6,
    "threads": 1,
    "augment": {"rotation": 15, "translation": 0.06, "scale": 0.1, "contrast": 0.2, "brightness": 0.1},
}


def draw_crop(label, rng, size=40):
    """Malignant: a bright ring; benign: a bright disc; both on noise, a little off the centre."""
    y, x = np.mgrid[:size, :size] - size / 2 - rng.uniform(-2, 2, 2)[:, None, None]
    radius = np.hypot(x, y)
    shape = np.abs(radius - 11) < 2.5 if label == "malignant" else radius < 6
    return np.clip(60 + 110 * shape + rng.normal(0, 12, (size, size)), 0, 255).astype(np.uint8)


def crop_row(directory, number, patient, fold, label, rng, dataset="hospital"):
    png = directory / f"{dataset}-{number:03d}.png"
    cv2.imwrite(str(png), draw_crop(label, rng))
    box = dict.fromkeys(("x1", "y1", "crop_x1", "crop_y1"), 0.0) | dict.fromkeys(
        ("x2", "y2", "crop_x2", "crop_y2"), 40.0
    )
    return {
        "dataset": dataset, "crop_id": f"{dataset}-{number:03d}", "image_id": f"i{number:03d}", "patient_key": patient,
        "fold": fold, "protocol": "out_of_fold", "label": label, "origin": "detection", "detection_id": f"d{number}",
        "lesion_id": "", "iou": np.nan, "score": 0.5, "threshold": 0.2, **box, "png": str(png),
        "model_digest": "0123456789abcdef", "config_digest": "fedcba9876543210",
    }  # fmt: skip


@pytest.fixture
def make_crops(tmp_path):
    """Two CROPS tables of `patients` patients, two crops each, folds in turn, half of a fold malignant."""

    def make(patients=12, external=0, name="crops"):
        directory = tmp_path / name
        directory.mkdir()
        rng = np.random.default_rng(7)
        rows = []
        for number in range(2 * (patients + external)):
            patient = number // 2
            label = "malignant" if patient // 3 % 2 else "benign"
            inside = patient < patients
            rows.append(
                crop_row(
                    directory,
                    number,
                    f"p{patient:03d}",
                    patient % 3 if inside else -1,
                    label,
                    rng,
                    "hospital" if inside else "outside",
                )
            )
        paths = [directory / "annotated-000.tsv", directory / "other-000.tsv"]
        for path, part in zip(paths, (rows[::2], rows[1::2]), strict=True):
            tables.write(tables.CROPS, tables.from_rows(tables.CROPS, part), path)
        return paths

    return make


@pytest.fixture
def settings():
    return SETTINGS | {"augment": dict(SETTINGS["augment"])}
