import copy

import pytest
import yaml

from mammoflow.errors import ConfigError, ModelError
from mammoflow.predict.request import check_frozen, requested


@pytest.fixture
def settings(root, tmp_path):
    """The shipped config, to be asked for the directory `tmp_path`/held."""
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    config["datasets"] = [copy.deepcopy(config["datasets"][0])]
    config["predict"]["root"] = str(tmp_path / "held")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "a.dcm").write_text("x")
    return config


def make(tmp_path, *directories):
    for directory in directories:
        (tmp_path / "held" / directory).mkdir(parents=True)


def test_what_is_not_said_is_as_in_the_first_internal_data_set(settings, tmp_path):
    make(tmp_path, "raw/positive", "raw/negative")
    (tmp_path / "held" / "truth.tsv").write_text("x")
    found = requested(settings)
    assert found["directories"] == {"positive": "raw/positive", "negative": "raw/negative"}
    assert found["truth"] == {"format": "table", "path": "truth.tsv"}
    assert (found["source"], found["role"], found["name"]) == ("dicom", "external", "predicted")
    assert found["window"] == {"mode": "dicom", "index": 0}
    assert found["root"] == str(tmp_path / "held")


def test_labelled_directories_are_found_and_missing_truth_is_none(settings, tmp_path):
    make(tmp_path, "dicom/positive", "dicom/negative")
    found = requested(settings)
    assert found["directories"] == {"positive": "dicom/positive", "negative": "dicom/negative"}
    assert "truth" not in found


def test_plain_directory_has_no_labels(settings):
    assert requested(settings)["directories"] == {}


def test_own_settings_win(settings, tmp_path):
    make(tmp_path, "raw/positive", "cases")
    (tmp_path / "held" / "truth.tsv").write_text("x")
    own = {"directories": {"unknown": "cases"}, "truth": None, "window": {"mode": "none"}, "source": "raster"}
    settings["predict"] |= own
    found = requested(settings)
    assert {key: found[key] for key in ("directories", "window", "source")} == {
        key: own[key] for key in ("directories", "window", "source")
    }
    assert "truth" not in found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"root": ""}, "MAMMOFLOW_PREDICT_ROOT"),
        ({"root": "$MAMMOFLOW_UNSET/x"}, "MAMMOFLOW_UNSET isn't set"),
        ({"root": "none"}, "not a directory"),
        ({"name": "hospital"}, "the name of a data set"),
        ({"directories": {"positive": "cases"}}, r"predict.directories.positive: 'cases' doesn't exist"),
        ({"truth": {"format": "mias", "path": "Info.txt"}}, "predict.truth: null"),
    ],
)
def test_mistakes_are_named(settings, changed, said):
    settings["predict"] |= changed
    with pytest.raises(ConfigError, match=said):
        requested(settings)


def test_a_directory_without_files_is_refused(settings, tmp_path):
    (tmp_path / "held" / "a.dcm").unlink()
    with pytest.raises(ConfigError, match="without files"):
        requested(settings)


def test_missing_models_are_never_trained(tmp_path):
    (tmp_path / "a").touch()
    check_frozen([str(tmp_path / "a")])
    with pytest.raises(ModelError, match=r"1 frozen .* first .*/b: `predict` trains nothing"):
        check_frozen([str(tmp_path / "a"), str(tmp_path / "b")])
