from mammoflow.detect.sweep import try_settings
from mammoflow.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], " ".join([snakemake.rule, *snakemake.wildcards]), snakemake.output):
        try_settings(
            training=list(snakemake.input.tables),
            images=list(snakemake.input.images),
            architecture=snakemake.params.architecture,
            fold=int(snakemake.wildcards.fold),
            part=int(snakemake.wildcards.part),
            parts=snakemake.params.parts,
            settings=snakemake.params.settings,
            match=snakemake.params.match,
            seed=snakemake.params.seed + int(snakemake.wildcards.repeat) * snakemake.params.settings["members"],
            device=snakemake.params.device,
            directory=snakemake.output.models,
            judged=snakemake.output.judged,
            start=snakemake.input.get("start"),
        )
