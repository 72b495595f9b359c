from mammoflow.config import sweep_points
from mammoflow.detect.sweep import rank
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], "sweep", snakemake.output):
        settings, files = snakemake.params.sweep, iter(snakemake.input.judged)
        trials = len(settings["folds"]) * settings["seeds"]
        points = range(len(sweep_points(settings)))
        judged = {point: [[next(files) for _ in range(settings["parts"])] for _ in range(trials)] for point in points}
        rank(judged, settings, snakemake.params.rates, snakemake.output.table)
