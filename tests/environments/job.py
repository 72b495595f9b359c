"""Run an adapter (first argument) with the `snakemake` that comes as JSON on standard input."""

import json
import runpy
import sys
from types import SimpleNamespace


class Named(list):
    """Values, some with names, as Snakemake gives them."""

    def __init__(self, given):
        super().__init__(given["all"])
        self.__dict__.update(given["named"])

    def items(self):
        return self.__dict__.items()

    def get(self, name, default=None):
        return self.__dict__.get(name, default)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    snakemake = SimpleNamespace(
        **{
            name: Named(value) if isinstance(value, dict) and set(value) == {"all", "named"} else value
            for name, value in given.items()
        }
    )
    runpy.run_path(sys.argv[1], {"snakemake": snakemake}, "__main__")
