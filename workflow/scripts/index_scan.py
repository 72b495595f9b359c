"""Adapter of rule index_scan."""

from mammoflow.index.scan import scan
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"index_scan {snakemake.wildcards.dataset}", snakemake.output):
        scan(
            dataset=snakemake.params.dataset,
            secret_file=snakemake.params.secret_file,
            seed=snakemake.params.seed,
            settings=snakemake.params.settings,
            table=snakemake.output.table,
            sources=snakemake.output.sources,
            identities=snakemake.params.identities,
            workers=snakemake.threads,
        )
