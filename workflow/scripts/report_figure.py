import json
from pathlib import Path

from mammoflow.jobs import job
from mammoflow.report.figures import draw
from mammoflow.report.study import load

if __name__ == "__main__":
    with job(snakemake.log[0], f"report_figure {snakemake.wildcards.figure}", snakemake.output):
        draw(
            snakemake.wildcards.figure,
            load(snakemake.params.study, dict(snakemake.input.items())),
            json.loads(Path(snakemake.input.metrics).read_text("utf-8")),
            png=snakemake.output.png,
            pdf=snakemake.output.pdf,
        )
