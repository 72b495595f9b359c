"""Run a command in the locked environment: `uv run envs/locked.py snakemake --cores all`.

`uv run` gives the project's .venv; this installs requirements.lock into it, every file checked against its hash,
and hands over to the command. `uv run --with-requirements` would check no hash and would add packages that the lock
leaves out (opencv-python, which needs the system's libGL). With a pack of envs/pack.py named by MAMMOFLOW_PACK the
files come from there, and nothing is asked of a network.
"""

import os
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"


def main(command: list[str]) -> None:
    """Install the lock where it isn't yet, then become `command`."""
    if not command:
        sys.exit("usage: uv run envs/locked.py COMMAND [ARGUMENT ...]")
    uv = os.environ.get("UV", "uv")
    # hospital networks often inspect TLS with a certificate that only the system's store knows
    os.environ.setdefault("UV_SYSTEM_CERTS", "true")
    install = [uv, "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--python", sys.executable]
    lock, source = LOCK, "a package index must be reachable"
    if pack := os.environ.get("MAMMOFLOW_PACK"):
        lock, source = Path(pack) / "requirements.lock", f"the pack in {pack} must be whole and made for this Python"
        install += ["--offline", "--no-index", "--find-links", str(Path(pack) / "wheels")]
    if subprocess.run([*install, "-r", str(lock)]).returncode != 0:
        sys.exit(f"{lock.name} could not be installed: see the lines above; {source}")
    # a study is hundreds of Python processes; without bytecode each compiles its libraries for seconds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    bin_dir = Path(sys.executable).parent
    os.environ["PATH"] = f"{bin_dir}{os.pathsep}{os.environ['PATH']}"
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
