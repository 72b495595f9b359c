from mammoflow.classify import train_classifier
from mammoflow.jobs import job

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(
        snakemake.log[0], f"classify_train {names.protocol} {names.classifier} fold {names.fold}", snakemake.output
    ):
        train_classifier(
            snakemake.input.crops,
            fold=int(names.fold),
            architecture=names.classifier,
            settings=snakemake.params.settings,
            seed=snakemake.params.seed,
            device=snakemake.params.device,
            model_path=snakemake.output.model,
            history_path=snakemake.output.history,
            start=snakemake.input.get("start"),
        )
