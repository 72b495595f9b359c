"""Crops. Needs detections, thresholds, frames and pictures. Gives malignant and benign crops with provenance, by shard."""


rule crops_cut:
    input:
        detections=mined_detections,
        thresholds=expand(
            "results/detect/{detector}/thresholds.tsv",
            detector=setting("crops", "detector"),
        ),
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
