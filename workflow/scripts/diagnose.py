from mammoflow.diagnose.run import Models, diagnose
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], "diagnose", snakemake.output):
        diagnose(
            snakemake.config["study"],
            Models(snakemake.input.detectors, snakemake.input.thresholds[0], snakemake.input.classifiers),
            settings=snakemake.params.settings,
            threads=snakemake.threads,
            findings_path=snakemake.output.findings,
            overlays=snakemake.output.overlays,
        )
