"""What each rule asks a scheduler for: memory, time, cores, a GPU where it computes on one; more at each attempt."""

import pytest
import yaml
from snakemake.api import ConfigSettings, OutputSettings, ResourceSettings, SnakemakeApi


def rules(root, **config):
    """Rules with a job of their own, by name, of the shipped study with `config` laid over it."""
    with SnakemakeApi(OutputSettings(quiet=None)) as api:
        workflow = api.workflow(
            ResourceSettings(cores=1), ConfigSettings(config=config), snakefile=root / "Snakefile"
        )._workflow
        return {rule.name: rule for rule in workflow.rules if rule.script}


@pytest.fixture(scope="module")
def on_cpu(root):
    return rules(root)


@pytest.fixture(scope="module")
def on_gpu(root):
    return rules(root, device="cuda")


def asked(rule, resource, attempt):
    return rule.resources[resource].evaluate(None, attempt=attempt).value


def test_every_rule_asks_for_memory_and_time_and_for_more_at_each_attempt(on_cpu):
    assert len(on_cpu) > 20
    for rule in on_cpu.values():
        for resource, least in (("mem_mb", 1000), ("runtime", 20)):
            first, second, third = (asked(rule, resource, attempt) for attempt in (1, 2, 3))
            assert least <= first < second < third, (rule.name, resource)
        assert rule.resources["_cores"].value >= 1, rule.name


def test_every_rule_measures_itself(on_cpu):
    # a benchmark would count as a file that `verify` has made already
    assert [rule.name for rule in on_cpu.values() if not rule.benchmark] == ["verify"]


def test_a_gpu_is_asked_for_by_the_rules_that_compute_on_the_studys_device(on_cpu, on_gpu):
    computing = {name for name, rule in on_gpu.items() if "device" in set(rule.params.keys())} | {"diagnose", "predict"}
    assert len(computing) >= 8
    assert {
        name for name, rule in on_gpu.items() if "gpu" in rule.resources and rule.resources["gpu"].value
    } == computing
    assert {rule.resources["gpu"].value for rule in on_cpu.values() if "gpu" in rule.resources} == {0}


def test_pictures_are_read_by_several_threads_for_a_gpu(on_cpu, on_gpu):
    for name in ("detect_images", "detect_paper", "mining_detect"):
        assert on_cpu[name].resources["_cores"].value == 1
        assert on_gpu[name].resources["_cores"].value == 4


def test_profiles_hold_nothing_scientific(root):
    profiles = sorted(path.parent.name for path in (root / "workflow" / "profiles").glob("*/config.yaml"))
    assert profiles == ["ci-slurm", "local", "slurm"]
    for name in profiles:
        settings = yaml.safe_load((root / "workflow" / "profiles" / name / "config.yaml").read_text())
        assert not {"config", "configfile", "configfiles", "forceall", "touch"} & set(settings), name
