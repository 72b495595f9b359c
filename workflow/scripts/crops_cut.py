from mammoflow.crops import cut_shard
from mammoflow.jobs import fold_left_out, job

if __name__ == "__main__":
    with job(snakemake.log[0], f"{snakemake.rule} {' '.join(snakemake.wildcards)}", snakemake.output):
        cut_shard(
            protocol=snakemake.wildcards.get("protocol", "out_of_fold"),
            detections=snakemake.input.detections,
            thresholds=snakemake.input.thresholds,
            images=snakemake.input.images,
            index=snakemake.input.index,
            lesions=snakemake.input.lesions,
            patients=snakemake.input.patients,
            settings=snakemake.params.settings,
            table=snakemake.output.table,
            screened=snakemake.output.screened,
            pictures=snakemake.output.pictures,
            without=fold_left_out(snakemake.wildcards),
        )
