"""Is there a study to diagnose? Checked before any job starts."""

from pathlib import Path

from mammoflow.config import expand
from mammoflow.errors import ConfigError

HINT = "give one study's directory: snakemake diagnose --config study=DIR"


def check_request(study: str) -> str:
    """Return the directory to diagnose, ``~`` and $VARIABLES expanded.

    Parameters
    ----------
    study : ``study`` of the config.

    Raises
    ------
    ConfigError
        No directory is given, or it is missing, no directory, or empty.
    """
    if not study:
        raise ConfigError(f"config: study is empty; {HINT}")
    directory = Path(expand(study, "study"))
    if not directory.is_dir():
        raise ConfigError(f"config: study is '{study}', which is not a directory; {HINT}")
    if not any(path.is_file() for path in directory.rglob("*")):
        raise ConfigError(f"config: study is '{study}', a directory without files; {HINT}")
    return str(directory)
