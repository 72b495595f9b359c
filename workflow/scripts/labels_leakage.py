"""Adapter of rule labels_leakage."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.leakage import check

if __name__ == "__main__":
    with job(snakemake.log[0], "labels_leakage", snakemake.output):
        duplicates = check(
            images=tables.read_all(tables.IMAGES, snakemake.input.images),
            patients=tables.read(tables.PATIENTS, snakemake.input.patients),
        )
        tables.write(tables.DUPLICATES, duplicates, snakemake.output.duplicates)
