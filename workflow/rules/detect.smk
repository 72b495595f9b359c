"""Detect. Needs training pictures and label files. Gives detectors per architecture and fold, detections of every image, thresholds."""


# Needs nothing: phantom breasts are drawn on the way. Runs when detect.pretrain asks for it.
rule detect_pretrain:
    output:
        model="results/detect/pretrained/{detector}/model.safetensors",
        history="results/detect/pretrained/{detector}/history.csv",
    log:
        "results/logs/detect_pretrain/{detector}.log",
    benchmark:
        "results/benchmarks/detect_pretrain/{detector}.tsv"
    conda:
        environment("detect")
    threads: setting("detect", "threads")
    resources:
        mem_mb=grows(
            training_mb(
                setting("detect", "image_size"), setting("detect", "batch"), 640, 400
            )
        ),
        runtime=grows(1440),
        gpu=GPU,
    params:
        settings={
            key: setting("detect", key)
            for key in TRAINING_KEYS
            if key not in PATIENTS_KEYS
        },
        pictures={
            key: setting("images", key)
            for key in ("train_size", "breast_crop", "breast_margin", "same_side")
        },
        device=setting("device"),
        seed=setting("seed"),
        code=[code_digest("phantom"), code_digest("images"), code_digest("detect")],
    script:
        "../scripts/detect_pretrain.py"


rule detect_train:
    input:
        unpack(start_of_detector),
        tables=shards("results/labels/{dataset}/{shard}.tsv", INTERNAL, LEARNED),
        images=shards("results/images/{dataset}/{shard}.tsv", INTERNAL, LEARNED),
    output:
        model="results/detect/{detector}/fold{fold}/model.safetensors",
        history="results/detect/{detector}/fold{fold}/history.csv",
    log:
        "results/logs/detect_train/{detector}/fold{fold}.log",
    benchmark:
        "results/benchmarks/detect_train/{detector}/fold{fold}.tsv"
    wildcard_constraints:
        fold=r"\d+(-\d+)?",
    conda:
        environment("detect")
    threads: setting("detect", "threads")
    resources:
        mem_mb=grows(
            training_mb(
                setting("detect", "image_size"), setting("detect", "batch"), 640, 400
            )
        ),
        runtime=grows(1440),
        gpu=GPU,
    params:
        settings={key: setting("detect", key) for key in TRAINING_KEYS},
        device=setting("device"),
        seed=setting("seed"),
        code=training_code(),
    script:
        "../scripts/detect_train.py"


rule detect_images:
    input:
        models=expand(
            "results/detect/{{detector}}/fold{fold}/model.safetensors",
            fold=EVERY_MEMBER,
        ),
        images=pictures_of_block,
        plan=ancient(plan),
        patients=ancient("results/labels/patients.tsv"),
    output:
        detections="results/detect/{detector}/{dataset}/{block}.tsv",
    log:
        "results/logs/detect_images/{detector}/{dataset}/{block}.log",
    benchmark:
        "results/benchmarks/detect_images/{detector}/{dataset}/{block}.tsv"
    conda:
        environment("detect")
    threads: READERS
    resources:
        mem_mb=grows(4000),
        runtime=grows(240),
        gpu=GPU,
    params:
        settings=shared_setting("detect"),
        device=setting("device"),
        planned=planned("labels"),
        code=code_digest("detect"),
    script:
        "../scripts/detect_images.py"


# The paper trains one detector and lets it frame everything: here that of fold 0, whose own images stay its test set.
rule detect_paper:
    input:
        models=expand(
            "results/detect/{{detector}}/fold{fold}/model.safetensors", fold=MEMBERS[0]
        ),
        images=pictures_of_block,
        plan=ancient(plan),
        patients=ancient("results/labels/patients.tsv"),
    output:
        detections="results/detect/{detector}/paper/{dataset}/{block}.tsv",
    log:
        "results/logs/detect_paper/{detector}/{dataset}/{block}.log",
    benchmark:
        "results/benchmarks/detect_paper/{detector}/{dataset}/{block}.tsv"
    conda:
        environment("detect")
    threads: READERS
    resources:
        mem_mb=grows(4000),
        runtime=grows(240),
        gpu=GPU,
    params:
        settings=shared_setting("detect"),
        device=setting("device"),
        planned=planned("labels"),
        code=code_digest("detect"),
    script:
        "../scripts/detect_images.py"


rule detect_thresholds:
    input:
        detections=blocks(
            "results/detect/{{detector}}/{dataset}/{block}.tsv", INTERNAL, "annotated"
        ),
        tables=shards("results/labels/{dataset}/{shard}.tsv", INTERNAL, "annotated"),
        lesions=ancient(
            expand("results/labels/{dataset}/lesions.tsv", dataset=INTERNAL)
        ),
    output:
        thresholds="results/detect/{detector}/thresholds.tsv",
        curve="results/detect/{detector}/curve.tsv",
    log:
        "results/logs/detect_thresholds/{detector}.log",
    benchmark:
        "results/benchmarks/detect_thresholds/{detector}.tsv"
    conda:
        environment("detect")
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        settings=shared_setting("crops"),
        folds=FOLDS,
        code=code_digest("detect"),
    script:
        "../scripts/detect_thresholds.py"


rule sweep_train:
    input:
        unpack(start_of_detector),
        tables=shards("results/labels/{dataset}/{shard}.tsv", INTERNAL, LEARNED),
        images=shards("results/images/{dataset}/{shard}.tsv", INTERNAL, LEARNED),
    output:
        judged="results/sweep/{point}/fold{fold}/seed{repeat}/part{part}.json",
        models=directory("results/sweep/{point}/fold{fold}/seed{repeat}/part{part}"),
    log:
        "results/logs/sweep_train/{point}/fold{fold}/seed{repeat}/part{part}.log",
    benchmark:
        "results/benchmarks/sweep_train/{point}/fold{fold}/seed{repeat}/part{part}.tsv"
    wildcard_constraints:
        point=r"\d+",
        repeat=r"\d+",
        part=r"\d+",
    conda:
        environment("detect")
    threads: setting("detect", "threads")
    resources:
        mem_mb=grows(
            training_mb(
                setting("detect", "image_size"), setting("detect", "batch"), 640, 400
            )
        ),
        runtime=grows(1440),
        gpu=GPU,
    params:
        settings=of_point,
        architecture=setting("sweep", "detector"),
        parts=setting("sweep", "parts"),
        match={key: setting("report", key) for key in ("hit_iou", "hit_center")},
        device=setting("device"),
        seed=setting("seed"),
        code=training_code(),
    script:
        "../scripts/sweep_train.py"


rule sweep:
    input:
        judged=expand(
            "results/sweep/{point}/fold{fold}/seed{repeat}/part{part}.json",
            point=range(len(sweep_points(setting("sweep")))),
            fold=setting("sweep", "folds"),
            repeat=range(setting("sweep", "seeds")),
            part=range(setting("sweep", "parts")),
        ),
    output:
        table="results/sweep/table.tsv",
    log:
        "results/logs/sweep.log",
    benchmark:
        "results/benchmarks/sweep.tsv"
    conda:
        environment("detect")
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        sweep=setting("sweep"),
        rates=setting("report", "false_positives_per_image"),
        code=code_digest("detect"),
    script:
        "../scripts/sweep.py"
