from mammoflow.explain import try_classifier
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(
        snakemake.log[0],
        f"explain_try_classifier {snakemake.wildcards.protocol} {snakemake.wildcards.classifier}",
        snakemake.output,
    ):
        try_classifier(
            models=list(snakemake.input.models),
            predictions=list(snakemake.input.predictions),
            crops=list(snakemake.input.crops),
            settings=snakemake.params.settings,
            device=snakemake.params.device,
            threads=snakemake.threads,
            table=snakemake.output.table,
        )
