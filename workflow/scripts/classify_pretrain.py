from mammoflow.classify import pretrain_classifier
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"classify_pretrain {snakemake.wildcards.classifier}", snakemake.output):
        pretrain_classifier(
            snakemake.wildcards.classifier,
            settings=snakemake.params.settings,
            seed=snakemake.params.seed,
            device=snakemake.params.device,
            model_path=snakemake.output.model,
            history_path=snakemake.output.history,
        )
