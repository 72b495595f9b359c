"""Adapter of rule labels_yolo."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.yolo import write_labels

if __name__ == "__main__":
    with job(
        snakemake.log[0], f"labels_yolo {snakemake.wildcards.dataset} {snakemake.wildcards.shard}", snakemake.output
    ):
        training = write_labels(
            images=tables.read(tables.IMAGES, snakemake.input.images),
            lesions=tables.read(tables.LESIONS, snakemake.input.lesions),
            patients=tables.read(tables.PATIENTS, snakemake.input.patients),
            directory=snakemake.output.files,
        )
        tables.write(tables.TRAINING, training, snakemake.output.table)
