"""Labels. Needs the index and the expert's annotations. Gives lesions, truth, folds, the shard plan and YOLO label files."""


rule labels_read:
    input:
        unpack(raw_files),
        index="results/index/{dataset}.tsv",
        sources="results/index/{dataset}.sources.tsv",
    output:
        lesions="results/labels/{dataset}/lesions.tsv",
    log:
        "results/logs/labels_read/{dataset}.log",
    benchmark:
        "results/benchmarks/labels_read/{dataset}.tsv"
    conda:
        "../../envs/labels.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        dataset=of_dataset("name", "root", "annotations"),
        expert_classes=setting("labels", "expert_classes"),
        listing=annotation_listing("annotations"),
        code=code_digest("labels"),
    script:
        "../scripts/labels_read.py"


rule labels_truth:
    input:
        unpack(raw_files),
        index="results/index/{dataset}.tsv",
        sources="results/index/{dataset}.sources.tsv",
        lesions="results/labels/{dataset}/lesions.tsv",
    output:
        truth="results/labels/{dataset}/truth.tsv",
        masks="results/labels/{dataset}/masks.tsv",
        densities="results/labels/{dataset}/densities.tsv",
    log:
        "results/logs/labels_truth/{dataset}.log",
    benchmark:
        "results/benchmarks/labels_truth/{dataset}.tsv"
    conda:
        "../../envs/labels.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        dataset=of_dataset("name", "root", "truth"),
        masks=of_dataset("name", "root", "masks"),
        expert_classes=setting("labels", "expert_classes"),
        listing=annotation_listing("truth", "masks"),
        code=code_digest("labels"),
    script:
        "../scripts/labels_truth.py"


rule labels_patients:
    input:
        indices=expand("results/index/{dataset}.tsv", dataset=DATASETS),
        lesions=expand("results/labels/{dataset}/lesions.tsv", dataset=DATASETS),
    output:
        # kept and appended to: a new patient gets a fold and moves nobody else
        patients=update("results/labels/patients.tsv"),
    log:
        "results/logs/labels_patients.log",
    benchmark:
        "results/benchmarks/labels_patients.tsv"
    conda:
        "../../envs/labels.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        datasets=[
            {key: BY_NAME[name][key] for key in ("name", "role", "shards")}
            for name in DATASETS
        ],
        folds=setting("labels", "folds"),
        seed=setting("seed"),
        code=code_digest("labels"),
    script:
        "../scripts/labels_patients.py"


checkpoint labels_plan:
    input:
        patients="results/labels/patients.tsv",
        indices=expand("results/index/{dataset}.tsv", dataset=DATASETS),
        lesions=expand("results/labels/{dataset}/lesions.tsv", dataset=DATASETS),
    output:
        plan="results/labels/plan.json",
    log:
        "results/logs/labels_plan.log",
    benchmark:
        "results/benchmarks/labels_plan.tsv"
    conda:
        "../../envs/labels.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        datasets=[
            {key: BY_NAME[name][key] for key in ("name", "shards")}
            for name in DATASETS
        ],
        code=code_digest("labels"),
    script:
        "../scripts/labels_plan.py"


# Ultralytics looks for a picture's labels where `images` in its path is replaced by `labels`.
rule labels_yolo:
    input:
        plan=ancient(plan),
        images="results/images/{dataset}/{shard}.tsv",
        lesions=ancient("results/labels/{dataset}/lesions.tsv"),
        patients=ancient("results/labels/patients.tsv"),
    output:
        table="results/labels/{dataset}/{shard}.tsv",
        files=directory("results/labels/{dataset}/{shard}"),
    log:
        "results/logs/labels_yolo/{dataset}/{shard}.log",
    benchmark:
        "results/benchmarks/labels_yolo/{dataset}/{shard}.tsv"
    conda:
        "../../envs/labels.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        planned=planned("labels"),
        code=code_digest("labels"),
    script:
        "../scripts/labels_yolo.py"


rule labels_leakage:
    input:
        images=shards("results/images/{dataset}/{shard}.tsv", DATASETS),
        patients="results/labels/patients.tsv",
    output:
        duplicates="results/labels/duplicates.tsv",
    log:
        "results/logs/labels_leakage.log",
    benchmark:
        "results/benchmarks/labels_leakage.tsv"
    conda:
        "../../envs/labels.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        code=code_digest("labels"),
    script:
        "../scripts/labels_leakage.py"
