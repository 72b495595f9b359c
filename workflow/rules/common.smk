"""What several rule files need: names from the config, digests, look-ups. Needs nothing; gives no rule."""

import sys

from mammoflow.config import check_config
from mammoflow.errors import MammoflowError
from mammoflow.index.listing import listing_digest
from mammoflow.labels.plan import planned_digest, shard_names
from mammoflow.provenance import code_digest, settings_digest


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
FOLDS = list(range(STUDY["labels"]["folds"]))
GPU = 1 if STUDY["device"] == "cuda" else 0
BY_NAME = {dataset["name"]: dataset for dataset in STUDY["datasets"]}


wildcard_constraints:
    dataset="|".join(DATASETS),
    shard=r"(annotated|other)-\d{3}",
    detector=r"[a-z0-9._-]+",
    classifier=r"[a-z0-9._-]+",
    protocol="out_of_fold|paper",
    fold=r"\d+",


def shards(pattern, datasets, group="", **wildcards):
    """Expand `pattern` over the shards of `datasets` (`group`: annotated or other only) and over `wildcards`."""
    return [
        path
        for dataset in datasets
        for shard in shard_names(BY_NAME[dataset]["shards"])
        if shard.startswith(group)
        for path in expand(pattern, dataset=dataset, shard=shard, **wildcards)
    ]


def setting(*keys):
    """Value of the config at `keys`: what a rule puts in its params."""
    value = STUDY
    for key in keys:
        value = value[key]
    return value


def of_dataset(*keys):
    """A params function: the values at `keys` of the wildcard's data set."""
    return lambda wildcards: {key: BY_NAME[wildcards.dataset].get(key) for key in keys}


def plan(wildcards):
    """The shard plan. It is the workflow's one checkpoint: what it says of a shard decides whether the shard re-runs."""
    return checkpoints.labels_plan.get().output.plan


def planned(kind):
    """A params function: digest of what the plan gives the wildcards' shard (`images`: its files, `labels`: its frames)."""
    return lambda wildcards: planned_digest(
        plan(wildcards), kind, wildcards.dataset, wildcards.shard
    )
