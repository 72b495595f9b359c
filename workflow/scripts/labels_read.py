"""Adapter of rule labels_read."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.readers import read_lesions

if __name__ == "__main__":
    with job(snakemake.log[0], f"labels_read {snakemake.wildcards.dataset}", snakemake.output):
        lesions = read_lesions(
            **snakemake.params.dataset,
            index=tables.read(tables.INDEX, snakemake.input.index),
            sources=tables.read(tables.SOURCES, snakemake.input.sources),
            expert_classes=snakemake.params.expert_classes,
        )
        tables.write(tables.LESIONS, lesions, snakemake.output.lesions)
