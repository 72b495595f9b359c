"""Where relevance lies and which ways to explain pass, in numbers and words."""

from pathlib import Path

import pandas as pd
import pytest
from fabricated import SETTINGS

from mammoflow import tables
from mammoflow.errors import DataError
from mammoflow.report import faithfulness, relevance

ROOT = Path(__file__).resolve().parents[3]


def test_relevance_never_stands_without_its_controls(made_up):
    (cohort, *_) = made_up.cohorts
    entries = relevance.measure(made_up, cohort)
    assert {entry["kind"] for entry in entries} == {"detection", "crop"}
    for entry in entries:
        assert entry["relevance_in_box"]["value"] == pytest.approx(0.4)
        assert entry["blob_in_box"]["value"] == pytest.approx(0.9)
        assert entry["on_lesion"]["value"] == pytest.approx(0.3)
        assert entry["blob_on_lesion"]["value"] == pytest.approx(0.6)
        assert entry["flagged"] == 0
        (by_type,) = entry["by_lesion_type"]
        assert by_type["maps"] == entry["maps"]


def test_flagged_maps_and_edges_are_counted_apart(made_up, study_of):
    maps = made_up.detection_maps.head(4).copy()
    maps["flag"] = ["outside_breast", "no_relevance", "", "outside_breast"]
    maps["part"] = ["score", "score", "score", "left"]
    study = study_of(detection_maps=maps, images=made_up.images, indices=made_up.indices, patients=made_up.patients)
    entries = [entry for cohort in study.cohorts for entry in relevance.measure(study, cohort)]
    assert sum(entry["maps"] for entry in entries) == 3
    assert sum(entry["flagged"] for entry in entries) == 1
    assert sum(entry["without_relevance"] for entry in entries) == 1


def test_what_has_no_map_is_counted_with_its_reason_and_takes_no_part_in_figures(made_up, study_of):
    given = {"images": made_up.images, "indices": made_up.indices, "patients": made_up.patients}
    maps = made_up.detection_maps.head(4).copy()
    maps["reason"] = ["", "", "no rule", "no rule"]
    maps.loc[maps["reason"] != "", "relevance_in_box"] = float("nan")
    for rows, expected in ((maps, 2), (maps.tail(2), 0)):
        study = study_of(detection_maps=rows, **given)
        entries = [entry for cohort in study.cohorts for entry in relevance.measure(study, cohort)]
        assert sum(entry["maps"] for entry in entries) == expected
        assert sum(entry["not_explained"] for entry in entries) == 2
        assert {reason for entry in entries for reason in entry["reasons"]} == {"no rule"}


def test_methods_pass_or_fail_in_words(made_up):
    entries = {(entry["model"], entry["method"]): entry for entry in faithfulness.measure(made_up)}
    assert [method for model, method in entries if model == "yolov6n"][:2] == ["control_blob", "control_random"]
    assert entries["yolov6n", "control_blob"]["passes"] is None
    epsilon, zplus = entries["yolov6n", "epsilon"], entries["yolov6n", "zplus"]
    assert epsilon["passes"] is True
    assert epsilon["text"].endswith(", better at deletion than the blob")
    assert zplus["passes"] is False
    assert "hardly depends on the weights" in zplus["text"]
    assert zplus["text"].endswith(", no better at deletion than the blob")
    assert epsilon["maps"] == 2


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("randomised_upper_half", 0.8, "hardly depends on the weights"),
        ("stability", 0.4, "unstable under noise"),
        ("deletion", 0.9, "deletion no better than random"),
        ("deletion", float("nan"), "deletion can't be told"),
        ("stability", float("nan"), "stability can't be told"),
    ],
)
def test_each_check_can_fail(figure, value, said):
    good = dict.fromkeys(faithfulness.FIGURES, 0.5) | {"stability": 0.9}
    means = pd.DataFrame({"m": good, "control_random": good | {"deletion": 0.8}, "control_blob": good}).T
    assert faithfulness.verdict("m", means)["passes"] is True
    means.loc["m", figure] = value
    found = faithfulness.verdict("m", means)
    assert found["passes"] is False
    assert said in found["text"]


def test_one_command_prints_the_table_of_the_documentation(tmp_path, capsys):
    figures = dict.fromkeys(faithfulness.FIGURES, float("nan"))
    what = {"dataset": "d", "kind": "detection", "model": "yolov6n", "model_fold": 0, "patient_key": "p"}
    rows = [
        figures | what | {"explained_id": one, "method": method, "deletion": deletion, **more}
        for one, method, deletion, more in (
            ("a", "epsilon", 0.5, {"stability": 0.9, "randomised_head": 0.2, "randomised_upper_half": 0.1}),
            ("b", "epsilon", 0.7, {"stability": 0.8, "randomised_head": 0.4, "randomised_upper_half": 0.3}),
            ("a", "control_random", 1.0, {"pointing": 0.0}),
            ("a", "control_blob", 0.3, {"pointing": 1.0}),
        )
    ]
    path = tmp_path / "explain" / "faithfulness" / "detections" / "yolov6n.tsv"
    path.parent.mkdir(parents=True)
    tables.write(tables.FAITHFULNESS, tables.from_rows(tables.FAITHFULNESS, rows), path)
    faithfulness.main([str(tmp_path)])
    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "| yolov6n | control: blob at the frame | 0.30 |  |  | 1.00 |  |  |  |  |",
        "| yolov6n | control: random | 1.00 |  |  | 0.00 |  |  |  |  |",
        "| yolov6n | `epsilon` | 0.60 |  |  |  | 0.85 |  | 0.30 / 0.20 /  | passes |",
    ]
    documented = (ROOT / "docs" / "explanations.md").read_text()
    assert f"{header}\n{rule}\n" in documented
    with pytest.raises(DataError, match="no table in explain/faithfulness"):
        faithfulness.main([str(tmp_path / "explain")])


def test_no_trial_gives_no_entry(empty):
    study, metrics = empty
    assert study.settings["report"] == SETTINGS["report"]
    assert metrics["faithfulness"] == []
    assert metrics["relevance"] == []
