from mammoflow.classify import predict_table, score_frames
from mammoflow.jobs import job

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(
        snakemake.log[0], f"classify_predict {names.protocol} {names.classifier} {names.dataset}", snakemake.output
    ):
        predict_table(
            snakemake.input.crops,
            snakemake.input.models,
            threads=snakemake.threads,
            device=snakemake.params.device,
            predictions_path=snakemake.output.predictions,
        )
        score_frames(
            names.protocol,
            snakemake.input.detections,
            snakemake.input.thresholds[0],
            snakemake.input.images,
            snakemake.input.index,
            snakemake.input.patients,
            snakemake.input.models,
            crop_settings=snakemake.params.crops,
            threads=snakemake.threads,
            device=snakemake.params.device,
            frames_path=snakemake.output.frames,
        )
