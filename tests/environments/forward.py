"""Stands in for an adapter: hands its job to the same adapter in another interpreter, without Snakemake's own path."""
# ruff: noqa: F821

import json
import os
import re
import subprocess
from pathlib import Path


def plain(values):
    return {"all": [str(value) for value in values], "named": {name: as_json(value) for name, value in values.items()}}


def as_json(value):
    return value if isinstance(value, str | int | float | dict | None) else list(value)


if __name__ == "__main__":
    given = {
        "input": plain(snakemake.input),
        "output": plain(snakemake.output),
        "log": plain(snakemake.log),
        "params": {"all": [], "named": dict(snakemake.params.items())},
        "wildcards": {"all": [], "named": dict(snakemake.wildcards.items())},
        "config": snakemake.config,
        "threads": snakemake.threads,
        "rule": snakemake.rule,
        "scriptdir": str(snakemake.scriptdir),
    }
    adapter = Path(__file__).name  # Snakemake sets it to this file's own place
    stage = re.split(r"[_.]", adapter)[0]
    here = Path(os.environ["STAGE_ENVIRONMENTS"])
    (here / "ran" / adapter).touch()
    own = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or name.startswith("MAMMOFLOW_")}
    environment = own | {"PATH": "/usr/bin:/bin", "HOME": str(here)}
    command = [here / stage / "bin" / "python", "-s", here / "job.py", here / "adapters" / adapter]
    subprocess.run(command, input=json.dumps(given), text=True, check=True, env=environment)
