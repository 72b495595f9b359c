"""Adapter of rule images_convert."""

from pathlib import Path

from mammoflow.images.converting import convert_shard
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(
        snakemake.log[0], f"images_convert {snakemake.wildcards.dataset} {snakemake.wildcards.shard}", snakemake.output
    ):
        convert_shard(
            dataset=snakemake.params.dataset,
            shard=snakemake.wildcards.shard,
            settings=snakemake.params.settings,
            index=snakemake.input.index,
            sources=snakemake.input.sources,
            patients=snakemake.input.patients,
            table=snakemake.output.table,
            pictures=snakemake.output.pictures,
            kept=Path(snakemake.output.pictures).parent / ".kept" / snakemake.wildcards.shard,
            mask_labels=snakemake.params.mask_labels,
            workers=snakemake.threads,
        )
