from mammoflow.jobs import job
from mammoflow.mining import accept_frames

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(snakemake.log[0], f"mining_frames round {names.round} {names.dataset} {names.shard}", snakemake.output):
        accept_frames(
            snakemake.input.detections,
            snakemake.input.thresholds,
            snakemake.input.images,
            snakemake.input.patients,
            settings=snakemake.params.settings,
            table=snakemake.output.table,
        )
