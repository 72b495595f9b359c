"""Mining. Needs detections and thresholds. Gives accepted frames, and, with mining.rounds above 1, detectors that learnt from them."""


rule mining_frames:
    input:
        detections=lambda wildcards: detections_of(wildcards, round_place(wildcards)),
        thresholds=lambda wildcards: f"{round_place(wildcards)}/thresholds.tsv",
        images="results/images/{dataset}/{shard}.tsv",
        plan=ancient(plan),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/mining/{detector}/round{round}/frames/{dataset}/{shard}.tsv",
    log:
        "results/logs/mining_frames/{detector}/round{round}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/mining_frames/{detector}/round{round}/{dataset}/{shard}.tsv"
    conda:
        "../../envs/mining.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        settings=shared_setting("crops"),
        planned=planned("labels"),
        code=code_digest("mining"),
    script:
        "../scripts/mining_frames.py"


rule mining_labels:
    input:
        accepted=lambda wildcards: f"results/mining/{wildcards.detector}/round{int(wildcards.round) - 1}/frames/{wildcards.dataset}/{wildcards.shard}.tsv",
        images="results/images/{dataset}/{shard}.tsv",
        plan=ancient(plan),
        lesions=ancient("results/labels/{dataset}/lesions.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/mining/{detector}/round{round}/labels/{dataset}/{shard}.tsv",
        files=directory(
            "results/mining/{detector}/round{round}/labels/{dataset}/{shard}"
        ),
    log:
        "results/logs/mining_labels/{detector}/round{round}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/mining_labels/{detector}/round{round}/{dataset}/{shard}.tsv"
    conda:
        "../../envs/mining.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        learned=LEARNED,
        planned=planned("labels"),
        code=code_digest("mining"),
    script:
        "../scripts/mining_labels.py"


# A later round's detectors are trained and judged as the first round's are: the same folds, settings and scripts.
use rule detect_train as mining_train with:
    input:
        unpack(start_of_detector),
        tables=round_labels,
    output:
        model="results/mining/{detector}/round{round}/fold{fold}/model.safetensors",
        history="results/mining/{detector}/round{round}/fold{fold}/history.csv",
    log:
        "results/logs/mining_train/{detector}/round{round}/fold{fold}.log",
    benchmark:
        "results/benchmarks/mining_train/{detector}/round{round}/fold{fold}.tsv"


use rule detect_images as mining_detect with:
    input:
        models=expand(
            "results/mining/{{detector}}/round{{round}}/fold{fold}/model.safetensors",
            fold=EVERY_MEMBER,
        ),
        images=pictures_of_block,
        plan=ancient(plan),
        patients=ancient("results/labels/patients.tsv"),
    output:
        detections="results/mining/{detector}/round{round}/{dataset}/{block}.tsv",
    log:
        "results/logs/mining_detect/{detector}/round{round}/{dataset}/{block}.log",
    benchmark:
        "results/benchmarks/mining_detect/{detector}/round{round}/{dataset}/{block}.tsv"


use rule detect_thresholds as mining_thresholds with:
    input:
        detections=blocks(
            "results/mining/{{detector}}/round{{round}}/{dataset}/{block}.tsv",
            INTERNAL,
            "annotated",
        ),
        tables=shards("results/labels/{dataset}/{shard}.tsv", INTERNAL, "annotated"),
        lesions=ancient(
            expand("results/labels/{dataset}/lesions.tsv", dataset=INTERNAL)
        ),
    output:
        thresholds="results/mining/{detector}/round{round}/thresholds.tsv",
        curve="results/mining/{detector}/round{round}/curve.tsv",
    log:
        "results/logs/mining_thresholds/{detector}/round{round}.log",
    benchmark:
        "results/benchmarks/mining_thresholds/{detector}/round{round}.tsv"


# Where crops are nested, so are rounds: what a fold's detectors learn was mined by such as never saw that fold.
use rule mining_frames as mining_nested_frames with:
    output:
        table="results/mining/{detector}/round{round}/without{without}/frames/{dataset}/{shard}.tsv",
    log:
        "results/logs/mining_nested_frames/{detector}/round{round}/without{without}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/mining_nested_frames/{detector}/round{round}/without{without}/{dataset}/{shard}.tsv"


use rule mining_labels as mining_nested_labels with:
    input:
        accepted=lambda wildcards: f"results/mining/{wildcards.detector}/round{int(wildcards.round) - 1}/without{wildcards.without}/frames/{wildcards.dataset}/{wildcards.shard}.tsv",
        images="results/images/{dataset}/{shard}.tsv",
        plan=ancient(plan),
        lesions=ancient("results/labels/{dataset}/lesions.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/mining/{detector}/round{round}/without{without}/labels/{dataset}/{shard}.tsv",
        files=directory(
            "results/mining/{detector}/round{round}/without{without}/labels/{dataset}/{shard}"
        ),
    log:
        "results/logs/mining_nested_labels/{detector}/round{round}/without{without}/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/mining_nested_labels/{detector}/round{round}/without{without}/{dataset}/{shard}.tsv"


use rule mining_train as mining_nested_train with:
    output:
        model="results/mining/{detector}/round{round}/without{without}/fold{fold}/model.safetensors",
        history="results/mining/{detector}/round{round}/without{without}/fold{fold}/history.csv",
    log:
        "results/logs/mining_nested_train/{detector}/round{round}/without{without}/fold{fold}.log",
    benchmark:
        "results/benchmarks/mining_nested_train/{detector}/round{round}/without{without}/fold{fold}.tsv"


use rule nested_detect as mining_nested_detect with:
    input:
        models=lambda wildcards: expand(
            f"{round_place(wildcards)}/fold{{place}}/model.safetensors",
            place=[
                place
                for fold in FOLDS
                if fold != int(wildcards.without)
                for place in MEMBERS[fold]
            ],
        ),
        images=pictures_of_block,
        plan=ancient(plan),
        patients=ancient("results/labels/patients.tsv"),
    output:
        detections="results/mining/{detector}/round{round}/without{without}/{dataset}/{block}.tsv",
    log:
        "results/logs/mining_nested_detect/{detector}/round{round}/without{without}/{dataset}/{block}.log",
    benchmark:
        "results/benchmarks/mining_nested_detect/{detector}/round{round}/without{without}/{dataset}/{block}.tsv"


use rule nested_thresholds as mining_nested_thresholds with:
    input:
        detections=blocks(
            "results/mining/{{detector}}/round{{round}}/without{{without}}/{dataset}/{block}.tsv",
            INTERNAL,
            "annotated",
        ),
        tables=shards("results/labels/{dataset}/{shard}.tsv", INTERNAL, "annotated"),
        lesions=ancient(
            expand("results/labels/{dataset}/lesions.tsv", dataset=INTERNAL)
        ),
    output:
        thresholds="results/mining/{detector}/round{round}/without{without}/thresholds.tsv",
        curve="results/mining/{detector}/round{round}/without{without}/curve.tsv",
    log:
        "results/logs/mining_nested_thresholds/{detector}/round{round}/without{without}.log",
    benchmark:
        "results/benchmarks/mining_nested_thresholds/{detector}/round{round}/without{without}.tsv"
