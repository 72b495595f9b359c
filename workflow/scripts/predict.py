from pathlib import Path

from mammoflow.jobs import job
from mammoflow.predict.run import Frozen, predict

if __name__ == "__main__":
    with job(snakemake.log[0], "predict", snakemake.output):
        predict(
            snakemake.params.dataset,
            Frozen(**snakemake.params.frozen),
            settings=snakemake.params.settings,
            threads=snakemake.threads,
            schema_path=Path(snakemake.scriptdir).parent / "schemas" / "metrics.schema.json",
            results=snakemake.output.results,
        )
