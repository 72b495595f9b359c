import json
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from mammoflow import tables
from mammoflow.report import position
from mammoflow.report.metrics import flat_tables, measure, verdict, write
from mammoflow.report.study import Study, public_settings
from mammoflow.report.wording import rate_text, rules

SCHEMA = Path(__file__).parents[3] / "workflow" / "schemas" / "metrics.schema.json"


def schema():
    return json.loads(SCHEMA.read_text("utf-8"))


def objects(node, where="$"):
    """Every schema below `node` with its place."""
    yield where, node
    for key in ("properties", "$defs"):
        for name, inner in node.get(key, {}).items():
            yield from objects(inner, f"{where}.{name}")
    if "items" in node:
        yield from objects(node["items"], f"{where}[]")


def test_schema_is_closed_and_described():
    jsonschema.Draft202012Validator.check_schema(schema())
    for where, node in objects(schema()):
        assert node.get("description"), where
        if node.get("type") == "object":
            assert node["additionalProperties"] is False, where
            assert node["required"] == list(node["properties"]), where


def test_document_fits_its_schema(made_up_metrics):
    jsonschema.validate(made_up_metrics, schema())


def test_figures_of_the_made_up_study(made_up, made_up_metrics):
    counts = made_up_metrics["counts"][0]
    assert (counts["files"], counts["pictures"], counts["patients"]) == (97, 96, 24)
    assert counts["excluded"] == [{"stage": "index", "reason": "truncated_pixel_data", "files": 1}]
    assert sum(row["lesions"] for row in counts["lesions"] if row["source"] == "truth") == 32
    entry = made_up_metrics["classification"][0]
    rows = made_up.predictions[made_up.predictions["dataset"] == "hospital"]
    assert entry["crops"] == (rows["classifier"] == "resnet50").sum()
    assert entry["roc_auc"]["low"] <= entry["roc_auc"]["value"] <= entry["roc_auc"]["high"]
    assert made_up_metrics["verdict"]["clearly_better"] == entry["shortcut"]["clearly_better"]
    assert {row["cohort"] for row in made_up_metrics["detection"]} == {"hospital", "outside"}
    assert made_up_metrics["provenance"]["models"][0]["digest"] == "yolov6ndigest0"


def test_nipple_by_hand(made_up):
    cohort = made_up.cohorts[0]
    rows = position.nipples(made_up, cohort)
    assert len(rows) == 96
    row = rows[rows["found"]].iloc[0]
    truth = made_up.truths[
        (made_up.truths["image_id"] == row["image_id"]) & (made_up.truths["finding"] == "nipple")
    ].iloc[0]
    found = made_up.nipple_detections("yolov6n", cohort).set_index("image_id").loc[row["image_id"]]
    away = np.hypot(*((found[["x1", "y1"]] + found[["x2", "y2"]].to_numpy()) / 2 - [
        (truth["x1"] + truth["x2"]) / 2, (truth["y1"] + truth["y2"]) / 2]).astype(float))  # fmt: skip
    assert row["error_mm"] == pytest.approx(0.4 * away)  # 0.4 mm a pixel
    assert not rows.loc[rows["score"].isna(), "found"].any()


@pytest.fixture(scope="module")
def written(made_up, tmp_path_factory):
    """Directory of metrics.json and of the tables."""
    where = tmp_path_factory.mktemp("written")
    write(made_up, SCHEMA, where / "metrics.json", where / "tables")
    return where


def test_same_input_same_bytes(made_up, written, tmp_path):
    write(made_up, SCHEMA, tmp_path / "metrics.json", tmp_path / "tables")
    first, again = (sorted(where.rglob("*.*")) for where in (written, tmp_path))
    assert len(first) > 15
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_nothing_names_a_place_or_is_not_a_number(made_up, written):
    text = (written / "metrics.json").read_text()
    assert "/secret" not in text
    assert str(Path(made_up.images["png"][0]).parent) not in text
    assert "NaN" not in text
    assert "Infinity" not in text


def test_tables_hold_what_the_document_holds(made_up_metrics):
    flat = flat_tables(made_up_metrics)
    row = flat["classification"].iloc[0]
    entry = made_up_metrics["classification"][0]
    assert row["roc_auc"] == entry["roc_auc"]["value"]
    assert row["shortcut_difference_low"] == entry["shortcut"]["difference"]["low"]
    assert row["classifier"] == "resnet50"
    points = flat["detection_froc_points"]
    assert len(points) == 2 * 4 * 4  # cohorts, truths by rules, levels
    assert {"detector", "cohort", "truth", "hit_rule", "sensitivity", "sensitivity_low"} <= set(points)
    curve = flat["classification_roc_curve"]
    assert set(curve.columns) >= {"classifier", "false_positive_rate", "sensitivity", "low", "high"}
    assert all(not isinstance(cell, (dict, list)) for table in flat.values() for cell in table.to_numpy().ravel())


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.51, 0.9, "difference +0.10 [+0.05, +0.15]. With the centre"),
        (0.5, 0.9, "It isn't shown to tell the crops apart at all."),
        (0.2, 0.49, "That is clearly below chance"),
        (None, None, "difference +0.10 [+0.05, +0.15]. With the centre"),
    ],
)
def test_the_first_line_says_when_an_auc_may_be_a_guess(low, high, said):
    def rate(value, low, high):
        return {"value": value, "low": low, "high": high, "count": 9, "note": ""}

    entry = {
        "role": "internal", "protocol": "out_of_fold", "classifier": "resnet50", "untrained_folds": [],
        "roc_auc": rate(0.6, low, high),
        "shortcut": {"roc_auc": rate(0.5, 0.4, 0.6), "difference": rate(0.1, 0.05, 0.15), "clearly_better": True},
        "masked": {"roc_auc": rate(0.6, 0.5, 0.7), "clearly_better": False},
    }  # fmt: skip
    text = verdict([entry])["text"]
    assert said in text
    assert text.count("chance") + text.count("at all") == (said[0] in "IT")


def test_an_empty_study(empty):
    metrics = empty[1]
    jsonschema.validate(metrics, schema())
    assert metrics["verdict"]["clearly_better"] is None
    assert "can't be said" in metrics["verdict"]["text"]
    assert metrics["detection"][0]["froc"][0]["points"][0]["sensitivity"]["note"] == "no lesion to find"
    json.dumps(metrics, allow_nan=False)


def test_one_class_only(made_up, study_of):
    names = ["indices", "patients", "lesions", "truths", "images", "detections", "thresholds"]
    whole = {name: getattr(made_up, name) for name in names}
    benign = {name: getattr(made_up, name).query("label == 'benign'") for name in ("crops", "predictions")}
    metrics = measure(study_of(**whole, **benign))
    jsonschema.validate(metrics, schema())
    entry = metrics["classification"][0]
    assert entry["roc_auc"]["value"] is None
    assert entry["roc_auc"]["note"] == "needs malignant and benign ones"
    assert entry["operating_points"] == []


def test_only_external_data_sets(made_up, settings, tmp_path):
    settings["datasets"] = settings["datasets"][1:]
    tables_of = {name: value for name, value in vars(made_up).items() if isinstance(value, pd.DataFrame)}
    names = Study.__dataclass_fields__.keys() - {"settings", "nested"}
    study = Study(
        settings,
        **{
            name: tables_of[name].query("dataset == 'outside'") if "dataset" in tables_of[name] else tables_of[name]
            for name in names
        },
    )
    metrics = measure(study)
    jsonschema.validate(metrics, schema())
    assert metrics["verdict"]["text"].startswith("No internal data set")


def test_rate_text():
    rate = {"value": 0.834, "low": 0.76, "high": 0.9, "count": 3, "note": ""}
    assert rate_text(rate) == "0.83 [0.76, 0.90]"
    assert rate_text(rate | {"low": None, "high": None}).startswith("0.83 [no interval")
    assert rate_text({"value": None, "note": "nothing"}) == "none (nothing)"
    assert rate_text({"value": -0.1, "low": -0.2, "high": 0.05}, sign=True) == "-0.10 [-0.20, +0.05]"


def test_public_settings_leave_places_out(settings):
    assert "/secret" not in json.dumps(public_settings(settings))
    assert public_settings(settings)["detect"] == settings["detect"]


def test_all_tables_are_loaded(made_up):
    assert set(vars(made_up)) - {"settings"} >= {"anatomy", "crops", "duplicates", "crop_maps"}
    assert len(made_up.pictures) == len(made_up.images)
    assert tables.IMAGES.columns.keys() <= set(made_up.pictures.columns)


def test_the_report_says_where_scores_are_weighed(made_up, monkeypatch):
    assert "detect.rivals" not in rules(made_up)["froc"]
    monkeypatch.setitem(made_up.settings["detect"], "rivals", True)
    assert "detect.rivals" in rules(made_up)["froc"]
