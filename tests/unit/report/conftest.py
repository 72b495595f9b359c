import copy

import pytest
from fabricated import SETTINGS, fabricate, write

from mammoflow.report.figures import FIGURES, draw
from mammoflow.report.figures.style import STYLE
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


@pytest.fixture(scope="session")
def drawn(made_up, made_up_metrics, tmp_path_factory):
    """Directory of the made-up study's figures, fig01.png, fig01.pdf and so on."""
    where = tmp_path_factory.mktemp("figures")
    STYLE["savefig.dpi"] = 80  # enough for tests, and quicker
    for name in FIGURES:
        draw(name, made_up, made_up_metrics, where / f"{name}.png", where / f"{name}.pdf")
    return where


@pytest.fixture
def study_of(tmp_path, settings):
    """Make a study of the tables given; the others are empty."""
    return lambda **tables: load(settings, write(tmp_path, tables))


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A study of the same settings without a row in any table, and its metrics."""
    study = load(copy.deepcopy(SETTINGS), write(tmp_path_factory.mktemp("empty"), {}))
    return study, measure(study)
