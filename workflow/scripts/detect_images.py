from mammoflow.detect.shard import detect_shards
from mammoflow.jobs import fold_left_out, job

if __name__ == "__main__":
    models = snakemake.input.models
    with job(
        snakemake.log[0],
        f"{snakemake.rule} {' '.join(snakemake.wildcards)}",
        snakemake.output,
    ):
        detect_shards(
            models=[models] if isinstance(models, str) else list(models),
            images=list(snakemake.input.images),
            patients=snakemake.input.patients,
            settings=snakemake.params.settings,
            device=snakemake.params.device,
            threads=snakemake.threads,
            detections=snakemake.output.detections,
            without=fold_left_out(snakemake.wildcards),
        )
