"""Predict. Needs a directory of images and models that exist. Gives detections, scores and figures below results/predict/."""


rule predict:
    input:
        request=prediction,
    output:
        results=directory(f"results/predict/{setting('predict', 'name')}"),
    log:
        "results/logs/predict.log",
    benchmark:
        "results/benchmarks/predict.tsv"
    conda:
        environment("predict")
    threads: setting("detect", "threads")
    resources:
        mem_mb=grows(6000),
        runtime=grows(240),
        gpu=GPU,
    params:
        dataset=lambda wildcards: requested(STUDY),
        frozen=FROZEN,
        settings=STUDY,
        watched=watched_prediction,
        code=[
            code_digest(stage)
            for stage in [
                "index",
                "labels",
                "images",
                "detect",
                "crops",
                "classify",
                "report",
                "predict",
            ]
        ],
    script:
        "../scripts/predict.py"
