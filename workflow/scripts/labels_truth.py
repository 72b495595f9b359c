"""Adapter of rule labels_truth."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.density import read_densities
from mammoflow.labels.masks import read_masks
from mammoflow.labels.readers import read_truth

if __name__ == "__main__":
    with job(snakemake.log[0], f"labels_truth {snakemake.wildcards.dataset}", snakemake.output):
        index = tables.read(tables.INDEX, snakemake.input.index)
        sources = tables.read(tables.SOURCES, snakemake.input.sources)
        masks = read_masks(**snakemake.params.masks, index=index, sources=sources)
        tables.write(tables.MASKS, masks, snakemake.output.masks)
        densities = read_densities(**snakemake.params.dataset, index=index, sources=sources)
        tables.write(tables.DENSITIES, densities, snakemake.output.densities)
        truth = read_truth(
            **snakemake.params.dataset,
            index=index,
            sources=sources,
            lesions=tables.read(tables.LESIONS, snakemake.input.lesions),
            expert_classes=snakemake.params.expert_classes,
        )
        tables.write(tables.LESIONS, truth, snakemake.output.truth)
