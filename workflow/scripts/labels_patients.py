"""Adapter of rule labels_patients."""

from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.labels.patients import read_previous, update_patients

if __name__ == "__main__":
    with job(snakemake.log[0], "labels_patients", snakemake.output):
        patients = update_patients(
            datasets=snakemake.params.datasets,
            index=tables.read_all(tables.INDEX, snakemake.input.indices),
            lesions=tables.read_all(tables.LESIONS, snakemake.input.lesions),
            folds=snakemake.params.folds,
            seed=snakemake.params.seed,
            previous=read_previous(snakemake.output.patients),
        )
        tables.write(tables.PATIENTS, patients, snakemake.output.patients)
