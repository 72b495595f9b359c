"""Adapter of rule labels_truth."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.readers import read_truth

if __name__ == "__main__":
    with job(snakemake.log[0], f"labels_truth {snakemake.wildcards.dataset}"):
        truth = read_truth(
            **snakemake.params.dataset,
            index=tables.read(tables.INDEX, snakemake.input.index),
            sources=tables.read(tables.SOURCES, snakemake.input.sources),
            lesions=tables.read(tables.LESIONS, snakemake.input.lesions),
            expert_classes=snakemake.params.expert_classes,
        )
        tables.write(tables.LESIONS, truth, snakemake.output.truth)
