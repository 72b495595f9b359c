from mammoflow.classify.sweep import try_settings
from mammoflow.jobs import job

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(snakemake.log[0], " ".join([snakemake.rule, *names]), snakemake.output):
        try_settings(
            crop_tables=list(snakemake.input.crops),
            fold=int(names.fold),
            architecture=snakemake.params.architecture,
            settings=snakemake.params.settings,
            seed=snakemake.params.seed + int(names.repeat),
            device=snakemake.params.device,
            judged=snakemake.output.judged,
            start=snakemake.input.get("start"),
        )
