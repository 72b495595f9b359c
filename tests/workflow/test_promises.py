"""The promises of the DAG (docs/design.md), each as the exact set of jobs that run."""

import pytest

from mammoflow.phantom import generate

pytestmark = pytest.mark.slow

DETECTORS = ("yolov5n", "yolov6n")
PROTOCOLS = ("out_of_fold", "paper")
STAGE_RULES = {
    "index": {"index_scan"},
    "labels": {"labels_read", "labels_truth", "labels_patients", "labels_plan", "labels_yolo", "labels_leakage"},
    "images": {"images_convert"},
    "detect": {"detect_train", "detect_images", "detect_paper", "detect_thresholds"},
    "crops": {"crops_cut"},
    "classify": {"classify_train", "classify_predict"},
    "explain": {
        "explain_detections",
        "explain_crops",
        "explain_evaluate",
        "explain_try_detector",
        "explain_try_classifier",
    },
    "anatomy": {"anatomy_locate"},
    "report": {"report_metrics", "report_figure", "report_page"},
}


def rules(jobs):
    return {job.split()[0] for job in jobs}


def of(jobs, *names):
    return {job for job in jobs if job.split()[0] in names}


def planned_jobs(study):
    """What would run: the tables up to the shard plan are brought up to date first, the rest is a dry run."""
    return study.jobs("results/labels/plan.json") | study.jobs("--dry-run")


def test_a_second_run_has_nothing_to_do(finished_study):
    done = finished_study.run()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_touching_every_raw_file_with_its_own_time_runs_nothing(study):
    assert study.jobs("--dry-run") == set()


def test_one_new_negative_study_runs_one_shard_and_trains_no_detector(study, tmp_path):
    more = tmp_path / "more"
    generate("hospital", more, patients=11, malignant=6, benign=3, machines=["alpha", "beta"], seed=1)
    known = {path.name for path in (study.raw / "raw" / "negative").iterdir()}
    (new,) = [path for path in (more / "raw" / "negative").iterdir() if path.name not in known]
    new.rename(study.raw / "raw" / "negative" / new.name)

    jobs = planned_jobs(study)
    assert rules(jobs) == set().union(*STAGE_RULES.values()) - {
        "labels_yolo",
        "detect_train",
        "detect_thresholds",
        "explain_try_detector",
    }
    assert of(jobs, "index_scan", "labels_read") == {"index_scan dataset=hospital", "labels_read dataset=hospital"}
    (converted,) = of(jobs, "images_convert")
    shard = converted.removeprefix("images_convert ")
    assert shard.startswith("dataset=hospital,shard=other-")
    assert of(jobs, "detect_images", "detect_paper", "explain_detections") == {
        f"{rule} detector={detector},{shard}"
        for rule, detectors in [
            ("detect_images", DETECTORS),
            ("detect_paper", ["yolov6n"]),
            ("explain_detections", DETECTORS),
        ]
        for detector in detectors
    }
    assert of(jobs, "crops_cut") == {f"crops_cut protocol={protocol},{shard}" for protocol in PROTOCOLS}
    assert of(jobs, "anatomy_locate") == {f"anatomy_locate detector=yolov6n,{shard}"}

    assert study.jobs("crops") - {"crops"} < jobs
    assert study.jobs("crops", "--dry-run") == set()


def test_an_edited_annotation_retrains_and_converts_nothing(study):
    edited = min((study.raw / "annotations" / "alpha").glob("*.txt"))
    number, x, *rest = edited.read_text().splitlines()[0].split()
    edited.write_text(" ".join([number, f"{float(x) * 0.99:.6f}", *rest]) + "\n")
    jobs = planned_jobs(study)
    assert "images_convert" not in rules(jobs)
    assert "index_scan" not in rules(jobs)
    assert of(jobs, "labels_yolo") == {"labels_yolo dataset=hospital,shard=annotated-000"}
    assert len(of(jobs, "detect_train")) == 2 * len(DETECTORS)


def test_another_window_converts_again_and_indexes_nothing(study):
    text = (study.directory / "study.yaml").read_text()
    assert text.count("mode: dicom") == 2
    (study.directory / "study.yaml").write_text(text.replace("index: 0\n    mode: dicom", "mode: none", 1))
    jobs = study.jobs("--dry-run")
    assert not rules(jobs) & (STAGE_RULES["index"] | {"labels_read", "labels_patients", "labels_plan"})
    converted = of(jobs, "images_convert")
    assert converted in (
        {f"images_convert dataset=hospital,shard={shard}" for shard in ("annotated-000", "other-000", "other-001")},
        {"images_convert dataset=outside,shard=other-000"},
    )


def test_another_figure_setting_runs_the_report_alone(study):
    study.configure(report={"bootstrap": 60})
    assert rules(study.jobs("--dry-run")) == STAGE_RULES["report"]


@pytest.mark.parametrize(("stage", "position"), [(stage, n) for n, stage in enumerate(STAGE_RULES)])
def test_a_changed_module_runs_its_stage_and_none_before(study, stage, position):
    module = study.code / "workflow" / "mammoflow" / stage / "__init__.py"
    module.write_text(module.read_text() + "\n# changed\n")
    ran = rules(study.jobs("--dry-run"))
    assert STAGE_RULES[stage] & ran
    # labels come in two parts: tables before the pictures, label files and the leakage check after them
    before = set().union(*list(STAGE_RULES.values())[:position]) - {"labels_yolo", "labels_leakage"}
    assert not ran & before


def test_a_lost_figure_is_made_again_and_only_the_page_that_shows_it(study):
    (study.directory / "results" / "figures" / "fig05.pdf").unlink()
    assert study.jobs("--dry-run") == {"report_figure figure=fig05", "report_page"}
