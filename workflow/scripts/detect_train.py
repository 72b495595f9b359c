from mammoflow.detect.train import train_detector
from mammoflow.jobs import fold_left_out, job

if __name__ == "__main__":
    fold, _, member = snakemake.wildcards.fold.partition("-")
    with job(
        snakemake.log[0],
        f"{snakemake.rule} {' '.join(snakemake.wildcards)}",
        snakemake.output,
    ):
        train_detector(
            training=list(snakemake.input.tables),
            architecture=snakemake.wildcards.detector,
            fold=int(fold),
            settings=snakemake.params.settings,
            seed=snakemake.params.seed + int(member or 0),
            device=snakemake.params.device,
            model=snakemake.output.model,
            history=snakemake.output.history,
            start=snakemake.input.get("start"),
            without=fold_left_out(snakemake.wildcards),
        )
