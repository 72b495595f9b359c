"""Pack all that a machine without network needs: `uv run envs/locked.py python envs/pack.py DIR`, where there is one.

DIR gets the project, the files of requirements.lock as wheels, uv, and the pretrained weights that the configs name;
then, on the closed side, with Python of the same version and platform,

    cp -r DIR ~/mammoflow && ~/mammoflow/run snakemake --cores all

installs from it and runs the study; `run` takes any command of the README that follows `uv run envs/locked.py`.

Hashes are checked twice: pip refuses a download that isn't in requirements.lock, and the closed side a wheel that isn't
in DIR/requirements.lock, which names the digests of what was packed (a wheel that was built from a source
distribution has a digest of its own).
"""

import argparse
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
# the pack's own entry point on the closed side
RUN = """#!/bin/sh
# Install from this pack, without any network, and run a command of the project: ./run snakemake --cores all
set -e
here=$(cd "$(dirname "$0")" && pwd)
export MAMMOFLOW_PACK="$here" UV="$here/uv" UV_OFFLINE=1 UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_PYTHON={python}
exec "$here/uv" run --project "$here/project" --directory "$here/project" envs/locked.py "$@"
"""


def entries(lock: str, names: set[str] | None) -> str:
    """Cut a lock's text down to the packages in `names`, hashes and markers included; None: all of them."""
    parts = re.split(r"\n(?=[a-z0-9])", lock)
    return "\n".join(part.rstrip("\n") for part in parts if names is None or part.split("==")[0] in names) + "\n"


def fetch(requirements: Path, wheels: Path, *options: str) -> None:
    """Download `requirements` for this Python and platform and store them as wheels."""
    pip = ["uv", "tool", "run", "--quiet", "--python", sys.executable, "pip", "wheel", "-qq"]
    command = [*pip, "--no-deps", "--wheel-dir", str(wheels), *options, "-r", str(requirements)]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"{requirements.name} could not be packed: see the lines above; a package index must be reachable")


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def packed_lock(wheels: Path) -> str:
    """Text of the lock that the closed side installs: name, version and digest of every packed wheel."""
    lines = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{re.sub(r'[-_.]+', '-', name).lower()}=={version} --hash=sha256:{sha256(wheel)}\n")
    return "".join(lines)


def pack_uv(directory: Path) -> None:
    """Put uv itself, of the version that runs here, into `directory`: one executable that needs nothing."""
    version = subprocess.run(["uv", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    requirement = directory / "uv.txt"
    requirement.write_text(f"uv=={version}\n", encoding="utf-8")
    fetch(requirement, directory, "--only-binary", ":all:")
    (wheel,) = directory.glob("uv-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith("/scripts/uv")]
        (directory / "uv").write_bytes(archive.read(member))
    (directory / "uv").chmod(0o755)
    wheel.unlink()
    requirement.unlink()


def pack_project(directory: Path) -> None:
    """Copy the project's own files, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            target = directory / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def pack_weights(directory: Path, configs: list[Path]) -> None:
    """Copy the pretrained weights that `configs` name, if they have the digests the configs give."""
    for config in configs:
        settings = yaml.safe_load(config.read_text("utf-8")) or {}
        for stage in ("detect", "classify"):
            weights = (settings.get(stage) or {}).get("weights")
            if not weights:
                continue
            source = Path(os.path.expandvars(weights["path"]))
            if not source.is_file():
                sys.exit(f"{config.name}: {stage}.weights.path is {weights['path']}, which is no file here")
            if sha256(source) != weights["sha256"]:
                sys.exit(f"{config.name}: {stage}.weights.sha256 isn't the digest of {source.name}; nothing is packed")
            (directory / "weights").mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, directory / "weights" / source.name)


def main() -> None:
    """Make the pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR", help="what to make; must not exist")
    parser.add_argument(
        "--configfile", type=Path, nargs="*", default=[], help="studies whose pretrained weights go along"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PACKAGE", help="these and what they need, instead of the whole lock"
    )
    given = parser.parse_args()
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    names = None
    if given.only:
        generator = runpy.run_path(str(ROOT / "envs" / "generate.py"))
        names = set(generator["closure"](given.only, generator["pins"](lock)))

    wheels = given.directory / "wheels"
    try:
        wheels.mkdir(parents=True)
    except FileExistsError:
        sys.exit(f"{given.directory} exists; name a directory that doesn't")
    pack_weights(given.directory, given.configfile)
    cut = given.directory / "requirements.txt"
    cut.write_text(entries(lock, names), encoding="utf-8")
    fetch(cut, wheels, "--require-hashes")
    cut.unlink()
    (given.directory / "requirements.lock").write_text(packed_lock(wheels), encoding="utf-8")
    pack_uv(given.directory)
    pack_project(given.directory)
    run = given.directory / "run"
    run.write_text(RUN.format(python=".".join(map(str, sys.version_info[:2]))), encoding="utf-8")
    run.chmod(0o755)
    size = sum(path.stat().st_size for path in given.directory.rglob("*") if path.is_file())
    print(f"{given.directory}: {len(list(wheels.iterdir()))} wheels, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
