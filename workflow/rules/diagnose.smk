"""Diagnose. Needs one study's directory and the trained models. Gives findings as JSON and overlays below results/diagnose/."""


rule diagnose:
    input:
        request=request,
        detectors=expand(
            "results/detect/{detector}/fold{fold}/model.safetensors",
            detector=setting("crops", "detector"),
            fold=EVERY_MEMBER,
        ),
        thresholds=expand(
            "results/detect/{detector}/thresholds.tsv",
            detector=setting("crops", "detector"),
        ),
        classifiers=expand(
            "results/classify/{protocol}/{classifier}/fold{fold}/model.safetensors",
            protocol=PROTOCOLS[0],
            classifier=CLASSIFIERS[0],
            fold=FOLDS,
        ),
    output:
        findings="results/diagnose/findings.json",
        overlays=directory("results/diagnose/overlays"),
    log:
        "results/logs/diagnose.log",
    benchmark:
        "results/benchmarks/diagnose.tsv"
    conda:
        environment("diagnose")
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
        gpu=GPU,
    params:
        # not where the study lies, which would stay in Snakemake's metadata: its listing's digest
        settings=REPORTED,
        listing=lambda wildcards: (
            listing_digest(setting("study")) if workflow.is_main_process else ""
        ),
        code=[
            code_digest(stage)
            for stage in [
                "index",
                "images",
                "detect",
                "crops",
                "classify",
                "anatomy",
                "predict",
                "diagnose",
            ]
        ],
    script:
        "../scripts/diagnose.py"
