from mammoflow.detect.pretrain import pretrain_detector
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"detect_pretrain {snakemake.wildcards.detector}", snakemake.output):
        pretrain_detector(
            snakemake.wildcards.detector,
            settings=snakemake.params.settings,
            pictures=snakemake.params.pictures,
            seed=snakemake.params.seed,
            device=snakemake.params.device,
            model=snakemake.output.model,
            history=snakemake.output.history,
        )
