"""Where tests/conftest.py points the commands."""

import pytest


@pytest.fixture
def places(tmp_path):
    """The folders of features and of results."""
    return tmp_path / "features", tmp_path / "results"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command is typed, with both beside it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
