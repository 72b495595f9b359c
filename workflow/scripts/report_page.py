import json
from pathlib import Path

from mammoflow.jobs import job
from mammoflow.report.page import write
from mammoflow.report.study import load

if __name__ == "__main__":
    with job(snakemake.log[0], "report_page", snakemake.output):
        write(
            load(snakemake.params.study, dict(snakemake.input.items())),
            json.loads(Path(snakemake.input.metrics).read_text("utf-8")),
            figures=snakemake.input.figures,
            templates=Path(snakemake.scriptdir).parent / "report",
            page=snakemake.output.page,
            rounds=snakemake.input.get("rounds"),
            learning=snakemake.input.get("learning"),
        )
