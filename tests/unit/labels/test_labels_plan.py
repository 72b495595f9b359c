import json
import os
import subprocess
import sys

import pytest

from mammoflow import tables
from mammoflow.errors import DataError
from mammoflow.labels.plan import make_plan, planned_digest, shard_blocks, shard_names

HOSPITAL = {"name": "hospital", "shards": {"annotated": 1, "other": 3}}
OUTSIDE = {"name": "outside", "shards": {"annotated": 0, "other": 2}}


def patient(key, shard, dataset="hospital", fold=0):
    role = "internal" if fold >= 0 else "external"
    annotated = shard.startswith("annotated")
    return {
        "dataset": dataset,
        "patient_key": key,
        "role": role,
        "label": "positive" if annotated else "negative",
        "annotated": annotated,
        "fold": fold,
        "shard": shard,
    }


PATIENTS = [patient("m1", "annotated-000"), patient("n1", "other-000"), patient("n2", "other-002", fold=1)]
IMAGES = [{"image_id": "i1", "patient_key": "m1"}, {"image_id": "i2", "patient_key": "n1"}]
IMAGES += [{"image_id": "i3", "patient_key": "n2"}]


@pytest.fixture
def plan(tmp_path, make_index, make_lesions):
    def make(images=IMAGES, lesions=({"image_id": "i1"},), patients=PATIENTS):
        path = tmp_path / "plan.json"
        people = tables.from_rows(tables.PATIENTS, list(patients))
        make_plan([HOSPITAL, OUTSIDE], make_index(*images), make_lesions(*lesions), people, path)
        return json.loads(path.read_text())

    return make


def changed(before, after):
    return {
        (kind, dataset, shard)
        for kind in before
        for dataset in before[kind]
        for shard in before[kind][dataset]
        if before[kind][dataset][shard] != after[kind][dataset][shard]
    }


def test_every_shard_has_digests_also_empty_ones(plan):
    digests = plan()
    for kind in ("images", "labels"):
        assert list(digests[kind]["hospital"]) == ["annotated-000", "other-000", "other-001", "other-002"]
        assert list(digests[kind]["outside"]) == ["other-000", "other-001"]


def test_one_new_negative_changes_one_shard(plan):
    images = [*IMAGES, {"image_id": "i9", "patient_key": "n9", "directory_label": "negative"}]
    after = plan(images, patients=[*PATIENTS, patient("n9", "other-001", fold=2)])
    assert changed(plan(), after) == {("images", "hospital", "other-001"), ("labels", "hospital", "other-001")}


@pytest.mark.parametrize("edit", [{"x1": 11.0}, {"expert": False}, {"pathology": "benign"}])
def test_an_edited_frame_changes_the_labels_of_its_shard_only(plan, edit):
    assert changed(plan(), plan(lesions=[{"image_id": "i1", **edit}])) == {("labels", "hospital", "annotated-000")}


def test_a_removed_frame_changes_the_labels_of_its_shard_only(plan):
    assert changed(plan(), plan(lesions=[])) == {("labels", "hospital", "annotated-000")}


def test_another_fold_changes_the_labels_of_its_shard_only(plan):
    people = [*PATIENTS[:2], patient("n2", "other-002", fold=2)]
    assert changed(plan(), plan(patients=people)) == {("labels", "hospital", "other-002")}


@pytest.mark.parametrize(
    "edit", [{"mtime_ns": 2}, {"size": 2}, {"status": "excluded"}, {"directory_label": "negative"}]
)
def test_a_changed_file_changes_the_images_of_its_shard(plan, edit):
    after = plan([{**IMAGES[0]}, {**IMAGES[1], **edit}, {**IMAGES[2]}])
    assert changed(plan(), after) == {("images", "hospital", "other-000")}


def test_an_excluded_file_changes_nothing(plan):
    junk = {"image_id": "i9", "patient_key": "n1", "status": "excluded", "reason": "not_dicom"}
    assert changed(plan(), plan([*IMAGES, junk])) == set()


def test_the_order_of_rows_changes_nothing(plan):
    frames = [{"image_id": "i1", "lesion_id": "i1-0"}, {"image_id": "i1", "lesion_id": "i1-1", "x1": 3.0}]
    assert changed(plan(lesions=frames), plan(IMAGES[::-1], frames[::-1], PATIENTS[::-1])) == set()


def test_planned_digest_reads_the_plan_and_sees_a_new_one(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"images": {"hospital": {"other-000": "aa"}}}')
    assert planned_digest(path, "images", "hospital", "other-000") == "aa"
    path.write_text('{"images": {"hospital": {"other-000": "bb"}}, "labels": {}}')
    os.utime(path, ns=(1, 1))
    assert planned_digest(path, "images", "hospital", "other-000") == "bb"


@pytest.mark.parametrize("content", [None, "{", '{"images": {"hospital": {}}}'])
def test_a_plan_without_the_shard_is_refused(tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"plan\.json: has no digest `images` of shard hospital other-000"):
        planned_digest(path, "images", "hospital", "other-000")


def test_shard_names_are_counted_by_group():
    assert shard_names({"annotated": 2, "other": 1}) == ["annotated-000", "annotated-001", "other-000"]


def test_blocks_hold_neighbouring_shards_of_one_group():
    counts = {"annotated": 1, "other": 5}
    assert shard_blocks(counts, 2) == {
        "annotated-000": ["annotated-000"],
        "other-000-001": ["other-000", "other-001"],
        "other-002-003": ["other-002", "other-003"],
        "other-004": ["other-004"],
    }
    assert shard_blocks(counts, 1) == {name: [name] for name in shard_names(counts)}


def test_parsing_the_workflow_imports_nothing_heavy():
    code = "import sys, mammoflow.labels.plan; print([m for m in ('pandas', 'numpy', 'torch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
