from mammoflow.explain import try_detector
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"explain_try_detector {snakemake.wildcards.detector}", snakemake.output):
        try_detector(
            models=list(snakemake.input.models),
            detections=list(snakemake.input.detections),
            images=list(snakemake.input.images),
            settings=snakemake.params.settings,
            device=snakemake.params.device,
            threads=snakemake.threads,
            table=snakemake.output.table,
        )
