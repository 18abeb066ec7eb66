"""The partitions of a transaction, as each step names them in its record."""

from __future__ import annotations

import random

import pytest

from ottla.coordinator.entries.transaction_log import PartitionsSchema, TransactionLogValue
from ottla.coordinator.transaction import metadata
from ottla.coordinator.transaction.metadata import Transaction, first, schemas
from ottla.core.model import TopicPartition

ALL = [TopicPartition(topic, number) for topic in ("a", "b", "ab", "é") for number in range(12)]


def new() -> Transaction:
    return Transaction("x", first(1, 60_000, 0))


def join(transaction: Transaction, *partitions: TopicPartition) -> TransactionLogValue:
    value = transaction.with_partitions(partitions, 0, 2)
    transaction.adopt(value)
    return value


def as_pairs(named: list[PartitionsSchema] | None) -> list[tuple[str, list[int]]]:
    return [(one.topic, list(one.partition_ids)) for one in named or ()]


@pytest.mark.parametrize("seed", range(20))
def test_partitions_that_join_one_by_one_are_named_as_if_they_had_come_together(seed: int) -> None:
    dice, transaction = random.Random(seed), new()
    there: set[TopicPartition] = set()
    earlier: list[tuple[TransactionLogValue, list[tuple[str, list[int]]]]] = []
    for _ in range(25):
        some = dice.sample(ALL, dice.randrange(1, 4))
        there.update(some)
        value = join(transaction, *some)
        pairs = as_pairs(value.transaction_partitions)
        assert pairs == as_pairs(schemas(there))
        assert transaction.partitions == there
        earlier.append((value, pairs))
    for value, pairs in earlier:
        assert as_pairs(value.transaction_partitions) == pairs, "what was logged has changed"


def test_what_a_log_has_in_another_order_is_put_in_order() -> None:
    value = join(new(), ALL[0])
    value.transaction_partitions = [
        PartitionsSchema(topic="b", partition_ids=[3, 1]),
        PartitionsSchema(topic="a", partition_ids=[2]),
    ]
    loaded = Transaction("x", value)
    found = join(loaded, TopicPartition("b", 2)).transaction_partitions
    assert as_pairs(found) == [("a", [2]), ("b", [1, 2, 3])]


def test_what_is_named_for_one_more_partition_does_not_grow_with_those_before(monkeypatch) -> None:
    made = 0

    def counted(*, topic: str, partition_ids: list[int]) -> PartitionsSchema:
        nonlocal made
        made += 1
        return PartitionsSchema(topic=topic, partition_ids=partition_ids)

    monkeypatch.setattr(metadata, "PartitionsSchema", counted)
    transaction = new()
    for number in range(300):
        join(transaction, TopicPartition(f"t{number}", 0))
    for number in range(300):
        join(transaction, TopicPartition("t7", 1 + number))
    assert len(transaction.partitions) == 600
    assert made <= 2 * 600
