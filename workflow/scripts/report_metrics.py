from pathlib import Path

from mammoflow.jobs import job
from mammoflow.report.metrics import write
from mammoflow.report.study import load

if __name__ == "__main__":
    with job(snakemake.log[0], "report_metrics", snakemake.output):
        write(
            load(snakemake.params.study, dict(snakemake.input.items())),
            schema_path=Path(snakemake.scriptdir).parent / "schemas" / "metrics.schema.json",
            metrics_path=snakemake.output.metrics,
            tables_path=snakemake.output.tables,
        )
