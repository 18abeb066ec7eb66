"""An embedded broker, and a folder for temporary files that is the test's own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ottla


@pytest.fixture
def broker() -> Iterator[ottla.Broker]:
    with ottla.Broker() as one:
        yield one


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made during the test; empty before it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
