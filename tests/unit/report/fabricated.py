# ruff: noqa: C408
"""A small made-up study: every table of the report's inputs and the pictures they name, from a seed."""

from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from mammoflow import tables
from mammoflow.geometry import Transform

SETTINGS = {
    "title": "Made-up study",
    "seed": 7,
    "device": "cpu",
    "study": "",
    "roots": {},
    "deidentify": {"secret_file": "/secret/place"},
    "datasets": [
        {
            "name": "hospital",
            "role": "internal",
            "root": "/secret/place/hospital",
            "shards": {"annotated": 1, "other": 1},
        },
        {
            "name": "outside",
            "role": "external",
            "root": "/secret/place/outside",
            "shards": {"annotated": 0, "other": 1},
        },
    ],
    "labels": {"folds": 3, "expert_classes": ["malignant"]},
    "detect": {"architectures": ["yolov6n"], "image_size": 320, "rivals": False},
    "crops": {"detector": "yolov6n", "protocols": ["out_of_fold"], "nested": False, "margin": 1.5},
    "classify": {"architectures": ["resnet50", "vit_tiny_patch16_224"]},
    "explain": {"composite": "epsilon_gamma_flat"},
    "anatomy": {"min_nipple_score": 0.1},
    "report": {
        "bootstrap": 40,
        "hit_iou": 0.3,
        "hit_center": True,
        "false_positives_per_image": [0.1, 0.5, 1, 2],
    },
}
MALIGNANT = ["mass_spiculated", "mass_ill_defined", "calcifications"]
BENIGN = ["mass_circumscribed", "calcifications"]
MACHINES = {"hospital": ["Alpha 1", "Beta 2", "Gamma 3"], "outside": ["Delta 4"]}


class Maker:
    """Collects rows of tables and draws pictures while it goes through made-up patients."""

    def __init__(self, root: Path, size: tuple[int, int], seed: int):
        self.root, self.size = root, size
        self.rng = np.random.default_rng(seed)
        self.rows: dict[str, list[dict]] = {name: [] for name in FILES}

    def patient(self, dataset: str, number: int, external: bool) -> None:
        kind = ("malignant", "benign", "normal")[number % 3]
        key = f"p{dataset[0]}{number:03d}"
        fold = -1 if external else (number // 3) % 3
        positive = kind == "malignant"
        self.rows["patients"].append(
            dict(dataset=dataset, patient_key=key, role="external" if external else "internal",
                 label="positive" if positive else "negative", annotated=positive and not external, fold=fold,
                 shard="annotated-000" if positive and not external else "other-000")
        )  # fmt: skip
        machine = MACHINES[dataset][(number // 2) % len(MACHINES[dataset])]
        side = "LR"[number % 2]
        for laterality in "RL":
            for view in ("CC", "MLO"):
                lesion = kind if laterality == side and kind != "normal" else None
                self.image(dataset, key, fold, machine, laterality, view, positive, lesion, number)

    def image(self, dataset, key, fold, machine, laterality, view, positive, lesion, number) -> None:
        width, height = self.size
        image_id = f"{key}_{laterality.lower()}{view.lower()}"
        png = self.root / "images" / f"{image_id}.png"
        picture, breast = self.breast(laterality, machine)
        nipple_y = height * 0.52
        nipple_x = breast[2] - 6 if laterality == "L" else breast[0] + 6
        nipple = [nipple_x - 9, nipple_y - 9, nipple_x + 9, nipple_y + 9]
        truth = []
        if lesion:
            truth.append(self.lesion(picture, lesion, laterality, number))
        Image.fromarray(picture).save(png)
        self.rows["indices"].append(
            dict(dataset=dataset, image_id=image_id, status="ok", reason="", patient_key=key, study_key="s",
                 directory_label="positive" if positive else "negative", image_laterality=laterality,
                 view_position=view, rows=height, columns=width, bits_stored=12,
                 photometric_interpretation="MONOCHROME2", presentation_intent="FOR PRESENTATION", machine=machine,
                 transfer_syntax_uid="1.2", imager_pixel_spacing=0.4, size=1, mtime_ns=1,
                 kind="", content_digest="")
        )  # fmt: skip
        tissue = picture[picture > 12]
        self.rows["images"].append(
            dict(dataset=dataset, image_id=image_id, patient_key=key, status="ok", reason="", png=str(png),
                 train_png=str(png), width=width, height=height,
                 transform=Transform.resize(width, height, width, height).to_json(),
                 breast_x1=breast[0], breast_y1=breast[1], breast_x2=breast[2], breast_y2=breast[3],
                 window="dicom", pixel_digest=image_id, grey_p05=np.percentile(tissue, 5),
                 grey_p50=np.percentile(tissue, 50), grey_p95=np.percentile(tissue, 95),
                 flag="", labels_masked=False)
        )  # fmt: skip
        self.labels(dataset, image_id, lesion, truth, nipple)
        for detector in SETTINGS["detect"]["architectures"]:
            self.detections(
                dataset, key, image_id, fold, detector, truth, nipple, breast, lesion, laterality, view, number
            )

    def breast(self, laterality: str, machine: str) -> tuple[np.ndarray, list[float]]:
        width, height = self.size
        y, x = np.mgrid[:height, :width]
        inside = (x / (0.72 * width)) ** 2 + ((y - 0.52 * height) / (0.44 * height)) ** 2 < 1
        noise = gaussian_filter(self.rng.normal(size=(height, width)), width / 25)
        fine = gaussian_filter(self.rng.normal(size=(height, width)), width / 150)
        grey = 95 + 35 * noise / noise.std() + 12 * fine / fine.std() + 12 * (sum(map(ord, machine)) % 5 - 2)
        picture = np.where(inside, np.clip(grey, 14, 255), 3)
        picture = gaussian_filter(picture, 1.0)
        box = [0.0, 0.08 * height, 0.72 * width, 0.96 * height]
        if laterality == "R":
            picture, box = picture[:, ::-1], [0.28 * width, box[1], float(width), box[3]]
        return np.ascontiguousarray(picture).astype(np.uint8), box

    def lesion(self, picture, kind, laterality, number) -> tuple[list[float], str]:
        width, height = self.size
        side = (0.09 + 0.05 * self.rng.random()) * width
        x, y = (0.2 + 0.25 * self.rng.random()) * width, (0.3 + 0.4 * self.rng.random()) * height
        x = width - x if laterality == "R" else x
        types = MALIGNANT if kind == "malignant" else BENIGN
        lesion_type = types[(number // 3) % len(types)]
        rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
        distance = np.hypot(rows - y, columns - x) / (side / 2)
        if lesion_type == "calcifications":
            bright = np.zeros(picture.shape)
            for _ in range(14):
                dx, dy = self.rng.normal(0, side / 5, 2)
                bright[int(y + dy), int(x + dx)] = 1
            bright = 900 * gaussian_filter(bright, width / 400 + 0.5)
        else:
            bright = 90 * np.exp(-(distance**4 if kind == "benign" else distance**2))
        picture[:] = np.clip(picture + bright, 0, 255).astype(np.uint8)
        return [x - side / 2, y - side / 2, x + side / 2, y + side / 2], lesion_type

    def labels(self, dataset, image_id, kind, truth, nipple) -> None:
        edges = ("x1", "y1", "x2", "y2")
        common = dict(dataset=dataset, image_id=image_id, source="table", flag="")
        for box, lesion_type in truth:
            row = dict(common, lesion_id=f"{image_id}_1", finding="lesion", pathology=kind, lesion_type=lesion_type,
                       expert=kind == "malignant", **dict(zip(edges, box, strict=True)))  # fmt: skip
            self.rows["truths"].append(row)
            if kind == "malignant":
                self.rows["lesions"].append(row)
        nipple_row = dict(common, lesion_id=f"{image_id}_n", finding="nipple", pathology="", lesion_type="nipple",
                          expert=False, **dict(zip(edges, nipple, strict=True)))  # fmt: skip
        self.rows["truths"].append(nipple_row)
        if dataset == "hospital":  # elsewhere nobody said
            density = "ab"[len(self.rows["densities"]) % 2]
            self.rows["densities"].append({"dataset": dataset, "image_id": image_id, "density": density})
        self.rows["lesions"].append(nipple_row)

    def detections(
        self, dataset, key, image_id, fold, detector, truth, nipple, breast, kind, laterality, view, number
    ) -> None:
        framed = []
        for box, lesion_type in truth:
            if self.rng.random() < 0.85:
                score = np.clip(self.rng.normal(0.6 if kind == "malignant" else 0.45, 0.18), 0.02, 0.98)
                framed.append((np.array(box) + self.rng.normal(0, 4, 4), score, "lesion", lesion_type))
        for _ in range(self.rng.poisson(0.6)):
            side = 0.1 * self.size[0]
            x, y = (
                self.rng.uniform(breast[0] + side, breast[2] - side),
                self.rng.uniform(breast[1] + 2 * side, breast[3] - 2 * side),
            )
            score = np.clip(self.rng.beta(1.2, 4), 0.02, 0.95)
            framed.append((np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2]), score, "lesion", ""))
        if self.rng.random() < 0.9:
            framed.append((np.array(nipple) + self.rng.normal(0, 3), 0.7, "nipple", ""))
        for at, (box, score, finding, lesion_type) in enumerate(framed):
            row = dict(dataset=dataset, image_id=image_id, patient_key=key, detection_id=f"{detector}_{image_id}_{at}",
                       detector=detector, model_fold=fold, held_out=True, finding=finding, confidence=score,
                       score=score, model_digest=f"{detector}digest{fold}" if fold >= 0 else "a+b+c",
                       **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)))  # fmt: skip
            self.rows["detections"].append(row)
            if detector == "yolov6n" and finding == "lesion":
                self.judged(row, fold, kind == "malignant" and bool(lesion_type))
            if detector == "yolov6n" and finding == "lesion" and score >= 0.3:
                self.mined(row, fold, kind, laterality, view, lesion_type, nipple)

    def judged(self, row, fold, malignant) -> None:
        for number, classifier in enumerate(SETTINGS["classify"]["architectures"]):
            probability = 0.5 + 0.2 * malignant + 0.25 * np.sin(1000 * row["score"] + number)
            kept = ("dataset", "image_id", "patient_key", "detection_id", "detector", "score", "x1", "y1", "x2", "y2")
            self.rows["judged_frames"].append(
                {name: row[name] for name in kept}
                | dict(fold=fold, protocol="out_of_fold", accepted=bool(row["score"] >= 0.3), classifier=classifier,
                       probability=probability, calibrated=probability, model_fold=fold,
                       model_digest=f"{classifier}digest{fold}")
            )  # fmt: skip

    def mined(self, row, fold, kind, laterality, view, lesion_type, nipple) -> None:
        malignant = kind == "malignant" and bool(lesion_type)
        self.rows["anatomy"].append(
            dict(dataset=row["dataset"], image_id=row["image_id"], patient_key=row["patient_key"],
                 detection_id=row["detection_id"], image_laterality=laterality, view_position=view,
                 nipple_x=nipple[0] + 9, nipple_y=nipple[1] + 9, nipple_source="detector", nipple_score=0.7,
                 distance_mm=20.0, half="upper", quadrant=tables.QUADRANTS[int(self.rng.integers(5))])
        )  # fmt: skip
        if kind == "malignant" and not malignant:
            return
        box = np.array([row[edge] for edge in ("x1", "y1", "x2", "y2")])
        crop_id = f"c_{row['detection_id']}"
        png = self.crop(row["image_id"], box, crop_id)
        self.rows["crops"].append(
            dict(dataset=row["dataset"], crop_id=crop_id, image_id=row["image_id"], patient_key=row["patient_key"],
                 fold=fold, protocol="out_of_fold", label="malignant" if malignant else "benign", origin="detection",
                 detection_id=row["detection_id"], lesion_id="", iou=0.0, score=row["score"], threshold=0.3,
                 x1=box[0], y1=box[1], x2=box[2], y2=box[3], crop_x1=box[0], crop_y1=box[1], crop_x2=box[2],
                 crop_y2=box[3], png=png, model_digest=row["model_digest"], config_digest="c")
        )  # fmt: skip
        for classifier in SETTINGS["classify"]["architectures"]:
            probability = 1 / (1 + np.exp(-self.rng.normal(1.0 if malignant else -1.0, 1.2)))
            self.rows["predictions"].append(
                dict(dataset=row["dataset"], crop_id=crop_id, image_id=row["image_id"], patient_key=row["patient_key"],
                     fold=fold, protocol="out_of_fold", classifier=classifier,
                     label="malignant" if malignant else "benign", probability=probability,
                     calibrated=probability, masked=0.5 + 0.2 * np.sin(50 * probability), model_fold=fold,
                     model_digest=f"{classifier}digest{fold}")
            )  # fmt: skip
            self.relevance("crop_maps", "crop", classifier, row, crop_id, box, probability)
        self.relevance("detection_maps", "detection", "yolov6n", row, row["detection_id"], box, row["score"])

    def crop(self, image_id, box, crop_id) -> str:
        path = self.root / "crops" / f"{crop_id}.png"
        with Image.open(self.root / "images" / f"{image_id}.png") as picture:
            picture.crop(tuple(box.astype(int).tolist())).resize((64, 64)).save(path)
        return str(path)

    def relevance(self, table, kind, model, row, explained, box, score) -> None:
        path = self.root / "maps" / f"{kind}_{model}_{explained}.png"
        side = 2 * (box[2] - box[0])
        center = (box[:2] + box[2:]) / 2
        region = [*(center - side), *(center + side)] if kind == "detection" else box.tolist()
        with Image.open(self.root / "images" / f"{row['image_id']}.png") as picture:
            grey = np.asarray(
                picture.crop(tuple(int(v) for v in region)).resize((128, 128)).convert("RGB"), dtype=float
            )
        heat = gaussian_filter(self.rng.normal(size=(128, 128)), 5)
        heat = np.clip(heat / np.abs(heat).max(), -1, 1)
        grey[..., 0] += 150 * np.clip(heat, 0, 1)
        grey[..., 2] += 150 * np.clip(-heat, 0, 1)
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(path)
        self.rows[table].append(
            dict(dataset=row["dataset"], map_id=f"m_{model}_{explained}", kind=kind, part="score", model=model,
                 model_fold=row["model_fold"], image_id=row["image_id"], explained_id=explained, label="lesion",
                 score=score, explained_value=1.0, conservation_error=1e-6, relevance_in_box=0.4, box_area_share=0.1,
                 blob_in_box=0.9, relevance_on_padding=0.01, lesion_type="" if kind == "crop" else "mass_spiculated",
                 **dict(zip(("frame_x1", "frame_y1", "frame_x2", "frame_y2"), box, strict=True)),
                 **dict(on_lesion=0.3, on_border=0.1, on_pectoral=0.05, on_label=0.01, on_outside=0.02),
                 **dict(area_lesion=0.05, area_border=0.2, area_pectoral=0.1, area_label=0.02, area_outside=0.4),
                 blob_on_lesion=0.6, flag="", reason="", x1=region[0], y1=region[1], x2=region[2], y2=region[3],
                 overlay_png=str(path))
        )  # fmt: skip


FIGURES = list(tables.FAITHFULNESS.columns)[7:]
MODEL_FIGURES = FIGURES[4:]  # those that a control has none of
FAITHFULNESS = {
    "control_blob": [0.2, 0.7, 0.9, 1.0, nan, nan, nan, nan, nan],
    "control_random": [0.9, 0.1, 0.1, 0.0, nan, nan, nan, nan, nan],
    "epsilon": [0.15, 0.8, 0.8, 1.0, 0.9, 0.6, 0.7, 0.6, 0.1],
    "zplus": [0.3, 0.6, 0.9, 1.0, 0.95, 0.8, 1.0, 1.0, 0.9],
}

FILES = {
    "indices": tables.INDEX,
    "patients": tables.PATIENTS,
    "lesions": tables.LESIONS,
    "truths": tables.LESIONS,
    "densities": tables.DENSITIES,
    "images": tables.IMAGES,
    "detections": tables.DETECTIONS,
    "thresholds": tables.THRESHOLDS,
    "curves": tables.CURVE,
    "screened": tables.SCREENED,
    "crops": tables.CROPS,
    "predictions": tables.PREDICTIONS,
    "judged_frames": tables.FRAMES,
    "detection_maps": tables.RELEVANCE,
    "crop_maps": tables.RELEVANCE,
    "faithfulness": tables.FAITHFULNESS,
    "anatomy": tables.ANATOMY,
    "duplicates": tables.DUPLICATES,
}


def fabricate(
    root: Path, patients: int = 24, external: int = 6, size: tuple[int, int] = (160, 220)
) -> dict[str, list[str]]:
    """Write a study below `root`; return table name -> paths."""
    for name in ("images", "crops", "maps"):
        (root / name).mkdir(parents=True)
    maker = Maker(root, size, seed=3)
    for number in range(patients):
        maker.patient("hospital", number, external=False)
    for number in range(external):
        maker.patient("outside", number, external=True)
    maker.rows["thresholds"] = [
        dict(
            detector=detector,
            fold=fold,
            threshold=0.3,
            false_frames_per_image=0.5,
            sensitivity=0.7,
            images=10,
            lesions=5,
        )
        for detector in SETTINGS["detect"]["architectures"]
        for fold in (-1, 0, 1, 2)
    ]
    maker.rows["faithfulness"] = [
        dict(dataset="hospital", kind=kind, model=model, model_fold=0, patient_key=f"p{number}",
             explained_id=f"e{number}", method=method,
             **{name: nan if method.startswith("control") and name in MODEL_FIGURES else value
                for name, value in zip(FIGURES, values, strict=True)})
        for kind, model in (("detection", "yolov6n"), ("crop", "resnet50"))
        for method, values in FAITHFULNESS.items()
        for number in range(2)
    ]  # fmt: skip
    maker.rows["indices"].append(
        dict(maker.rows["indices"][0], image_id="broken", status="excluded", reason="truncated_pixel_data")
    ) if maker.rows["indices"] else None
    return write(root, {name: tables.from_rows(schema, maker.rows[name]) for name, schema in FILES.items()})


def write(root: Path, loaded: dict[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Write tables (missing ones empty) below `root`; return table name -> paths."""
    paths = {}
    for name, schema in FILES.items():
        tables.write(schema, loaded.get(name, tables.empty(schema)), root / f"{name}.tsv")
        paths[name] = [str(root / f"{name}.tsv")]
    return paths
