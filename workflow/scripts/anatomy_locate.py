from mammoflow.anatomy import locate_shard
from mammoflow.jobs import job

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(snakemake.log[0], f"anatomy_locate {names.detector} {names.dataset} {names.shard}", snakemake.output):
        locate_shard(
            snakemake.input.detections,
            snakemake.input.thresholds,
            snakemake.input.images,
            snakemake.input.index,
            settings=snakemake.params.settings,
            table_path=snakemake.output.table,
        )
