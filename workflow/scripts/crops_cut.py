from mammoflow.crops import cut_shard
from mammoflow.jobs import job

if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with job(
        snakemake.log[0], f"crops_cut {wildcards.protocol} {wildcards.dataset} {wildcards.shard}", snakemake.output
    ):
        cut_shard(
            protocol=wildcards.protocol,
            detections=snakemake.input.detections,
            thresholds=snakemake.input.thresholds[0],
            images=snakemake.input.images,
            index=snakemake.input.index,
            lesions=snakemake.input.lesions,
            patients=snakemake.input.patients,
            settings=snakemake.params.settings,
            table=snakemake.output.table,
            screened=snakemake.output.screened,
            pictures=snakemake.output.pictures,
        )
