from mammoflow.explain import explain_detections_shard
from mammoflow.jobs import job

if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with job(
        snakemake.log[0],
        f"explain_detections {wildcards.detector} {wildcards.dataset} {wildcards.shard}",
        snakemake.output,
    ):
        explain_detections_shard(
            models=list(snakemake.input.models),
            detections=snakemake.input.detections,
            images=snakemake.input.images,
            settings=snakemake.params.settings,
            device=snakemake.params.device,
            threads=snakemake.threads,
            table=snakemake.output.table,
            maps=snakemake.output.maps,
        )
