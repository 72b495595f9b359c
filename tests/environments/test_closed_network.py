"""A pack made with a network installs and plans the built-in study without one."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.slow

# planning needs no model: a thirtieth of the lock's bytes
PLANNING = ["snakemake", "snakemake-executor-plugin-slurm", "pandas", "pandera", "pyarrow", "numpy", "pyyaml",
            "jsonschema", "pydicom", "pylibjpeg", "defusedxml", "pillow"]  # fmt: skip
UNREACHABLE = re.compile(r"connection|resolve|resolution|timed out|dns error|connect", re.IGNORECASE)


@pytest.fixture(scope="module")
def pack(root, tmp_path_factory):
    directory = tmp_path_factory.mktemp("connected") / "pack"
    command = [sys.executable, str(root / "envs" / "pack.py"), str(directory), "--only", *PLANNING]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode and "could not be packed" in made.stderr and UNREACHABLE.search(made.stderr):
        pytest.skip("no package index can be reached to pack from")
    assert made.returncode == 0, made.stdout + made.stderr
    return directory


@pytest.fixture(scope="module")
def without_network():
    """Command that runs another in a network namespace without any route."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], check=False).returncode == 0:
            return command
    pytest.skip("no network namespace can be made here")


def run(without_network, pack, home, *command):
    """Run the pack on a machine that has its Python and nothing else: no cache, no settings, no network."""
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([os.path.dirname(os.path.realpath(sys.executable)), "/usr/bin", "/bin"])
    return subprocess.run(
        [*without_network, str(pack / "run"), *command],
        capture_output=True, text=True, check=False, env={"HOME": str(home), "PATH": path},
    )  # fmt: skip


def test_the_closed_side_installs_and_plans_the_built_in_study(pack, without_network, tmp_path):
    closed = tmp_path / "mammoflow"
    shutil.copytree(pack, closed)
    done = run(without_network, closed, tmp_path / "home", "snakemake", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^report_page +1$", done.stdout + done.stderr, re.MULTILINE)
    installed = closed / "project" / ".venv"
    assert next(installed.glob("lib/python3*/site-packages/snakemake/__init__.py")).is_file()


def test_a_wheel_that_was_changed_on_the_way_is_refused(pack, without_network, tmp_path):
    closed = tmp_path / "mammoflow"
    shutil.copytree(pack, closed)
    (wheel,) = (closed / "wheels").glob("defusedxml-*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("defusedxml/more.py", "")
    done = run(without_network, closed, tmp_path / "home", "snakemake", "--dry-run")
    assert done.returncode != 0
    assert "Hash mismatch for `defusedxml" in done.stderr
    assert "the pack in" in done.stderr
