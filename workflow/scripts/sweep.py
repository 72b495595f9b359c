from mammoflow.config import sweep_points
from mammoflow.detect.sweep import rank
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], "sweep", snakemake.output):
        settings = snakemake.params.sweep
        pairs = [(point, fold) for point in range(len(sweep_points(settings))) for fold in settings["folds"]]
        rank(dict(zip(pairs, snakemake.input.histories, strict=True)), settings, snakemake.output.table)
