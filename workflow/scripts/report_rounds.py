from mammoflow.jobs import job
from mammoflow.report.rounds import write
from mammoflow.report.study import load

if __name__ == "__main__":
    with job(snakemake.log[0], "report_rounds", snakemake.output):
        inputs = dict(snakemake.input.items())
        write(
            load(snakemake.params.study, inputs),
            detections={number: inputs[f"round{number}_detections"] for number in snakemake.params.rounds},
            frames={number: inputs[f"round{number}_frames"] for number in snakemake.params.rounds},
            table=snakemake.output.table,
        )
