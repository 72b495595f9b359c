from mammoflow.config import sweep_points
from mammoflow.detect.sweep import rank
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], "sweep", snakemake.output):
        settings, files = snakemake.params.sweep, iter(snakemake.input.judged)
        pairs = [(point, fold) for point in range(len(sweep_points(settings))) for fold in settings["folds"]]
        judged = {pair: [next(files) for _ in range(settings["parts"])] for pair in pairs}
        rank(judged, settings, snakemake.params.rates, snakemake.output.table)
