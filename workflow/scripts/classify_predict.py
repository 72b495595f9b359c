from mammoflow.classify import predict_table
from mammoflow.jobs import job

if __name__ == "__main__":
    names = snakemake.wildcards
    with job(snakemake.log[0], f"classify_predict {names.protocol} {names.classifier} {names.dataset}"):
        predict_table(
            snakemake.input.crops,
            snakemake.input.models,
            threads=snakemake.threads,
            device=snakemake.params.device,
            predictions_path=snakemake.output.predictions,
        )
