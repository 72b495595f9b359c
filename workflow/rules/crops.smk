"""Crops. Needs detections, thresholds, frames and pictures. Gives malignant and benign crops with provenance, by shard."""


def mined_detections(wildcards):
    """Out-of-fold detections, or, for the paper's protocol, those of its one model."""
    where = "paper/" if wildcards.protocol == "paper" else ""
    return f"results/detect/{setting('crops', 'detector')}/{where}{wildcards.dataset}/{wildcards.shard}.tsv"


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
        pictures=directory("results/crops/{protocol}/{dataset}/{shard}"),
    log:
        "results/logs/crops_cut/{protocol}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/crops_cut/{protocol}/{dataset}/{shard}.tsv"
    conda:
        "../../envs/crops.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=setting("crops"),
        planned=planned("labels"),
        code=code_digest("crops"),
    script:
        "../scripts/crops_cut.py"
