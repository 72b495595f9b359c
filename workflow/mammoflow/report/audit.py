"""What the shortcut audit knows of each crop besides its pixels: the baseline's answer and the crop's groups."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mammoflow import boxes
from mammoflow.report import shortcut
from mammoflow.report.detection import hit_rule
from mammoflow.report.study import EDGES, IMAGE, Study, framed

THIRDS = ("darkest third", "middle third", "brightest third")
NO_LESION = "no lesion"
NOT_KNOWN = "not known"


def described(study: Study, protocol: str) -> pd.DataFrame:
    """Every crop of a protocol.

    Returns
    -------
    Columns dataset, crop_id, ``shortcut`` (the baseline's probability) and ``content`` (type of the true lesion that
    the crop's frame finds, ``no lesion`` for none).
    """
    crops = shortcut.features(study, study.crops[study.crops["protocol"] == protocol])
    nested = study.nested if protocol == "out_of_fold" else {}
    taught = {fold: shortcut.features(study, rows) for fold, rows in nested.items()}
    judged = shortcut.probabilities(crops, taught)
    return crops[["dataset", "crop_id"]].assign(shortcut=judged, content=_contents(study, crops))


def _contents(study: Study, crops: pd.DataFrame) -> np.ndarray:
    """Type of the lesion with the largest overlap among those that the crop's frame finds, of its own label."""
    rule, contents = hit_rule(study), np.full(len(crops), NO_LESION, dtype=object)
    lesions = framed(study.true_lesions)
    by_image = lesions.groupby(IMAGE).indices
    for image, rows in crops.groupby(IMAGE).indices.items():
        if image in by_image:
            there = lesions.iloc[by_image[image]]
            found = boxes.hits(crops.iloc[rows][EDGES], there[EDGES], rule.min_iou, rule.center)
            overlap = np.where(found, 1 + boxes.iou(crops.iloc[rows][EDGES], there[EDGES]), 0)
            kinds = there["lesion_type"].to_numpy()[overlap.argmax(axis=1)]
            contents[rows] = np.where(found.any(axis=1), kinds, NO_LESION)
    return contents


def groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Parts of the crops whose figures stand apart: (attribute, group, rows).

    ``view_position``; ``density`` as the truth states it, ``not known`` where it doesn't; ``brightness`` (thirds of the
    breast's median grey among its machine's images: less than a density, but known of all); ``malignant_type``
    (malignant crops of one lesion type against all benign crops); ``benign_content`` (benign crops of one lesion
    type, or without a lesion, against all malignant crops).
    """
    for view, part in rows.groupby("view_position"):
        yield "view_position", str(view) or "unknown", part
    for density, part in rows.groupby(rows["density"].fillna(NOT_KNOWN)):
        yield "density", str(density), part
    third = _thirds(rows)
    for number, name in enumerate(THIRDS):
        if (third == number).any():
            yield "brightness", name, rows[third == number]
    malignant = rows["label"] == "malignant"
    for attribute, own in (("malignant_type", malignant), ("benign_content", ~malignant)):
        for kind in sorted(set(rows.loc[own, "content"].dropna())):
            yield attribute, str(kind), rows[~own | (rows["content"] == kind)]


def _thirds(rows: pd.DataFrame) -> np.ndarray:
    """0, 1 or 2 by the rank of the breast's median grey among the machine's images, -1 when unknown."""
    images = rows.drop_duplicates(IMAGE)
    rank = images.groupby("machine")["grey_p50"].rank(pct=True, method="average")
    by_image = pd.Series(np.ceil(rank * 3).to_numpy() - 1, index=pd.MultiIndex.from_frame(images[IMAGE]))
    return by_image.reindex(pd.MultiIndex.from_frame(rows[IMAGE])).fillna(-1).to_numpy()
