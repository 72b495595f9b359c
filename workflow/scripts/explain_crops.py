from mammoflow.explain import explain_crops
from mammoflow.jobs import job

if __name__ == "__main__":
    wildcards = snakemake.wildcards
    with job(
        snakemake.log[0],
        f"explain_crops {wildcards.protocol} {wildcards.classifier} {wildcards.dataset}",
        snakemake.output,
    ):
        explain_crops(
            models=list(snakemake.input.models),
            predictions=snakemake.input.predictions,
            crops=list(snakemake.input.crops),
            images=list(snakemake.input.images),
            settings=snakemake.params.settings,
            device=snakemake.params.device,
            threads=snakemake.threads,
            table=snakemake.output.table,
            maps=snakemake.output.maps,
        )
