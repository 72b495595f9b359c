"""The promises of the DAG (docs/design.md), each as the exact set of jobs that run."""

import re
import shutil
from contextlib import contextmanager

import pydicom
import pytest
import yaml
from pydicom.uid import ExplicitVRLittleEndian

from mammoflow import tables
from mammoflow.phantom import generate

pytestmark = pytest.mark.slow

CLASSIFIERS = ("resnet50", "vit_tiny_patch16_224")
DETECTORS = ("yolov5n", "yolov6n")
STAGE_RULES = {
    "index": {"index_scan"},
    "labels": {"labels_read", "labels_truth", "labels_patients", "labels_plan", "labels_yolo", "labels_leakage"},
    "images": {"images_convert"},
    "detect": {"detect_train", "detect_images", "detect_paper", "detect_thresholds"},
    "crops": {"crops_cut", "nested_train", "nested_detect", "nested_thresholds", "nested_cut"},
    "classify": {"classify_train", "classify_predict"},
    "explain": {
        "explain_detections",
        "explain_crops",
        "explain_evaluate",
        "explain_try_detector",
        "explain_try_classifier",
    },
    "anatomy": {"anatomy_locate"},
    "report": {"report_metrics", "report_learning", "report_figure", "report_page"},
}


# what a job's outputs lead to, by the first rule that is touched
REPORT = STAGE_RULES["report"]
FROM_MAPS = {"explain_evaluate", *REPORT}
FROM_CLASSIFIERS = {*STAGE_RULES["classify"], "explain_crops", "explain_try_classifier", *FROM_MAPS}
FROM_CROPS = {"crops_cut", "nested_cut", *FROM_CLASSIFIERS}
FROM_THRESHOLDS = {"detect_thresholds", "nested_thresholds", *STAGE_RULES["anatomy"], *FROM_CROPS}
TRAIN = {"detect_train", "nested_train"}
JUDGE = {"detect_images", "detect_paper", "nested_detect"}
FROM_JUDGEMENTS = {*JUDGE, "explain_detections", "explain_try_detector", *FROM_THRESHOLDS}
FROM_DETECTORS = {*TRAIN, *FROM_JUDGEMENTS}
FROM_LABELS = {"labels_yolo", *FROM_DETECTORS}
FROM_PICTURES = {"images_convert", "labels_leakage", *FROM_LABELS}
# what reads the pictures of one shard, behind the models
OF_A_SHARD = {"images_convert", "crops_cut", "nested_cut", "explain_detections", "anatomy_locate"}
UP_TO_CROPS = ("index", "labels", "images", "detect", "crops", "nested")
# up to the plan, of the data set whose raw files changed
UP_TO_PLAN = {"index_scan dataset=hospital", "labels_read dataset=hospital", "labels_patients", "labels_plan"}
READ_AGAIN = UP_TO_PLAN | {"labels_truth dataset=hospital"}


def of(jobs, names, **wildcards):
    """The jobs of the rules `names` with these values of wildcards."""
    wanted = {f"{name}={value}" for name, value in wildcards.items()}
    return {job for job in jobs if job.split()[0] in names and wanted <= set(job.partition(" ")[2].split(","))}


def planned_jobs(study):
    """What would run: the tables up to the shard plan are brought up to date first, the rest is a dry run."""
    return study.jobs("results/labels/plan.json") | study.jobs("--dry-run")


def raw_file(study, stem="*", kind="negative"):
    """A file with uncompressed pixels: the bytes of another would no longer decode."""
    for path in sorted((study.raw / "raw" / kind).rglob(f"{stem}.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian:
            return path
    raise AssertionError(f"no uncompressed file called {stem}")


def image_of(study, path):
    """The index's row of a raw file."""
    hospital = study.directory / "results" / "index"
    index = tables.read(tables.INDEX, hospital / "hospital.tsv").merge(
        tables.read(tables.SOURCES, hospital / "hospital.sources.tsv"), on="image_id"
    )
    (row,) = index[index.path == str(path.relative_to(study.raw))].itertuples()
    return row


def shard_of(study, path):
    """The shard that holds the image of a raw file."""
    patients = tables.read(tables.PATIENTS, study.directory / "results/labels/patients.tsv")
    own = patients.patient_key == image_of(study, path).patient_key
    return patients.shard[own & (patients.dataset == "hospital")].item()


def behind_a_negative(jobs, shard):
    """All that follows from another picture of a patient without a framed lesion: no label, no detector."""
    return (
        READ_AGAIN
        | of(jobs, OF_A_SHARD, dataset="hospital", shard=shard)
        | of(jobs, JUDGE, dataset="hospital", block=shard)  # blocks are of one shard here
        | of(jobs, {"labels_leakage", *FROM_CLASSIFIERS})
    )


@contextmanager
def put_back(*paths):
    """Let the block change or remove files and directories, then put the old ones back with their times."""
    kept = {path: path.with_name(f"{path.name}.kept") for path in paths}
    for path, copy in kept.items():
        path.rename(copy)
        if copy.is_file():
            shutil.copy2(copy, path)
        else:
            shutil.copytree(copy, path, copy_function=shutil.copy2)
    try:
        yield
    finally:
        for path, copy in kept.items():
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            copy.rename(path)


def test_a_second_run_has_nothing_to_do(finished_study):
    done = finished_study.run()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_copy_with_its_times_runs_nothing(study):
    assert study.jobs("--dry-run") == set()


def test_one_new_negative_study_runs_one_shard_and_trains_no_detector(study, tmp_path):
    more = tmp_path / "more"
    generate("hospital", more, patients=11, malignant=6, benign=3, machines=["alpha", "beta"], seed=1)
    known = {path.name for path in (study.raw / "raw" / "negative").iterdir()}
    (new,) = [path for path in (more / "raw" / "negative").iterdir() if path.name not in known]
    target = study.raw / "raw" / "negative" / new.name
    new.rename(target)

    jobs = planned_jobs(study)
    shard = shard_of(study, min(target.iterdir()))
    assert shard.startswith("other-")
    assert jobs == behind_a_negative(study.all_jobs, shard)

    assert study.jobs("crops") - {"crops"} < jobs
    assert study.jobs("crops", "--dry-run") == set()
    images = tables.read(tables.IMAGES, study.directory / "results/images/hospital" / f"{shard}.tsv")
    log = (study.directory / "results/logs/images_convert/hospital" / f"{shard}.log").read_text()
    added = len(list(target.iterdir()))
    assert f"{len(images) - added} of {len(images)} images are those of the run before" in log


def test_a_replaced_negative_file_converts_its_shard_alone(study):
    path = raw_file(study)
    shard = shard_of(study, path)
    dataset = pydicom.dcmread(path)
    pixels = bytearray(dataset.PixelData)
    pixels[5000] ^= 1
    dataset.PixelData = bytes(pixels)
    dataset.save_as(path)
    assert planned_jobs(study) == behind_a_negative(study.all_jobs, shard)


def naming(study, image_id):
    """The tables up to the crops, and the pictures, that hold an image."""
    results = [path for stage in UP_TO_CROPS for path in (study.directory / "results" / stage).rglob("*")]
    named = {path for path in results if path.name.startswith(image_id)}
    return named | {path for path in results if path.suffix == ".tsv" and image_id in path.read_text()}


def test_a_removed_negative_file_converts_its_shard_alone_and_is_in_no_table_any_more(study):
    path = raw_file(study)
    shard, image_id = shard_of(study, path), image_of(study, path).image_id
    assert {path.parts[-3:-1] for path in naming(study, image_id)} >= {
        ("images", "hospital"), ("hospital", shard), ("results", "index")
    }  # fmt: skip
    path.unlink()
    assert planned_jobs(study) == behind_a_negative(study.all_jobs, shard)
    for table in (study.raw / "truth.tsv", study.raw / "masks.tsv"):  # truth of a missing file is a mistake
        table.write_text("".join(line for line in table.read_text().splitlines(True) if path.name not in line))
    nested = [f"results/nested/crops/without{fold}/hospital/{shard}.tsv" for fold in range(3)]
    study.jobs("crops", "detections", *nested, "results/labels/hospital/truth.tsv")
    assert naming(study, image_id) == set()


def test_a_replaced_file_with_frames_trains_all_again(study):
    path = raw_file(study, min((study.raw / "annotations" / "alpha").glob("*.txt")).stem, kind="positive")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[:-2] + b"\1\0"
    dataset.save_as(path)
    shard = {"dataset": "hospital", "shard": "annotated-000"}
    assert planned_jobs(study) == READ_AGAIN | of(study.all_jobs, {"images_convert"}, **shard) | of(
        study.all_jobs, FROM_PICTURES - {"images_convert"}
    )


def test_a_renamed_file_is_indexed_and_looked_up_again_but_not_converted(study):
    path = raw_file(study)
    path.rename(path.with_name("renamed.dcm"))
    evaluated = of(study.all_jobs, {"explain_evaluate"}, dataset="hospital")  # the truth is read again
    assert planned_jobs(study) == READ_AGAIN | evaluated | of(study.all_jobs, REPORT)


def test_an_edited_annotation_trains_again_and_converts_nothing(study):
    edited = min((study.raw / "annotations" / "alpha").glob("*.txt"))
    number, x, *rest = edited.read_text().splitlines()[0].split()
    edited.write_text(" ".join([number, f"{float(x) * 0.99:.6f}", *rest]) + "\n")
    assert planned_jobs(study) == (READ_AGAIN - {"index_scan dataset=hospital"}) | of(study.all_jobs, FROM_LABELS)


@pytest.mark.parametrize(
    ("section", "changes", "rules"),
    [
        ("detect", {"epochs": 31}, FROM_DETECTORS),
        ("detect", {"nms_iou": 0.3}, FROM_JUDGEMENTS),
        ("crops", {"false_frames_per_image": 2.0}, FROM_THRESHOLDS),
        ("classify", {"epochs": 3}, FROM_CLASSIFIERS),
        ("explain", {"composite": "epsilon_gamma_flat"}, {*STAGE_RULES["explain"], *REPORT}),
        ("anatomy", {"match_mm": 20}, {*STAGE_RULES["anatomy"], *REPORT}),
        ("report", {"bootstrap": 60}, REPORT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_setting_runs_what_follows_from_it(lab, section, changes, rules):
    path = lab.directory / "study.yaml"
    with put_back(path):
        settings = yaml.safe_load(path.read_text())
        lab.configure(**{section: settings.get(section, {}) | changes})
        jobs = lab.jobs("--dry-run")
    assert jobs == of(lab.all_jobs, rules)


def test_a_model_more_trains_itself_alone(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(
            classify=yaml.safe_load(path.read_text())["classify"] | {"architectures": [*CLASSIFIERS, "resnet18"]}
        )
        jobs = lab.jobs("--dry-run")
    own = {job.replace("resnet50", "resnet18") for job in of(lab.all_jobs, FROM_CLASSIFIERS, classifier="resnet50")}
    assert jobs == own | of(lab.all_jobs, FROM_MAPS)


def test_more_members_train_themselves_alone_and_what_comes_of_detectors_follows(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(detect=yaml.safe_load(path.read_text())["detect"] | {"members": 2})
        jobs = lab.jobs("--dry-run")
    assert jobs == {f"{job}-1" for job in of(lab.all_jobs, TRAIN)} | of(lab.all_jobs, FROM_JUDGEMENTS)


def test_shards_that_a_job_takes_together_are_judged_by_one_and_train_nothing(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(detect=yaml.safe_load(path.read_text())["detect"] | {"shards_per_job": 2})
        jobs = lab.jobs("--dry-run")
    single = of(lab.all_jobs, JUDGE, dataset="hospital", block="other-000")
    behind = [
        of(lab.all_jobs, OF_A_SHARD - {"images_convert"}, dataset="hospital", shard=f"other-00{n}") for n in (0, 1)
    ]
    assert single
    assert jobs == {f"{job}-001" for job in single} | behind[0] | behind[1] | of(lab.all_jobs, FROM_CLASSIFIERS)


def test_sweeps_train_models_of_their_own_alone(lab):
    jobs = lab.jobs("sweep", "sweep_classifiers", "--dry-run")
    points = range(4)  # of the shipped grids
    assert jobs == {
        "sweep",
        "sweep_classifiers",
        *(f"sweep_train point={point},fold=0,repeat=0,part={part}" for point in points for part in range(3)),
        *(f"sweep_classifier point={point},fold=0,repeat={repeat}" for point in points for repeat in range(2)),
    }


def test_another_round_of_mining_adds_its_own_jobs_and_the_report(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(mining={"rounds": 2})
        jobs = lab.jobs("--dry-run")
    own, miner = set(), "yolov6n"
    for shard in ("annotated-000", "other-000", "other-001"):
        where = f"dataset=hospital,shard={shard}"
        own |= {f"mining_frames detector={miner},round={number},{where}" for number in (1, 2)}
        # what teaches a fold's detector is mined by such as never saw that fold
        own |= {f"mining_nested_frames detector={miner},round=1,without={fold},{where}" for fold in range(3)}
        own |= {f"mining_nested_labels detector={miner},round=2,without={fold},{where}" for fold in range(3)}
        own |= {f"mining_detect detector={miner},round=2,dataset=hospital,block={shard}"}
    own |= {f"mining_train detector={miner},round=2,fold={fold}" for fold in range(3)}
    assert jobs == own | {f"mining_thresholds detector={miner},round=2", "report_rounds"} | of(lab.all_jobs, REPORT)


def test_a_third_round_mines_without_each_fold_by_the_second_rounds_detectors(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(mining={"rounds": 3})
        jobs = lab.jobs("--dry-run")
    pairs = [(without, fold) for without in range(3) for fold in range(3) if fold != without]
    of_pairs = {f"mining_nested_train detector=yolov6n,round=2,without={a},fold={b}" for a, b in pairs}
    assert of(jobs, {"mining_nested_train"}) == of_pairs
    assert len(of(jobs, {"mining_nested_frames"}, round=2)) == len(of(jobs, {"mining_nested_labels"}, round=3)) == 9


def test_rounds_that_are_not_nested_share_their_labels(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        crops = yaml.safe_load(path.read_text())["crops"] | {"nested": False}
        lab.configure(mining={"rounds": 2}, crops=crops)
        jobs = lab.jobs("--dry-run")
    assert len(of(jobs, {"mining_labels"}, round=2)) == 3
    assert not {job for job in jobs if "nested" in job}


def test_crops_that_are_not_nested_teach_the_classifiers_anew_and_nothing_else(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(crops=yaml.safe_load(path.read_text())["crops"] | {"nested": False})
        jobs = lab.jobs("--dry-run")
    taught = {job for job in of(lab.all_jobs, {"classify_train"}) if "protocol=out_of_fold" in job}
    behind = {job for job in of(lab.all_jobs, FROM_CLASSIFIERS) if "protocol=out_of_fold" in job}
    assert taught < behind
    assert jobs == behind | of(lab.all_jobs, FROM_MAPS - {"report_learning"})


def test_what_more_lesions_bring_is_read_from_the_detectors_of_pairs(lab):
    done = lab.run("results/report/learning.tsv", "--dry-run", "--force")
    blocks = ("annotated-000", "other-000", "other-001")
    where = "results/nested/detect/yolov6n/without"
    assert {f"{where}{fold}/hospital/{block}.tsv" for fold in range(3) for block in blocks} == set(
        re.findall(rf"{where}\d/hospital/[\w-]+\.tsv", done.stdout + done.stderr)
    )


def test_a_fold_is_left_out_with_one_detector_a_pair(lab):
    pairs = {f"nested_train detector=yolov6n,without={low},fold={high}" for low, high in ((0, 1), (0, 2), (1, 2))}
    assert of(lab.all_jobs, {"nested_train"}) == pairs
    shards = ("annotated-000", "other-000", "other-001")
    cut = {f"nested_cut without={fold},dataset=hospital,shard={shard}" for fold in range(3) for shard in shards}
    assert of(lab.all_jobs, {"nested_cut"}) == cut


def test_background_of_all_patients_gives_every_shard_labels_and_trains_again(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        lab.configure(detect=yaml.safe_load(path.read_text())["detect"] | {"background": "all"})
        jobs = lab.jobs("--dry-run")
    framed = of(lab.all_jobs, {"labels_yolo"})
    others = {job.replace("annotated-000", f"other-00{n}") for job in framed for n in (0, 1)}
    assert jobs == others | of(lab.all_jobs, FROM_DETECTORS)


def test_pretraining_is_done_once_a_classifier_and_retrains_classifiers_alone(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        pretrain = {"phantom": {"crops": 40, "epochs": 1, "tissue_share": 0.4}}
        lab.configure(classify=yaml.safe_load(path.read_text())["classify"] | {"pretrain": pretrain})
        jobs = lab.jobs("--dry-run")
    once = {f"classify_pretrain classifier={name}" for name in CLASSIFIERS}
    assert jobs == once | of(lab.all_jobs, FROM_CLASSIFIERS)


def test_pretraining_is_done_once_a_detector_and_whatever_comes_of_detectors_after_it(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        detect = yaml.safe_load(path.read_text())["detect"] | {"pretrain": {"phantom": {"images": 8, "epochs": 1}}}
        lab.configure(detect=detect)
        jobs = lab.jobs("--dry-run")
    once = {f"detect_pretrain detector={name}" for name in DETECTORS}
    assert jobs == once | of(lab.all_jobs, FROM_DETECTORS)


def test_another_window_of_a_data_set_converts_it_and_indexes_nothing(lab):
    path = lab.directory / "study.yaml"
    with put_back(path):
        datasets = yaml.safe_load(path.read_text())["datasets"]
        datasets[0]["window"] = {"mode": "none"}
        lab.configure(datasets=datasets)
        jobs = lab.jobs("--dry-run")
    converted = of(lab.all_jobs, {"images_convert"}, dataset="hospital")
    assert jobs == converted | of(lab.all_jobs, FROM_PICTURES - {"images_convert"})


def test_another_seed_runs_everything(study):
    study.configure(seed=2)
    assert planned_jobs(study) == study.all_jobs


@pytest.mark.parametrize(
    ("stage", "rules"),
    [
        ("images", FROM_PICTURES),
        ("detect", FROM_DETECTORS),
        ("crops", FROM_CROPS),
        ("classify", FROM_CLASSIFIERS),
        ("explain", {*STAGE_RULES["explain"], *REPORT}),
        ("anatomy", {*STAGE_RULES["anatomy"], *REPORT}),
        ("report", REPORT),
        ("predict", set()),
        ("diagnose", set()),
        ("verify", set()),
    ],
)
def test_a_changed_module_runs_its_stage_and_what_follows(lab, stage, rules):
    module = lab.code / "workflow" / "mammoflow" / stage / "__init__.py"
    with put_back(module):
        module.write_text(module.read_text() + "\n# changed\n")
        jobs = lab.jobs("--dry-run")
    assert jobs == of(lab.all_jobs, rules)


def test_a_changed_module_of_the_phantoms_draws_them_again_and_the_same(study):
    module = study.code / "workflow" / "mammoflow" / "phantom" / "__init__.py"
    module.write_text(module.read_text() + "\n# changed\n")
    read_again = of(study.all_jobs, {"phantom_generate", "index_scan", "labels_read"}, dataset="outside")
    assert planned_jobs(study) == read_again | {"labels_patients", "labels_plan"}


def test_detectors_with_drawn_lesions_train_again_when_drawing_changes(study):
    path = study.directory / "study.yaml"
    study.configure(detect=yaml.safe_load(path.read_text())["detect"] | {"phantom_paste": 0.5, "epochs": 1})
    training, target = "detect_train detector=yolov6n,fold=0", "results/detect/yolov6n/fold0/model.safetensors"
    assert study.jobs(target) == {training}
    assert study.jobs("--dry-run", target) == set()
    module = study.code / "workflow" / "mammoflow" / "phantom" / "__init__.py"
    module.write_text(module.read_text() + "\n# changed\n")
    assert training in planned_jobs(study)


def test_a_changed_module_of_the_index_reads_again_and_finds_the_same(study):
    module = study.code / "workflow" / "mammoflow" / "index" / "__init__.py"
    module.write_text(module.read_text() + "\n# changed\n")
    up_to_plan = {"index_scan", "labels_read", "labels_patients", "labels_plan"}
    assert planned_jobs(study) == of(study.all_jobs, up_to_plan)


def test_a_changed_module_of_the_labels_runs_all_but_index_and_pictures(study):
    module = study.code / "workflow" / "mammoflow" / "labels" / "__init__.py"
    module.write_text(module.read_text() + "\n# changed\n")
    expected = STAGE_RULES["labels"] | FROM_PICTURES - {"images_convert"}
    assert planned_jobs(study) == of(study.all_jobs, expected)


LOST = {
    "images/hospital/other-000": "images_convert dataset=hospital,shard=other-000",
    "detect/yolov5n/fold0/model.safetensors": "detect_train detector=yolov5n,fold=0",
    "nested/crops/without1/hospital/other-000.tsv": "nested_cut without=1,dataset=hospital,shard=other-000",
    "crops/paper/outside/other-000.tsv": "crops_cut protocol=paper,dataset=outside,shard=other-000",
    "classify/paper/resnet50/outside.tsv": "classify_predict protocol=paper,classifier=resnet50,dataset=outside",
    "explain/detections/yolov6n/outside/other-000.npz": (
        "explain_detections detector=yolov6n,dataset=outside,shard=other-000"
    ),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_lost_output_between_is_made_again_when_asked_for(lab, lost):
    """Snakemake misses none of which all that was made is there; `verify` does, and tells this command."""
    path = lab.directory / "results" / lost
    with put_back(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert lab.jobs("--dry-run") == set()
        assert lab.jobs("--dry-run", "--force", f"results/{lost}") == {LOST[lost]}


def test_a_lost_figure_is_made_again_and_only_the_page_that_shows_it(lab):
    path = lab.directory / "results" / "figures" / "fig05.pdf"
    with put_back(path):
        path.unlink()
        jobs = lab.jobs("--dry-run")
    assert jobs == {"report_figure figure=fig05", "report_page"}
