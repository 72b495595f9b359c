"""Report. Needs every table. Gives metrics.json, tables, figures 1 to 12 and the web report."""

FIGURES = [f"fig{number:02d}" for number in range(1, 13)]
STUDY_TABLES = {
    "indices": expand("results/index/{dataset}.tsv", dataset=DATASETS),
    "patients": "results/labels/patients.tsv",
    "lesions": expand("results/labels/{dataset}/lesions.tsv", dataset=DATASETS),
    "truths": expand("results/labels/{dataset}/truth.tsv", dataset=DATASETS),
    "densities": expand("results/labels/{dataset}/densities.tsv", dataset=DATASETS),
    "duplicates": "results/labels/duplicates.tsv",
    "images": shards("results/images/{dataset}/{shard}.tsv", DATASETS),
    "detections": blocks(
        "results/detect/{detector}/{dataset}/{block}.tsv", DATASETS, detector=DETECTORS
    ),
    "thresholds": expand(
        "results/detect/{detector}/thresholds.tsv", detector=DETECTORS
    ),
    "curves": expand("results/detect/{detector}/curve.tsv", detector=DETECTORS),
    "screened": shards(
        "results/crops/{protocol}/{dataset}/screened/{shard}.tsv",
        DATASETS,
        protocol=PROTOCOLS,
    ),
    "crops": shards(
        "results/crops/{protocol}/{dataset}/{shard}.tsv", DATASETS, protocol=PROTOCOLS
    ),
    "predictions": expand(
        "results/classify/{protocol}/{classifier}/{dataset}.tsv",
        protocol=PROTOCOLS,
        classifier=CLASSIFIERS,
        dataset=DATASETS,
    ),
    "judged_frames": expand(
        "results/classify/{protocol}/{classifier}/{dataset}.frames.tsv",
        protocol=PROTOCOLS,
        classifier=CLASSIFIERS,
        dataset=DATASETS,
    ),
    "detection_maps": expand(
        "results/explain/evaluated/{dataset}/detections.tsv", dataset=DATASETS
    ),
    "crop_maps": expand(
        "results/explain/evaluated/{dataset}/crops.tsv", dataset=DATASETS
    ),
    "faithfulness": FAITHFULNESS,
    "anatomy": shards(
        "results/anatomy/{detector}/{dataset}/{shard}.tsv",
        DATASETS,
        detector=[setting("crops", "detector")],
    ),
}

WITHOUT = FOLDS if NESTED and "out_of_fold" in PROTOCOLS else []
# What taught the classifier of each fold, for the shortcut baseline to learn from
STUDY_TABLES |= {
    f"nested{fold}": shards(
        f"results/nested/crops/without{fold}/{{dataset}}/{{shard}}.tsv", INTERNAL
    )
    for fold in WITHOUT
}

MINER = setting("crops", "detector")
ROUND_TABLES = {
    f"round{number}_{what}": paths
    for number in ROUNDS
    for what, paths in (
        (
            "detections",
            blocks(
                (
                    f"results/mining/{MINER}/round{number}/{{dataset}}/{{block}}.tsv"
                    if number > 1
                    else f"results/detect/{MINER}/{{dataset}}/{{block}}.tsv"
                ),
                INTERNAL,
            ),
        ),
        (
            "frames",
            shards(
                f"results/mining/{MINER}/round{number}/frames/{{dataset}}/{{shard}}.tsv",
                INTERNAL,
            ),
        ),
    )
}


rule report_metrics:
    input:
        **STUDY_TABLES,
    output:
        metrics="results/report/metrics.json",
        tables=directory("results/report/tables"),
    log:
        "results/logs/report_metrics.log",
    benchmark:
        "results/benchmarks/report_metrics.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        study=REPORTED,
        code=code_digest("report"),
    script:
        "../scripts/report_metrics.py"


rule report_rounds:
    input:
        **STUDY_TABLES,
        **ROUND_TABLES,
    output:
        table="results/report/rounds.tsv",
    log:
        "results/logs/report_rounds.log",
    benchmark:
        "results/benchmarks/report_rounds.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        study=REPORTED,
        rounds=ROUNDS,
        code=code_digest("report"),
    script:
        "../scripts/report_rounds.py"


rule report_learning:
    input:
        **STUDY_TABLES,
        **{
            f"without{fold}": blocks(
                f"results/nested/detect/{MINER}/without{fold}/{{dataset}}/{{block}}.tsv",
                INTERNAL,
            )
            for fold in WITHOUT
        },
    output:
        table="results/report/learning.tsv",
    log:
        "results/logs/report_learning.log",
    benchmark:
        "results/benchmarks/report_learning.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        study=REPORTED,
        folds=WITHOUT,
        code=code_digest("report"),
    script:
        "../scripts/report_learning.py"


rule report_figure:
    input:
        **STUDY_TABLES,
        metrics="results/report/metrics.json",
    output:
        png="results/figures/{figure}.png",
        pdf="results/figures/{figure}.pdf",
    log:
        "results/logs/report_figure/{figure}.log",
    benchmark:
        "results/benchmarks/report_figure/{figure}.tsv"
    wildcard_constraints:
        figure=r"fig\d\d",
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        study=REPORTED,
        code=code_digest("report"),
    script:
        "../scripts/report_figure.py"


rule report_page:
    input:
        **STUDY_TABLES,
        metrics="results/report/metrics.json",
        figures=expand("results/figures/{figure}.png", figure=FIGURES),
        rounds="results/report/rounds.tsv" if len(ROUNDS) > 1 else [],
        learning="results/report/learning.tsv" if WITHOUT else [],
    output:
        page="results/report/index.html",
    log:
        "results/logs/report_page.log",
    benchmark:
        "results/benchmarks/report_page.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        study=REPORTED,
        template=report_files("page.html.jinja", "captions.toml"),
        code=code_digest("report"),
    script:
        "../scripts/report_page.py"


rule figures:
    input:
        expand("results/figures/{figure}.{kind}", figure=FIGURES, kind=["png", "pdf"]),
