from mammoflow.detect.thresholds import choose_thresholds
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"detect_thresholds {snakemake.wildcards.detector}", snakemake.output):
        choose_thresholds(
            detections=list(snakemake.input.detections),
            training=list(snakemake.input.tables),
            lesions=list(snakemake.input.lesions),
            detector=snakemake.wildcards.detector,
            folds=snakemake.params.folds,
            settings=snakemake.params.settings,
            thresholds=snakemake.output.thresholds,
            curve=snakemake.output.curve,
        )
