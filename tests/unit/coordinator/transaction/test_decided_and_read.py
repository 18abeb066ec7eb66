"""What a step leaves in memory is what its entry on disk says: nothing is replayed twice over."""

from __future__ import annotations

from random import Random

import pytest

from ottla.coordinator.entries.transaction_log import TransactionLogValue
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC, Transaction
from ottla.coordinator.transaction.shard import SETTLE_S
from ottla.core.model import TopicPartition
from tests.transactions import World

PLACES = [TopicPartition(topic, number) for topic in ("t", "u", "ü") for number in range(3)]
SOFT = {"deadline_s", "used_s", "last_epoch"}
"""What the log has no place for."""


def known(one: Transaction) -> dict[str, object]:
    return {name: getattr(one, name) for name in Transaction.__slots__ if name not in SOFT}


def read_back(world: World) -> Transaction:
    """From its last entry alone, by way of the decoder, as a compacted log is loaded."""
    value = world.entries()[-1].value
    assert isinstance(value, TransactionLogValue)
    return Transaction("x", value)


@pytest.mark.parametrize("version", [CLASSIC, BUMPING])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_read_from_the_log_is_what_was_decided(version: int, seed: int) -> None:
    random, world = Random(seed), World()
    producer = world.begun()
    for _ in range(40):
        step = random.choice(("begin", "add", "add", "end", "end", "wait", "restart"))
        if step == "begin":
            producer = told if isinstance(told := world.init(), Identity) else producer
        elif step == "add":
            places = random.sample(PLACES, random.randint(1, 4))
            world.add(producer, *places, version=version)
        elif step == "end":
            told = world.end(producer, random.random() < 0.5, version=version)
            producer = told if isinstance(told, Identity) else producer
        elif step == "wait":
            world.loop.advance(SETTLE_S)
        else:
            world.restart()
        found = read_back(world)
        if found.is_prepared:  # a completion that is not written yet
            assert step != "wait"
            found.complete(world.of().update_ms)
        assert known(world.of()) == known(found), step
    assert len(world.entries()) > 10, "so much has happened"
