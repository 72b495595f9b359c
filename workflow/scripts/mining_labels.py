from mammoflow import tables
from mammoflow.jobs import job
from mammoflow.mining import write_round

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(snakemake.log[0], f"mining_labels round {names.round} {names.dataset} {names.shard}", snakemake.output):
        training = write_round(
            accepted=tables.read(tables.SCREENED, snakemake.input.accepted),
            images=tables.read(tables.IMAGES, snakemake.input.images),
            lesions=tables.read(tables.LESIONS, snakemake.input.lesions),
            patients=tables.read(tables.PATIENTS, snakemake.input.patients),
            background=names.shard.startswith(snakemake.params.learned),
            directory=snakemake.output.files,
        )
        tables.write(tables.TRAINING, training, snakemake.output.table)
