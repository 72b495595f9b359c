"""Names from the config and the look-ups of all stages: what is watched, where a table lies. Needs nothing."""

import os
import sys

from mammoflow.config import (
    PATIENTS_KEYS,
    TRAINING_KEYS,
    check_config,
    sweep_points,
    sweep_settings,
)
from mammoflow.diagnose.request import check_request
from mammoflow.errors import MammoflowError
from mammoflow.index.listing import listing_digest
from mammoflow.labels.plan import planned_digest, shard_blocks, shard_names
from mammoflow.predict.request import check_frozen, requested
from mammoflow.provenance import code_digest, file_sha256, text_digest


def or_stop(function, *arguments):
    """Call a check; end with its message where an exception would be shown with a traceback."""
    try:
        return function(*arguments)
    except MammoflowError as error:
        sys.exit(f"{type(error).__name__}: {error}")


STUDY = or_stop(check_config, config)

DATASETS = [dataset["name"] for dataset in STUDY["datasets"]]
INTERNAL = [
    dataset["name"] for dataset in STUDY["datasets"] if dataset["role"] == "internal"
]
EXTERNAL = [
    dataset["name"] for dataset in STUDY["datasets"] if dataset["role"] == "external"
]
DETECTORS = STUDY["detect"]["architectures"]
CLASSIFIERS = STUDY["classify"]["architectures"]
PROTOCOLS = STUDY["crops"]["protocols"]
NESTED = STUDY["crops"]["nested"]
ROUNDS = list(range(1, STUDY["mining"]["rounds"] + 1))
FOLDS = list(range(STUDY["labels"]["folds"]))
# places of a fold's detectors: `0`, and, with detect.members above 1, `0-1`, `0-2`: more members retrain none
MEMBERS = {
    fold: [
        f"{fold}-{member}" if member else f"{fold}"
        for member in range(STUDY["detect"]["members"])
    ]
    for fold in FOLDS
}
EVERY_MEMBER = [place for places in MEMBERS.values() for place in places]
# shards that detectors learn from
LEARNED = "annotated" if STUDY["detect"]["background"] == "annotated" else ""
GPU = 1 if STUDY["device"] == "cuda" else 0
# threads of a detection job: on a GPU they read pictures, which one thread can't do as fast as they are judged
READERS = 4 if GPU else 1
FAITHFULNESS = (
    expand("results/explain/faithfulness/detections/{detector}.tsv", detector=DETECTORS)
    + expand(
        "results/explain/faithfulness/crops/{protocol}/{classifier}.tsv",
        protocol=PROTOCOLS[:1],
        classifier=CLASSIFIERS,
    )
    if STUDY["explain"]["faithfulness"]["images"]
    else []
)
# What the report shows. Where a diagnosed study lies is no part of it, and may carry a patient's name into the metadata
REPORTED = {key: value for key, value in STUDY.items() if key not in ("study", "roots")}
BY_NAME = {dataset["name"]: dataset for dataset in STUDY["datasets"]}
# shards that a detection job takes together, by data set and by the block's name in its table's path
BLOCKS = {
    dataset["name"]: shard_blocks(dataset["shards"], STUDY["detect"]["shards_per_job"])
    for dataset in STUDY["datasets"]
}


wildcard_constraints:
    dataset="|".join(DATASETS),
    shard=r"(annotated|other)-\d{3}",
    block=r"(annotated|other)-\d{3}(-\d{3})?",
    detector=r"[a-z0-9._-]+",
    classifier=r"[a-z0-9._-]+",
    protocol="out_of_fold|paper",
    fold=r"\d+",
    without=r"\d+",
    round=r"\d+",


def shards(pattern, datasets, group="", **wildcards):
    """Expand `pattern` over the shards of `datasets` (`group`: annotated or other only) and over `wildcards`."""
    return [
        path
        for dataset in datasets
        for shard in shard_names(BY_NAME[dataset]["shards"])
        if shard.startswith(group)
        for path in expand(pattern, dataset=dataset, shard=shard, **wildcards)
    ]


def blocks(pattern, datasets, group="", **wildcards):
    """Expand `pattern` over the blocks of shards of `datasets`, as `shards` does over shards."""
    return [
        path
        for dataset in datasets
        for block in BLOCKS[dataset]
        if block.startswith(group)
        for path in expand(pattern, dataset=dataset, block=block, **wildcards)
    ]


def pictures_of_block(wildcards):
    """Tables of pictures of the block's shards."""
    shards = BLOCKS[wildcards.dataset][wildcards.block]
    return expand(
        "results/images/{dataset}/{shard}.tsv", dataset=wildcards.dataset, shard=shards
    )


def detections_of(wildcards, where):
    """The table below `where` that holds the shard's detections: that of its block."""
    of_shard = (
        block
        for block, inside in BLOCKS[wildcards.dataset].items()
        if wildcards.shard in inside
    )
    return f"{where}/{wildcards.dataset}/{next(of_shard)}.tsv"


def setting(*keys):
    """Value of the config at `keys`: what a rule puts in its params."""
    value = STUDY
    for key in keys:
        value = value[key]
    return value


def shared_setting(section):
    """A section without what its rules' wildcards come from: a model more retrains none of the others."""
    return {
        key: value
        for key, value in setting(section).items()
        if key not in ("architectures", "protocols", "nested", "shards_per_job")
    }


def of_dataset(*keys):
    """A params function: the values at `keys` of the wildcard's data set."""
    return lambda wildcards: {key: BY_NAME[wildcards.dataset].get(key) for key in keys}


def environment(stage):
    """Environment of a stage that computes with torch: the one built for the study's device."""
    return f"../../envs/{stage}.{STUDY['device']}.yaml"


def grows(amount):
    """A resource (MB or minutes) of which the n-th attempt gets n times `amount`: a retried job may have lacked it."""
    return lambda wildcards, attempt: attempt * amount


def training_mb(size, batch, side, per_picture):
    """MB that a training asks for: on a CPU, `per_picture` MB for each picture of `side` pixels in a batch besides 3000.

    400 MB a picture of 640 pixels are measured with yolov5s (yolov5n: 220), 100 MB a crop of 224 with resnet50.
    On a GPU they are its own memory; 8000 MB are for its driver and the loaders.
    """
    if GPU:
        return 8000
    return 3000 + round(batch * (size / side) ** 2 * per_picture)


def of_point(wildcards):
    """Section `detect` of the config with the values of the sweep's point."""
    return sweep_settings(STUDY["detect"], STUDY["sweep"], int(wildcards.point))


def plan(wildcards):
    """The shard plan. It is the workflow's one checkpoint: what it says of a shard decides whether the shard re-runs."""
    return checkpoints.labels_plan.get().output.plan


def planned(kind):
    """A params function: digest of what the plan gives the shard or each of the block (`images`: files, `labels`: frames)."""

    def digests(wildcards):
        block = wildcards.get("block")
        shards = BLOCKS[wildcards.dataset][block] if block else [wildcards.shard]
        found = [
            planned_digest(plan(wildcards), kind, wildcards.dataset, shard)
            for shard in shards
        ]
        return found if len(found) > 1 else found[0]

    return digests


def raw_files(wildcards):
    """What a data set's index reads: a phantom's manifest; other directories are watched by their listing's digest."""
    if BY_NAME[wildcards.dataset]["source"] == "phantom":
        return {"manifest": f"results/phantom/{wildcards.dataset}/manifest.tsv"}
    return {}


def listing(wildcards):
    """Digest of the names, sizes and times below the root; taken by the main process only, never in a job's."""
    dataset = BY_NAME[wildcards.dataset]
    if dataset["source"] == "phantom" or not workflow.is_main_process:
        return ""
    return [
        listing_digest(dataset["root"], path)
        for path in dataset["directories"].values() or [None]
    ]


def annotation_listing(*keys):
    """A params function: digests of the names, sizes and times of the files of `annotations`, `truth` or `masks`.

    They are taken by the main process only, never in a job's; a phantom's files are known by its manifest.
    """

    def listed(wildcards):
        dataset = BY_NAME[wildcards.dataset]
        if dataset["source"] == "phantom" or not workflow.is_main_process:
            return ""
        given = [dataset[key] for key in keys if key in dataset]
        entries = [
            entry
            for each in given
            for entry in (each if isinstance(each, list) else [each])
        ]
        paths = [
            entry if isinstance(entry, str) else entry["path"] for entry in entries
        ]
        return [listing_digest(dataset["root"], path) for path in paths]

    return listed


def nested_models(wildcards):
    """Detectors that saw neither the fold left out nor another, of each other fold in order; of a pair there is one."""
    without = int(wildcards.without)
    pairs = [sorted((fold, without)) for fold in FOLDS if fold != without]
    return [
        f"results/nested/detect/{wildcards.detector}/without{lower}/fold{place}/model.safetensors"
        for lower, higher in pairs
        for place in MEMBERS[higher]
    ]


def teaching_crops(wildcards):
    """Tables of the crops that a classifier of the wildcards' fold learns from."""
    protocol = wildcards.get("protocol", setting("sweep_classifiers", "protocol"))
    if protocol == "out_of_fold" and NESTED:
        where = f"results/nested/crops/without{wildcards.fold}"
    else:
        where = f"results/crops/{protocol}"
    return shards(f"{where}/{{dataset}}/{{shard}}.tsv", INTERNAL)


def mined_detections(wildcards):
    """Out-of-fold detections, or, for the paper's protocol, those of its one model."""
    mined = f"results/detect/{setting('crops', 'detector')}"
    return detections_of(
        wildcards, f"{mined}/paper" if wildcards.protocol == "paper" else mined
    )


def round_place(wildcards):
    """Where a round's detections and thresholds lie, those that went without a fold apart; the first round isn't mining's."""
    nested = "without" in wildcards.keys()
    stage = "nested/detect" if nested else "detect"
    if int(wildcards.round) > 1:
        where = f"results/mining/{wildcards.detector}/round{wildcards.round}"
    else:
        where = f"results/{stage}/{wildcards.detector}"
    return f"{where}/without{wildcards.without}" if nested else where


def round_labels(wildcards):
    """Label tables that a round's detectors learn from: mined, where crops are nested, by such as never saw their fold."""
    fold = wildcards.get("without", wildcards.fold.partition("-")[0])
    apart = f"without{fold}/" if NESTED else ""
    where = f"results/mining/{wildcards.detector}/round{wildcards.round}/{apart}labels"
    return shards(f"{where}/{{dataset}}/{{shard}}.tsv", INTERNAL)


def pretraining():
    """What decides a classifier's pretraining: how long folds train and when they stop doesn't."""
    keys = ("weights", "crop_size", "batch", "learning_rate", "ema", "threads")
    scale = setting("crops", "scale") or {}
    return {key: setting("classify", key) for key in (*keys, "augment", "pretrain")} | {
        "margin": setting("crops", "margin"),
        "side_mm": scale.get("side_mm"),
    }


def training_code():
    """Digests of what trains detectors: where lesions are drawn into pictures, how they are drawn, too."""
    draws = setting("detect", "phantom_paste") or "phantom_paste" in setting(
        "sweep", "grid"
    )
    return [code_digest(stage) for stage in ("detect", *(["phantom"] if draws else []))]


def start_of_detector(wildcards):
    """The pretrained detector, where pretraining is asked for."""
    name = wildcards.get("detector", setting("sweep", "detector"))
    return (
        {"start": f"results/detect/pretrained/{name}/model.safetensors"}
        if setting("detect", "pretrain")
        else {}
    )


def start_of_training(wildcards):
    """The pretrained classifier, where pretraining is asked for."""
    name = wildcards.get("classifier", setting("sweep_classifiers", "classifier"))
    return (
        {"start": f"results/classify/pretrained/{name}/model.safetensors"}
        if setting("classify", "pretrain")
        else {}
    )


def relevance_maps(suffix):
    """An input function: maps of all models of the wildcard's data set, tables (tsv) or arrays (npz) in one order."""

    def found(wildcards):
        where = [wildcards.dataset]
        detections = (
            f"results/explain/detections/{{detector}}/{{dataset}}/{{shard}}.{suffix}"
        )
        crops = (
            f"results/explain/crops/{{protocol}}/{{classifier}}/{{dataset}}.{suffix}"
        )
        return [
            *shards(detections, where, detector=DETECTORS),
            *expand(crops, protocol=PROTOCOLS, classifier=CLASSIFIERS, dataset=where),
        ]

    return found


def report_files(*names):
    """Digest of files in workflow/report/: a changed template or caption makes the page again."""
    return text_digest(
        *(file_sha256(f"{workflow.basedir}/workflow/report/{name}") for name in names)
    )


def request(wildcards):
    """No file: a missing, wrong or empty directory stops before any model is trained."""
    or_stop(check_request, setting("study"))
    return []


# Models and tables that `predict` uses as they are: parameters, not inputs, so that it never trains.
FROZEN = {
    "protocol": PROTOCOLS[0],
    "detectors": {
        name: expand(
            "results/detect/{detector}/fold{fold}/model.safetensors",
            detector=name,
            fold=EVERY_MEMBER,
        )
        for name in DETECTORS
    },
    "thresholds": {name: f"results/detect/{name}/thresholds.tsv" for name in DETECTORS},
    "classifiers": {
        name: expand(
            "results/classify/{protocol}/{classifier}/fold{fold}/model.safetensors",
            protocol=PROTOCOLS[0],
            classifier=name,
            fold=FOLDS,
        )
        for name in CLASSIFIERS
    },
    "study": {
        "indices": expand("results/index/{dataset}.tsv", dataset=INTERNAL),
        "patients": ["results/labels/patients.tsv"],
        "lesions": expand("results/labels/{dataset}/lesions.tsv", dataset=INTERNAL),
        "truths": expand("results/labels/{dataset}/truth.tsv", dataset=INTERNAL),
        "densities": expand("results/labels/{dataset}/densities.tsv", dataset=INTERNAL),
        "images": shards("results/images/{dataset}/{shard}.tsv", INTERNAL),
        "crops": shards(
            "results/crops/{protocol}/{dataset}/{shard}.tsv",
            INTERNAL,
            protocol=PROTOCOLS[:1],
        ),
        "predictions": expand(
            "results/classify/{protocol}/{classifier}/{dataset}.tsv",
            protocol=PROTOCOLS[:1],
            classifier=CLASSIFIERS,
            dataset=INTERNAL,
        ),
        "judged_frames": expand(
            "results/classify/{protocol}/{classifier}/{dataset}.frames.tsv",
            protocol=PROTOCOLS[:1],
            classifier=CLASSIFIERS,
            dataset=INTERNAL,
        ),
    },
}


def frozen_files():
    """Models and thresholds that `predict` needs."""
    models = [*FROZEN["detectors"].values(), *FROZEN["classifiers"].values()]
    return [path for paths in models for path in paths] + list(
        FROZEN["thresholds"].values()
    )


def prediction(wildcards):
    """No file: a directory that can't be used or a model that isn't there stops before any job."""
    or_stop(requested, STUDY)
    or_stop(check_frozen, frozen_files())
    return []


def watched_prediction(wildcards):
    """Digests of the images' directory, of the models and of the study's tables; taken by the main process only."""
    if not workflow.is_main_process:
        return ""
    tables = [path for paths in FROZEN["study"].values() for path in paths]
    present = [path for path in [*frozen_files(), *tables] if os.path.isfile(path)]
    return [
        listing_digest(requested(STUDY)["root"]),
        text_digest(*(f"{path} {file_sha256(path)}" for path in present)),
    ]
