import copy

import pytest
from fabricated import SETTINGS, fabricate, write

from mammoflow.report.metrics import measure
from mammoflow.report.study import load


@pytest.fixture
def settings():
    return copy.deepcopy(SETTINGS)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    """A study with something of everything."""
    return load(copy.deepcopy(SETTINGS), fabricate(tmp_path_factory.mktemp("study") / "study"))


@pytest.fixture(scope="session")
def made_up_metrics(made_up):
    return measure(made_up)


@pytest.fixture
def study_of(tmp_path, settings):
    """Make a study of the tables given; the others are empty."""
    return lambda **tables: load(settings, write(tmp_path, tables))
