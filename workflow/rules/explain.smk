"""Explain. Needs detectors, classifiers, detections and crops. Gives signed relevance maps in source geometry and their figures.

The truth is read by explain_evaluate alone, after the maps are made.
"""


rule explain_detections:
    input:
        models=expand(
            "results/detect/{{detector}}/fold{fold}/model.safetensors",
            fold=EVERY_MEMBER,
        ),
        detections=lambda wildcards: detections_of(
            wildcards, f"results/detect/{wildcards.detector}"
        ),
        images="results/images/{dataset}/{shard}.tsv",
    output:
        table="results/explain/detections/{detector}/{dataset}/{shard}.tsv",
        maps="results/explain/detections/{detector}/{dataset}/{shard}.npz",
    log:
        "results/logs/explain_detections/{detector}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/explain_detections/{detector}/{dataset}/{shard}.tsv"
    conda:
        environment("explain")
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
        images=lambda wildcards: shards(
            "results/images/{dataset}/{shard}.tsv", [wildcards.dataset]
        ),
    output:
        table="results/explain/crops/{protocol}/{classifier}/{dataset}.tsv",
        maps="results/explain/crops/{protocol}/{classifier}/{dataset}.npz",
    log:
        "results/logs/explain_crops/{protocol}/{classifier}/{dataset}.log",
    benchmark:
        "results/benchmarks/explain_crops/{protocol}/{classifier}/{dataset}.tsv"
    conda:
        environment("explain")
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


rule explain_evaluate:
    input:
        maps=relevance_maps("tsv"),
        containers=relevance_maps("npz"),
        images=lambda wildcards: shards(
            "results/images/{dataset}/{shard}.tsv", [wildcards.dataset]
        ),
        index="results/index/{dataset}.tsv",
        truth="results/labels/{dataset}/truth.tsv",
        masks="results/labels/{dataset}/masks.tsv",
    output:
        detections="results/explain/evaluated/{dataset}/detections.tsv",
        crops="results/explain/evaluated/{dataset}/crops.tsv",
        overlays=directory("results/explain/evaluated/{dataset}/overlays"),
    log:
        "results/logs/explain_evaluate/{dataset}.log",
    benchmark:
        "results/benchmarks/explain_evaluate/{dataset}.tsv"
    conda:
        environment("explain")
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        hit_iou=setting("report", "hit_iou"),
        hit_center=setting("report", "hit_center"),
        code=code_digest("explain"),
    script:
        "../scripts/explain_evaluate.py"


rule explain_try_detector:
    input:
        models=expand(
            "results/detect/{{detector}}/fold{fold}/model.safetensors", fold=FOLDS
        ),
        detections=blocks(
            "results/detect/{{detector}}/{dataset}/{block}.tsv", INTERNAL, "annotated"
        ),
        images=shards("results/images/{dataset}/{shard}.tsv", INTERNAL, "annotated"),
    output:
        table="results/explain/faithfulness/detections/{detector}.tsv",
    log:
        "results/logs/explain_try_detector/{detector}.log",
    benchmark:
        "results/benchmarks/explain_try_detector/{detector}.tsv"
    conda:
        environment("explain")
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
        "../scripts/explain_try_detector.py"


rule explain_try_classifier:
    input:
        models=expand(
            "results/classify/{{protocol}}/{{classifier}}/fold{fold}/model.safetensors",
            fold=FOLDS,
        ),
        predictions=expand(
            "results/classify/{{protocol}}/{{classifier}}/{dataset}.tsv",
            dataset=INTERNAL,
        ),
        crops=shards("results/crops/{{protocol}}/{dataset}/{shard}.tsv", INTERNAL),
    output:
        table="results/explain/faithfulness/crops/{protocol}/{classifier}.tsv",
    log:
        "results/logs/explain_try_classifier/{protocol}/{classifier}.log",
    benchmark:
        "results/benchmarks/explain_try_classifier/{protocol}/{classifier}.tsv"
    conda:
        environment("explain")
    threads: 1
    resources:
        mem_mb=grows(6000),
        runtime=grows(240),
        gpu=GPU,
    params:
        settings=setting("explain"),
        device=setting("device"),
        code=code_digest("explain"),
    script:
        "../scripts/explain_try_classifier.py"
