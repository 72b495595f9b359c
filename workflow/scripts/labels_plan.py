"""Adapter of checkpoint labels_plan."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.plan import make_plan

if __name__ == "__main__":
    with job(snakemake.log[0], "labels_plan", snakemake.output):
        make_plan(
            datasets=snakemake.params.datasets,
            index=tables.read_all(tables.INDEX, snakemake.input.indices),
            lesions=tables.read_all(tables.LESIONS, snakemake.input.lesions),
            patients=tables.read(tables.PATIENTS, snakemake.input.patients),
            path=snakemake.output.plan,
        )
