from mammoflow.jobs import job
from mammoflow.report.learning import write
from mammoflow.report.study import load

if __name__ == "__main__":
    with job(snakemake.log[0], "report_learning", snakemake.output):
        inputs = dict(snakemake.input.items())
        write(
            load(snakemake.params.study, inputs),
            nested={fold: inputs[f"without{fold}"] for fold in snakemake.params.folds},
            table=snakemake.output.table,
        )
