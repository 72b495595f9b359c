"""Make one phantom hospital."""

from pathlib import Path

from mammoflow.jobs import job
from mammoflow.phantom import generate

if __name__ == "__main__":
    with job(snakemake.log[0], f"phantom_generate {snakemake.wildcards.dataset}", snakemake.output):
        generate(
            name=snakemake.wildcards.dataset,
            root=Path(snakemake.output.manifest).parent,
            seed=snakemake.params.seed,
            workers=snakemake.threads,
            **snakemake.params.phantom["phantom"],
        )
