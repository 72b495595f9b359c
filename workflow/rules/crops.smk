"""Crops. Needs detections, thresholds, frames and pictures. Gives malignant and benign crops with provenance, by shard."""


rule crops_cut:
    input:
        detections=mined_detections,
        thresholds=f"results/detect/{setting('crops', 'detector')}/thresholds.tsv",
        images="results/images/{dataset}/{shard}.tsv",
        plan=ancient(plan),
        index=ancient("results/index/{dataset}.tsv"),
        lesions=ancient("results/labels/{dataset}/lesions.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/crops/{protocol}/{dataset}/{shard}.tsv",
        screened="results/crops/{protocol}/{dataset}/screened/{shard}.tsv",
        pictures=directory("results/crops/{protocol}/{dataset}/{shard}"),
    log:
        "results/logs/crops_cut/{protocol}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/crops_cut/{protocol}/{dataset}/{shard}.tsv"
    conda:
        "../../envs/crops.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        settings=shared_setting("crops"),
        planned=planned("labels"),
        code=code_digest("crops"),
    script:
        "../scripts/crops_cut.py"


# Nested (crops.nested): the study once more as if a fold didn't exist, for the crops that teach that fold's classifier. Of
# each pair of folds one detector saw neither; it lies in `without` the lower, as `fold` the higher, and judges both.
use rule detect_train as nested_train with:
    output:
        model="results/nested/detect/{detector}/without{without}/fold{fold}/model.safetensors",
        history="results/nested/detect/{detector}/without{without}/fold{fold}/history.csv",
    log:
        "results/logs/nested_train/{detector}/without{without}/fold{fold}.log",
    benchmark:
        "results/benchmarks/nested_train/{detector}/without{without}/fold{fold}.tsv"


use rule detect_images as nested_detect with:
    input:
        models=nested_models,
        images=pictures_of_block,
        plan=ancient(plan),
        patients=ancient("results/labels/patients.tsv"),
    output:
        detections="results/nested/detect/{detector}/without{without}/{dataset}/{block}.tsv",
    log:
        "results/logs/nested_detect/{detector}/without{without}/{dataset}/{block}.log",
    benchmark:
        "results/benchmarks/nested_detect/{detector}/without{without}/{dataset}/{block}.tsv"
    wildcard_constraints:
        dataset="|".join(INTERNAL),


use rule detect_thresholds as nested_thresholds with:
    input:
        detections=blocks(
            "results/nested/detect/{{detector}}/without{{without}}/{dataset}/{block}.tsv",
            INTERNAL,
            "annotated",
        ),
        tables=shards("results/labels/{dataset}/{shard}.tsv", INTERNAL, "annotated"),
        lesions=ancient(
            expand("results/labels/{dataset}/lesions.tsv", dataset=INTERNAL)
        ),
    output:
        thresholds="results/nested/detect/{detector}/without{without}/thresholds.tsv",
        curve="results/nested/detect/{detector}/without{without}/curve.tsv",
    log:
        "results/logs/nested_thresholds/{detector}/without{without}.log",
    benchmark:
        "results/benchmarks/nested_thresholds/{detector}/without{without}.tsv"


use rule crops_cut as nested_cut with:
    input:
        detections=lambda wildcards: detections_of(
            wildcards,
            f"results/nested/detect/{setting('crops', 'detector')}/without{wildcards.without}",
        ),
        thresholds=f"results/nested/detect/{setting('crops', 'detector')}/without{{without}}/thresholds.tsv",
        images="results/images/{dataset}/{shard}.tsv",
        plan=ancient(plan),
        index=ancient("results/index/{dataset}.tsv"),
        lesions=ancient("results/labels/{dataset}/lesions.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/nested/crops/without{without}/{dataset}/{shard}.tsv",
        screened="results/nested/crops/without{without}/{dataset}/screened/{shard}.tsv",
        pictures=directory("results/nested/crops/without{without}/{dataset}/{shard}"),
    log:
        "results/logs/nested_cut/without{without}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/nested_cut/without{without}/{dataset}/{shard}.tsv"
