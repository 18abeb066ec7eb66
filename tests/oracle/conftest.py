"""What the oracle tests share: how many instances, from which seed, and the count at the end."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

SOAK = os.environ.get("OTTLA_SOAK") == "1"

_SEED = os.environ.get("OTTLA_SEED") or str(random.SystemRandom().randrange(1 << 32))
_TALLY = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Counter()


@pytest.fixture(scope="session")
def seed() -> str:
    """Repeat a run with OTTLA_SEED."""
    return _SEED


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Counter[str]:
    """What has been tried so far; printed at the end."""
    return pytestconfig.stash[_TALLY]


@pytest.fixture(scope="session")
def instances() -> int:
    """How many instances of each message and version are tried."""
    return 1000 if SOAK else 20


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash[_TALLY]
    if tally:
        counts = ", ".join(f"{count:,} {what}" for what, count in tally.items())
        terminalreporter.write_line(f"oracle: {counts}; OTTLA_SEED={_SEED}")
