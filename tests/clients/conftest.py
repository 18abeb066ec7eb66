"""The broker that client tests talk to: ours, started for them, or any that is named.

Owns the fixtures. OTTLA_TEST_BOOTSTRAP=host:port names a running broker.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Broker, RunningBroker


def start_broker(folder: Path, *options: str) -> Broker:
    if bootstrap := os.environ.get("OTTLA_TEST_BOOTSTRAP"):
        return RunningBroker(bootstrap)
    return Broker(folder / "data", *options).start()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of its own for one test, with default options."""
    one = start_broker(tmp_path)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the tests of a file; each test takes topics of its own."""
    one = start_broker(tmp_path_factory.mktemp("broker"))
    yield one
    one.stop()
