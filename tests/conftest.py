"""Fixtures for all tests: the repository's root, and no way out to a network."""

from pathlib import Path

import pytest
from pytest_socket import disable_socket

pytest_plugins = ["small_study"]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(autouse=True)
def _no_network():
    disable_socket(allow_unix_socket=True)
