import pytest
import yaml
from snakemake.utils import update_config

from mammoflow.config import check_config
from mammoflow.errors import ConfigError


@pytest.fixture
def study(root):
    config = yaml.safe_load((root / "config.yaml").read_text())
    update_config(config, yaml.safe_load((root / "workflow" / "studies" / "mias.yaml").read_text()))
    return config


def test_the_study_fits_the_schema_and_takes_its_root_from_the_environment(study, tmp_path, monkeypatch):
    for directory in ("dicom/positive", "dicom/negative"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "Info.txt").write_text("")
    monkeypatch.setenv("MAMMOFLOW_MIAS_ROOT", str(tmp_path))
    (dataset,) = check_config(study)["datasets"]
    assert dataset["root"] == str(tmp_path)
    assert dataset["truth"] == dataset["annotations"][0] == {"format": "mias", "path": "Info.txt"}


def test_without_the_variable_the_message_names_it(study, monkeypatch):
    monkeypatch.delenv("MAMMOFLOW_MIAS_ROOT", raising=False)
    with pytest.raises(ConfigError, match=r"environment variable MAMMOFLOW_MIAS_ROOT isn't set.*roots="):
        check_config(study)
