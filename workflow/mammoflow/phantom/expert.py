"""The phantom's radiologist: frames malignant lesions and nipples, a little loosely, in the format of the machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from mammoflow.boxes import clip, to_yolo
from mammoflow.phantom.picture import Truth

CLASSES = ["malignant", "nipple"]
FORMATS = {"alpha": "yolo", "beta": "voc", "gamma": "coco", "delta": "yolo", "epsilon": "coco"}
SUFFIXES = {"yolo": ".txt", "voc": ".xml"}  # a file an image; COCO has one file a machine
LOOSENESS = (0.03, 0.03)  # mean and sd of how far an edge lies outside, share of the box's side
LOOSENESS_RANGE = (-0.03, 0.09)


@dataclass(frozen=True)
class Frame:
    """A box the expert drew: class name and x1, y1, x2, y2 in pixels of the stored image, to a tenth."""

    name: str
    box: tuple[float, float, float, float]


def frames_of(rng: np.random.Generator, truths: list[Truth], width: int, height: int) -> list[Frame]:
    """Return what the expert frames of an image's truths: malignant lesions and nipples, never benign lesions."""
    frames = []
    for truth in truths:
        if truth.lesion is None or truth.lesion.pathology == "malignant":
            name = "nipple" if truth.lesion is None else "malignant"
            frames.append(Frame(name, _loosely(rng, truth.box, width, height)))
    return frames


def _loosely(
    rng: np.random.Generator, box: tuple[int, int, int, int], width: int, height: int
) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    left, top, right, bottom = np.clip(rng.normal(*LOOSENESS, 4), *LOOSENESS_RANGE)
    side = np.array([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    loose = clip(np.add(box, side * [-left, -top, right, bottom]), width, height)[0]
    x1, y1, x2, y2 = np.round(loose, 1).tolist()
    return x1, y1, x2, y2


def yolo_text(frames: list[Frame], width: int, height: int) -> str:
    """Lines ``class center_x center_y width height``, relative to the image."""
    rows = to_yolo([frame.box for frame in frames], width, height)
    lines = [
        f"{CLASSES.index(frame.name)} " + " ".join(f"{v:.6f}" for v in row)
        for frame, row in zip(frames, rows, strict=True)
    ]
    return "".join(line + "\n" for line in lines)


def voc_text(frames: list[Frame], file_name: str, width: int, height: int) -> str:
    """Pascal VOC annotation, edges in whole pixels as labelImg writes them (half-open, from 0)."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    _append(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 1})
    for frame in frames:
        item = ElementTree.SubElement(root, "object")
        _append(item, {"name": frame.name, "pose": "Unspecified", "truncated": 0, "difficult": 0})
        edges = dict(zip(("xmin", "ymin", "xmax", "ymax"), (round(edge) for edge in frame.box), strict=True))
        _append(ElementTree.SubElement(item, "bndbox"), edges)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _append(parent: ElementTree.Element, values: Mapping[str, str | int]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)


def coco_text(images: list[dict]) -> str:
    """COCO annotations of a machine's images, each ``{file_name, width, height, frames}``."""
    entries: list[dict] = []
    annotations: list[dict] = []
    for image_id, image in enumerate(images, start=1):
        entries.append({"id": image_id, **{key: image[key] for key in ("file_name", "width", "height")}})
        for frame in image["frames"]:
            x1, y1, x2, y2 = frame.box
            box = [round(value, 1) for value in (x1, y1, x2 - x1, y2 - y1)]
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": CLASSES.index(frame.name) + 1,
            }
            annotations.append({**annotation, "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    return json.dumps({"images": entries, "annotations": annotations, "categories": categories}, indent=1) + "\n"
