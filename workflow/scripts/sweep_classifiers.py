from mammoflow.classify.sweep import rank
from mammoflow.config import sweep_points
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], "sweep_classifiers", snakemake.output):
        settings, files = snakemake.params.sweep, iter(snakemake.input.judged)
        trials = len(settings["folds"]) * settings["seeds"]
        judged = {point: [next(files) for _ in range(trials)] for point in range(len(sweep_points(settings)))}
        rank(judged, settings, snakemake.output.table)
