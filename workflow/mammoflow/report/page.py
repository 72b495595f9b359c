"""The study's report as one HTML file: pictures inside, no script, no request to anywhere."""

import base64
import io
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from mammoflow import boxes, tables
from mammoflow.files import write_text
from mammoflow.report.cards import card
from mammoflow.report.detection import outcomes
from mammoflow.report.figures import curves, panels, style
from mammoflow.report.study import EDGES, IMAGE, Cohort, Study, each, public_settings
from mammoflow.report.wording import percent, rate_text

_WIDTH = 1300  # pixels of a figure inside the page
_PER_GROUP = 6
_MAPS = 10
_THUMBNAIL = 300  # pixels
_OUTCOMES = {
    "located": "Located: a frame finds an expert's lesion",
    "no_frame": "Missed: no frame",
    "incorrect": "Incorrect: frames, none finds a true lesion",
    "other_lesion": "Only other true lesions found",
}


def write(
    study: Study,
    metrics: dict[str, Any],
    figures: Iterable[str],
    templates: str | Path,
    page: str | Path,
    rounds: str | Path | None = None,
    learning: str | Path | None = None,
) -> None:
    """Write the report.

    Parameters
    ----------
    figures : PNG files of the figures, named fig01.png and so on.
    templates : directory of page.html.jinja and captions.toml (workflow/report).
    page : HTML file to write.
    rounds : table of `mammoflow.tables.ROUNDS`, where there was more than one round of mining.
    learning : table of `mammoflow.tables.LEARNING`, where crops are nested.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), autoescape=True, undefined=jinja2.StrictUndefined
    )
    captions = tomllib.loads((Path(templates) / "captions.toml").read_text("utf-8"))
    with style.styled():
        context = _context(study, metrics)
    pictures = {Path(path).stem: inline(Path(path).read_bytes()) for path in figures}
    text = environment.get_template("page.html.jinja").render(
        metrics=metrics,
        figures=pictures,
        captions=captions,
        rounds=_rounds(rounds),
        learning=_learning(learning),
        **context,
    )
    write_text(page, text)


def _rounds(table: str | Path | None) -> list[dict[str, Any]]:
    """Rows (figure of a cohort) of the rounds' table, with each round's value as text."""
    if not table:
        return []
    found = tables.read(tables.ROUNDS, table)
    rows = []
    for (cohort, figure), part in found.groupby(["cohort", "figure"], sort=False):
        values = [rate_text(one) for one in _rates(part[["value", "low", "high"]])]
        rows.append({"cohort": cohort, "figure": figure, "values": values, "rounds": part["round"].tolist()})
    return rows


def _learning(table: str | Path | None) -> list[dict[str, Any]]:
    """Rows (a truth and one of fewer, more, gain) of the learning table, with each rate's value as text."""
    if not table:
        return []
    rows = []
    for (truth, lesions), part in tables.read(tables.LEARNING, table).groupby(["truth", "lesions"], sort=False):
        for name in ("fewer", "more", "gain"):
            rates = part[[f"{name}_{end}" for end in ("value", "low", "high")]].set_axis(
                ["value", "low", "high"], axis=1
            )
            texts = [rate_text(one, sign=name == "gain") for one in _rates(rates)]
            taught = part[f"{name}_taught"].iloc[0]
            rows.append({"truth": truth, "lesions": lesions, "name": name, "taught": taught, "values": texts})
    return rows


def _rates(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of value, low and high as rates."""
    known = found.astype(object).where(found.notna(), None).assign(note="nothing to count")
    return [{str(key): value for key, value in rate.items()} for rate in known.to_dict("records")]


def _context(study: Study, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "keys": keys(study, metrics),
        "levels": study.settings["report"]["false_positives_per_image"],
        "froc": {
            truth: inline(style.png_bytes(curves.froc(metrics, truth), dpi=150)) for truth in ("expert", "any_lesion")
        },
        "curves": {
            name: inline(style.png_bytes(drawn, dpi=150))
            for name, drawn in (
                ("calibration", curves.calibration(metrics)),
                ("decision", curves.decision(metrics)),
                ("two_stage_roc", curves.two_stage(metrics, "roc")),
                ("two_stage_pr", curves.two_stage(metrics, "pr")),
                ("two_stage_calibration", curves.two_stage_calibration(metrics)),
                ("two_stage_decision", curves.two_stage_decision(metrics)),
            )
        },
        "external": [cohort.name for cohort in study.cohorts if cohort.role == "external"],
        "maps": map_groups(study),
        "detector": study.settings["crops"]["detector"],
        "nested": study.settings["crops"]["nested"],
        "gallery": [group for cohort in study.cohorts for group in gallery(study, cohort)],
        "settings": list(flat_settings(public_settings(study.settings))),
    }


def inline(content: bytes, width: int = _WIDTH) -> str:
    """Return the bytes of a picture as a data URI, shrunk to `width` pixels."""
    with Image.open(io.BytesIO(content)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
    return data_uri(small)


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a data URI, PNG or JPEG, whichever is smaller."""
    kinds: list[tuple[str, dict[str, Any]]] = [("png", {}), ("jpeg", {"quality": 85})]
    encoded = [(kind, _encode(picture, kind, options)) for kind, options in kinds]
    kind, data = min(encoded, key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _encode(picture: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return stream.getvalue()


def keys(study: Study, metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Return the key numbers on top: of the mined detector and the first classifier, on internal images."""
    detector = study.settings["crops"]["detector"]
    found: list[tuple[str, dict[str, Any], str]] = []
    for row in metrics["detection"]:
        if row["detector"] == detector and row["role"] == "internal":
            at = row["at_mining_threshold"]
            found.append(("images with lesion located (paper 0.70)", at["located"], detector))
            found.append(("incorrect (paper 0.05)", at["incorrect"], detector))
            curve = row["froc"][0]
            point = min(curve["points"], key=lambda one: abs(one["false_positives_per_image"] - 0.5))
            level = f"lesion sensitivity at {point['false_positives_per_image']:g} false positives per image"
            found.append((level, point["sensitivity"], f"{detector}, expert's lesions"))
    for row in metrics["mining"][:1]:
        found.append(("benign labels that are benign lesions (precision)", row["precision"], f"{row['crops']} crops"))
    for row in metrics["classification"]:
        if row["role"] == "internal" and row["protocol"] == metrics["verdict"]["protocol"]:
            found.append(("AUC, malignant against benign crops (paper 0.92)", row["roc_auc"], row["classifier"]))
    return [_key(*entry) for entry in found]


def _key(what: str, rate: dict[str, Any], context: str) -> dict[str, str]:
    value, _, interval = rate_text(rate).partition(" ")
    return {"what": what, "value": value, "interval": interval, "context": context}


def flat_settings(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Return settings as pairs of dotted name and value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat_settings(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for at, item in enumerate(value):
            yield from flat_settings(item, f"{name}[{at}]")
    else:
        yield name, json.dumps(value)


def gallery(study: Study, cohort: Cohort) -> list[dict[str, Any]]:
    """Return images of a cohort, grouped by what the frames find; images without lesion apart."""
    detector = study.settings["crops"]["detector"]
    table, frames = outcomes(study, detector, cohort), study.frames(detector, cohort)
    table = table.join(frames.groupby(IMAGE)["score"].max().rename("top_score"), on=IMAGE).fillna({"top_score": 0.0})
    with_lesion = table[table["expert_lesions"] > 0]
    negative = table[(table["expert_lesions"] == 0) & (table["frames"] > 0)]
    parts = [
        (f"{cohort.name}. {text}", with_lesion[with_lesion["outcome"] == name]) for name, text in _OUTCOMES.items()
    ]
    parts.append((f"{cohort.name}. Images without an expert's lesion that got a frame", negative))
    return [
        {
            "title": f"{title} ({len(rows)} images)",
            "items_": [_card(study, frames, image) for image in each(panels.spread(rows, "top_score", _PER_GROUP))],
        }
        for title, rows in parts
        if len(rows)
    ]


def _card(study: Study, frames: pd.DataFrame, image: panels.Row) -> dict[str, str]:
    caption = f"{panels.view_name(image)}, {image.machine}, image {image.image_id}"
    return {"picture": data_uri(card(study, frames, image)), "caption": caption}


def map_groups(study: Study) -> list[dict[str, Any]]:
    """Relevance overlays by what was explained and by model, spread from the highest to the lowest score."""
    groups = []
    frames = study.detections.drop_duplicates("detection_id").set_index("detection_id")[EDGES]
    for kind, table in (("detections", study.detection_maps), ("crops", study.crop_maps)):
        table = table[table["part"] == "score"]
        drawn = table[[Path(path).is_file() for path in table["overlay_png"]]] if len(table) else table
        for model, rows in drawn.groupby("model"):
            chosen = each(panels.spread(rows, "score", _MAPS))
            groups.append({"title": f"Relevance of {kind}: {model}", "items_": [_map(row, frames) for row in chosen]})
    return groups


def _map(row: panels.Row, frames: pd.DataFrame) -> dict[str, str]:
    share = "" if np.isnan(row.relevance_in_box) else f"; {percent(row.relevance_in_box)} inside the frame"
    area = "" if not share else f" (a blind blob: {percent(row.blob_in_box)})"
    doubt = "; most of it outside the breast" if row.flag == "outside_breast" else ""
    return {
        "picture": data_uri(_thumbnail(row, frames)),
        "caption": f"{row.label}, {row.dataset}, score {percent(row.score)}{share}{area}{doubt}",
    }


def _thumbnail(row: panels.Row, frames: pd.DataFrame) -> Image.Image:
    """Overlay of a map; of a detection's, which covers the whole image, the neighbourhood of its frame."""
    with Image.open(row.overlay_png) as picture:
        overlay = picture.convert("RGB")
    if row.explained_id in frames.index:
        scale = overlay.width / (row.x2 - row.x1)
        box = (frames.loc[row.explained_id].to_numpy() - [row.x1, row.y1, row.x1, row.y1]) * scale
        center, half = boxes.centers(box)[0], 2.5 * max(box[2] - box[0], box[3] - box[1])
        overlay = overlay.crop(tuple(np.round([*(center - half), *(center + half)]).astype(int).tolist()))
    return overlay.resize((_THUMBNAIL, round(_THUMBNAIL * overlay.height / overlay.width)), Image.Resampling.LANCZOS)
