import runpy

import pytest
import yaml


@pytest.fixture(scope="module")
def generator(root):
    return runpy.run_path(str(root / "envs" / "generate.py"))


def test_environments_follow_the_lock(root, generator):
    lock = (root / "requirements.lock").read_text()
    for stage in generator["STAGES"]:
        assert (root / "envs" / f"{stage}.yaml").read_text() == generator["environment"](stage, lock), (
            "run: python envs/generate.py"
        )


def test_every_rule_file_has_its_environment_and_package(root):
    stages = {path.stem for path in (root / "workflow" / "rules").glob("*.smk")} - {"common"}
    assert stages == {path.stem for path in (root / "envs").glob("*.yaml")}
    packages = {path.name for path in (root / "workflow" / "mammoflow").iterdir() if path.is_dir()}
    assert stages == packages - {"__pycache__"}


def test_environments_keep_to_conda_forge(root):
    for path in (root / "envs").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["channels"] == ["conda-forge", "nodefaults"]


def test_the_lock_names_no_address_and_hashes_everything(root):
    lock = (root / "requirements.lock").read_text()
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if line[:1].isalnum()]
    assert pins
    assert lock.count("--hash=sha256:") >= len(pins)
