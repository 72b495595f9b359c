"""Classify. Needs crops. Gives classifiers per protocol, architecture and fold, and out-of-fold probabilities of crops and frames."""


# Needs nothing: phantom lesions are drawn on the way. Runs when classify.pretrain asks for it.
rule classify_pretrain:
    output:
        model="results/classify/pretrained/{classifier}/model.safetensors",
        history="results/classify/pretrained/{classifier}/history.tsv",
    log:
        "results/logs/classify_pretrain/{classifier}.log",
    benchmark:
        "results/benchmarks/classify_pretrain/{classifier}.tsv"
    conda:
        environment("classify")
    threads: setting("classify", "threads")
    resources:
        mem_mb=grows(
            training_mb(
                setting("classify", "crop_size"),
                setting("classify", "batch"),
                224,
                150,
            )
        ),
        runtime=grows(720),
        gpu=GPU,
    params:
        settings=pretraining(),
        device=setting("device"),
        seed=setting("seed"),
        code=[code_digest("phantom"), code_digest("classify")],
    script:
        "../scripts/classify_pretrain.py"


rule classify_train:
    input:
        unpack(start_of_training),
        crops=teaching_crops,
        duplicates="results/labels/duplicates.tsv",
    output:
        model="results/classify/{protocol}/{classifier}/fold{fold}/model.safetensors",
        history="results/classify/{protocol}/{classifier}/fold{fold}/history.tsv",
    log:
        "results/logs/classify_train/{protocol}/{classifier}/fold{fold}.log",
    benchmark:
        "results/benchmarks/classify_train/{protocol}/{classifier}/fold{fold}.tsv"
    conda:
        environment("classify")
    threads: setting("classify", "threads")
    resources:
        mem_mb=grows(
            training_mb(
                setting("classify", "crop_size"),
                setting("classify", "batch"),
                224,
                150,
            )
        ),
        runtime=grows(720),
        gpu=GPU,
    params:
        settings=shared_setting("classify"),
        device=setting("device"),
        seed=setting("seed"),
        code=code_digest("classify"),
    script:
        "../scripts/classify_train.py"


rule classify_predict:
    input:
        models=expand(
            "results/classify/{{protocol}}/{{classifier}}/fold{fold}/model.safetensors",
            fold=FOLDS,
        ),
        crops=lambda wildcards: shards(
            f"results/crops/{wildcards.protocol}/{{dataset}}/{{shard}}.tsv",
            [wildcards.dataset],
        ),
        detections=lambda wildcards: blocks(
            f"results/detect/{setting('crops', 'detector')}/{{dataset}}/{{block}}.tsv",
            [wildcards.dataset],
        ),
        images=lambda wildcards: shards(
            "results/images/{dataset}/{shard}.tsv", [wildcards.dataset]
        ),
        thresholds=expand(
            "results/detect/{detector}/thresholds.tsv",
            detector=setting("crops", "detector"),
        ),
        index=ancient("results/index/{dataset}.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        predictions="results/classify/{protocol}/{classifier}/{dataset}.tsv",
        frames="results/classify/{protocol}/{classifier}/{dataset}.frames.tsv",
    log:
        "results/logs/classify_predict/{protocol}/{classifier}/{dataset}.log",
    benchmark:
        "results/benchmarks/classify_predict/{protocol}/{classifier}/{dataset}.tsv"
    conda:
        environment("classify")
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(240),
        gpu=GPU,
    params:
        settings=shared_setting("classify"),
        crops=shared_setting("crops"),
        device=setting("device"),
        code=code_digest("classify"),
    script:
        "../scripts/classify_predict.py"


rule sweep_classifier:
    input:
        unpack(start_of_training),
        crops=teaching_crops,
        duplicates="results/labels/duplicates.tsv",
    output:
        judged="results/sweep_classifiers/{point}/fold{fold}/seed{repeat}.json",
    log:
        "results/logs/sweep_classifier/{point}/fold{fold}/seed{repeat}.log",
    benchmark:
        "results/benchmarks/sweep_classifier/{point}/fold{fold}/seed{repeat}.tsv"
    wildcard_constraints:
        point=r"\d+",
        repeat=r"\d+",
    conda:
        environment("classify")
    threads: setting("classify", "threads")
    resources:
        mem_mb=grows(
            training_mb(
                setting("classify", "crop_size"),
                setting("classify", "batch"),
                224,
                150,
            )
        ),
        runtime=grows(720),
        gpu=GPU,
    params:
        settings=lambda wildcards: sweep_settings(
            shared_setting("classify"),
            setting("sweep_classifiers"),
            int(wildcards.point),
        ),
        architecture=setting("sweep_classifiers", "classifier"),
        device=setting("device"),
        seed=setting("seed"),
        code=code_digest("classify"),
    script:
        "../scripts/sweep_classifier.py"


rule sweep_classifiers:
    input:
        judged=expand(
            "results/sweep_classifiers/{point}/fold{fold}/seed{repeat}.json",
            point=range(len(sweep_points(setting("sweep_classifiers")))),
            fold=setting("sweep_classifiers", "folds"),
            repeat=range(setting("sweep_classifiers", "seeds")),
        ),
    output:
        table="results/sweep_classifiers/table.tsv",
    log:
        "results/logs/sweep_classifiers.log",
    benchmark:
        "results/benchmarks/sweep_classifiers.tsv"
    conda:
        environment("classify")
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        sweep=setting("sweep_classifiers"),
        code=code_digest("classify"),
    script:
        "../scripts/sweep_classifiers.py"
