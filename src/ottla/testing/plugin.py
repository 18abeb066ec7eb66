"""A pytest plugin: the fixture `ottla_broker`, there in every project that has ottla installed.

Owns the fixture. Must import nothing of the broker until a test asks for one: pytest loads this
module in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ottla import Broker


@pytest.fixture
def ottla_broker() -> Iterator[Broker]:
    """An empty Kafka broker of the test's own, in this process: see `ottla.Broker`."""
    from ottla import Broker

    with Broker() as broker:
        yield broker
