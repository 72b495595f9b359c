import pytest

from mammoflow import boxes, tables
from mammoflow.report import mining, rounds
from mammoflow.report.detection import hit_rule, judged_on
from mammoflow.report.froc import froc
from mammoflow.report.page import _rounds
from mammoflow.report.study import EDGES


@pytest.fixture
def screened(made_up):
    """Every frame of the mining detector from a score of 0.3 on, every third of them dropped."""
    cohort = made_up.cohorts[0]
    frames = made_up.frames(made_up.settings["crops"]["detector"], cohort)
    rows = frames.assign(protocol="out_of_fold", threshold=0.3, breast_share=1.0, kept=frames.index % 3 > 0)
    rows["reason"] = rows["kept"].map({True: "", False: "nipple"})
    return tables.from_rows(tables.SCREENED, rows[list(tables.SCREENED.columns)].to_dict("records"))


@pytest.fixture
def table(made_up, screened, tmp_path):
    """Rounds of the made-up study: the first as it is, the second with no frame left."""
    whole = made_up.detections[made_up.detections["dataset"] == "hospital"]
    tables.write(tables.DETECTIONS, whole, tmp_path / "d1.tsv")
    tables.write(tables.DETECTIONS, whole.iloc[:0], tmp_path / "d2.tsv")
    tables.write(tables.SCREENED, screened, tmp_path / "s1.tsv")
    tables.write(tables.SCREENED, screened.iloc[:0], tmp_path / "s2.tsv")
    names = {"detections": "d", "frames": "s"}
    given = {what: {n: str(tmp_path / f"{name}{n}.tsv") for n in (1, 2)} for what, name in names.items()}
    rounds.write(made_up, **given, table=tmp_path / "rounds.tsv")
    return tmp_path / "rounds.tsv"


def test_first_round_has_the_reports_own_froc_and_a_round_without_frames_finds_nothing(made_up, table):
    found = tables.read(tables.ROUNDS, table)
    cohort = made_up.cohorts[0]
    settings = made_up.settings["report"]
    for truth in ("expert", "any_lesion"):
        judged = judged_on(made_up, made_up.settings["crops"]["detector"], cohort, truth, hit_rule(made_up))
        points = froc(judged, settings["false_positives_per_image"], settings["bootstrap"], made_up.settings["seed"])
        expected = [point["sensitivity"]["value"] for point in points["points"]]
        rows = found[found["figure"].str.startswith(f"{truth}:")]
        assert rows.loc[rows["round"] == 1, "value"].tolist() == pytest.approx(expected)
        assert (rows.loc[rows["round"] == 2, "value"] == 0).all()
    assert set(found["cohort"]) == {cohort.name}


def test_accepted_frames_are_judged_as_benign_crops_are(made_up, screened, table):
    found = tables.read(tables.ROUNDS, table).query("round == 1").set_index("figure")["value"]
    images = mining.mined_images(made_up, made_up.cohorts[0])
    kept = screened[screened["kept"]].merge(images[["dataset", "image_id"]])
    assert found["accepted frames: frames per image"] == pytest.approx(len(kept) / len(images))
    lesions = made_up.true_lesions[made_up.true_lesions["pathology"] == "benign"]
    rule, hits = hit_rule(made_up), 0
    for frame in kept.itertuples():
        there = lesions[lesions["image_id"] == frame.image_id]
        hits += boxes.hits([[getattr(frame, e) for e in EDGES]], there[EDGES], rule.min_iou, rule.center).any()
    assert 0 < hits < len(kept)
    assert found["accepted frames: precision"] == pytest.approx(hits / len(kept))


def test_page_shows_a_column_a_round(table):
    rows = _rounds(table)
    assert {tuple(row["rounds"]) for row in rows} == {(1, 2)}
    assert all(len(row["values"]) == 2 for row in rows)
    assert _rounds(None) == []
