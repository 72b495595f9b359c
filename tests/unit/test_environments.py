"""The conda environments: made from the lock, exact, readable by conda's own strict rules."""

import ast
import re
import runpy
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec

SHELL_PINS = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.M)


@pytest.fixture(scope="module")
def generator(root):
    return runpy.run_path(str(root / "envs" / "generate.py"))


@pytest.fixture(scope="module")
def lock(root):
    return (root / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def environments(root):
    return {path.stem: yaml.safe_load(path.read_text()) for path in (root / "envs").glob("*.yaml")}


def requirements(environment):
    """Pip's part of an environment, without its options."""
    return [Requirement(line) for line in environment["dependencies"][-1]["pip"] if not line.startswith("--")]


def test_environments_follow_the_lock(root, generator, lock):
    here = [*(root / "envs").glob("*.yaml"), *(root / "envs").glob("*.sh")]
    assert {path.name: path.read_text() for path in here} == generator["files"](lock), "run: python envs/generate.py"


def test_every_rule_file_has_its_environment_and_package(root, generator):
    stages = {path.stem for path in (root / "workflow" / "rules").glob("*.smk")} - {"common"}
    assert stages == set(generator["STAGES"])
    packages = {path.name for path in (root / "workflow" / "mammoflow").iterdir() if path.is_dir()}
    assert stages == packages - {"__pycache__"}


def test_every_rule_names_an_environment_that_is_there(root, environments):
    for path in (root / "workflow" / "rules").glob("*.smk"):
        rules = path.read_text()
        for plain, with_torch in re.findall(r'conda:\s+(?:"../../envs/(\S+).yaml"|environment\("(\S+)"\))', rules):
            needed = {plain} if plain else {f"{with_torch}.cpu", f"{with_torch}.cuda"}
            assert needed <= set(environments), path.name
        assert len(re.findall(r"^    conda:$", rules, re.M)) == len(re.findall(r"^    script:$", rules, re.M)), (
            path.name
        )


def test_environments_have_the_form_that_conda_reads(environments):
    assert len(environments) > 10
    for name, environment in environments.items():
        assert set(environment) == {"channels", "dependencies"}, name
        assert environment["channels"] == ["conda-forge", "nodefaults"], name
        *conda, pip = environment["dependencies"]
        assert [MatchSpec(line, strict=True).name.normalized for line in conda] == ["python", "pip"], name
        assert set(pip) == {"pip"}, name
        assert len(requirements(environment)) > 5, name


def test_pins_are_exact_and_the_locks(environments, lock):
    locked = set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", lock, re.M))
    for name, environment in environments.items():
        for requirement in requirements(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "==", (name, requirement)
            assert (requirement.name, pin.version.removesuffix("+cpu")) in locked, (name, requirement)


def test_the_cpu_variant_differs_from_the_cuda_one_by_the_cuda_packages_alone(environments):
    for stage in ("detect", "classify", "explain", "diagnose"):
        cpu, cuda = (
            {line.name: str(line.specifier) for line in requirements(environments[f"{stage}.{device}"])}
            for device in ("cpu", "cuda")
        )
        assert {name for name in cpu if cpu[name] != cuda[name]} == {"torch", "torchvision"}
        assert {name.split("-")[0] for name in set(cuda) - set(cpu)} == {"nvidia", "cuda", "triton"}
        assert cpu["torch"] == cuda["torch"] + "+cpu"


def test_pip_never_meets_what_asks_for_opencv_python(root, environments, lock):
    for name, environment in environments.items():
        listed = {requirement.name for requirement in requirements(environment)}
        assert not listed & {"ultralytics", "opencv-python"}, name
        script = root / "envs" / f"{name}.post-deploy.sh"
        if "ultralytics-thop" in listed:
            assert "--no-deps --require-hashes" in script.read_text()
            ((package, version),) = SHELL_PINS.findall(script.read_text())
            assert f"\n{package}=={version} \\\n" in lock
        else:
            assert not script.exists(), name


def test_the_lock_names_no_address_and_hashes_everything(lock):
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if line[:1].isalnum()]
    assert pins
    assert lock.count("--hash=sha256:") >= len(pins)


def imported(path, package):
    """What the file at `path` imports anywhere in it: mammoflow's modules as files, other packages by top name."""
    files, names = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            top, *inner = module.split(".")
            if top != "mammoflow":
                names.add(top)
                continue
            # a package's __init__ runs before its modules
            for depth in range(len(inner) + 1):
                place = package.joinpath(*inner[:depth])
                files |= {file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()}
    return files, names


def test_each_stage_has_the_packages_that_its_modules_import(root, generator, lock):
    package = root / "workflow" / "mammoflow"
    distributions = packages_distributions()
    missing = {}
    for stage in generator["STAGES"]:
        there = set(generator["packages"](generator["variants"](stage)[0], lock))
        adapters = [path for path in (root / "workflow" / "scripts").glob("*.py") if path.stem.split("_")[0] == stage]
        assert adapters, stage
        todo, seen = set(adapters), set()
        while todo:
            path = todo.pop()
            seen.add(path)
            files, names = imported(path, package)
            todo |= files - seen
            for name in names - sys.stdlib_module_names:
                by = {re.sub(r"[-_.]+", "-", distribution).lower() for distribution in distributions[name]}
                if not by & there:
                    missing.setdefault(stage, set()).add(f"{path.relative_to(root)} imports {name}")
    assert missing == {}
