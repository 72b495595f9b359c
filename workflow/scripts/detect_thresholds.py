from mammoflow.detect.thresholds import choose_thresholds
from mammoflow.jobs import fold_left_out, job

if __name__ == "__main__":
    with job(snakemake.log[0], f"{snakemake.rule} {' '.join(snakemake.wildcards)}", snakemake.output):
        choose_thresholds(
            detections=list(snakemake.input.detections),
            training=list(snakemake.input.tables),
            lesions=list(snakemake.input.lesions),
            detector=snakemake.wildcards.detector,
            folds=snakemake.params.folds,
            settings=snakemake.params.settings,
            thresholds=snakemake.output.thresholds,
            curve=snakemake.output.curve,
            without=fold_left_out(snakemake.wildcards),
        )
