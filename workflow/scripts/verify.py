"""Adapter of rule verify."""

from mammoflow.jobs import job
from mammoflow.verify import verify

if __name__ == "__main__":
    with job(snakemake.log[0], "verify"):
        verify(snakemake.params.manifests, workers=snakemake.threads)
