"""Leaves the log of this process as it was: `serve` points it at a stderr that a test captures."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("ottla")
    before = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
