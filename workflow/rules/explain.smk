"""Explain. Needs detectors, classifiers, detections and crops. Gives signed relevance maps in source geometry and their figures."""


rule explain_detections:
    input:
        models=expand(
            "results/detect/{{detector}}/fold{fold}/model.safetensors", fold=FOLDS
        ),
        detections="results/detect/{detector}/{dataset}/{shard}.tsv",
        images="results/images/{dataset}/{shard}.tsv",
    output:
        table="results/explain/detections/{detector}/{dataset}/{shard}.tsv",
        maps="results/explain/detections/{detector}/{dataset}/{shard}.npz",
        overlays=directory("results/explain/detections/{detector}/{dataset}/{shard}"),
    log:
        "results/logs/explain_detections/{detector}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/explain_detections/{detector}/{dataset}/{shard}.tsv"
    conda:
        "../../envs/explain.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(240),
        gpu=GPU,
    params:
        settings=setting("explain"),
        device=setting("device"),
        code=code_digest("explain"),
    script:
        "../scripts/explain_detections.py"


rule explain_crops:
    input:
        models=expand(
            "results/classify/{{protocol}}/{{classifier}}/fold{fold}/model.safetensors",
            fold=FOLDS,
        ),
        predictions="results/classify/{protocol}/{classifier}/{dataset}.tsv",
        crops=lambda wildcards: shards(
            f"results/crops/{wildcards.protocol}/{{dataset}}/{{shard}}.tsv",
            [wildcards.dataset],
        ),
    output:
        table="results/explain/crops/{protocol}/{classifier}/{dataset}.tsv",
        maps="results/explain/crops/{protocol}/{classifier}/{dataset}.npz",
        overlays=directory("results/explain/crops/{protocol}/{classifier}/{dataset}"),
    log:
        "results/logs/explain_crops/{protocol}/{classifier}/{dataset}.log",
    benchmark:
        "results/benchmarks/explain_crops/{protocol}/{classifier}/{dataset}.tsv"
    conda:
        "../../envs/explain.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(240),
        gpu=GPU,
    params:
        settings=setting("explain"),
        device=setting("device"),
        code=code_digest("explain"),
    script:
        "../scripts/explain_crops.py"
