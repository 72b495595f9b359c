"""Anatomy. Needs detections (lesions and nipples), pictures and views. Gives each lesion's half-plane and quadrant, by shard."""


rule anatomy_locate:
    input:
        detections=lambda wildcards: detections_of(
            wildcards, f"results/detect/{wildcards.detector}"
        ),
        thresholds="results/detect/{detector}/thresholds.tsv",
        images="results/images/{dataset}/{shard}.tsv",
        index=ancient("results/index/{dataset}.tsv"),
    output:
        table="results/anatomy/{detector}/{dataset}/{shard}.tsv",
    log:
        "results/logs/anatomy_locate/{detector}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/anatomy_locate/{detector}/{dataset}/{shard}.tsv"
    conda:
        "../../envs/anatomy.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        settings=setting("anatomy"),
        code=code_digest("anatomy"),
    script:
        "../scripts/anatomy_locate.py"
