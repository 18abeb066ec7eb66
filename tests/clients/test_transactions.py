"""Transactions with each Python client: all of one or nothing, zombies fenced, none left hanging."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from tests.clients.clients import create_topic
from tests.clients.conftest import start_broker
from tests.clients.transactors import PATIENCE_S, READERS, TRANSACTORS, Fenced, Transactor
from tests.processes import Broker, wait_until

# Kafka looks for transactions that took too long every 10 s unless it is told otherwise.
OPTIONS = ("transaction.abort.timed.out.transaction.cleanup.interval.ms=200",)
EVERY = pytest.mark.parametrize("client", TRANSACTORS)
ELSEWHERE = "OTTLA_TEST_BOOTSTRAP" in os.environ
_numbers = count()


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker: Broker = start_broker(tmp_path_factory.mktemp("transactions"), *OPTIONS)
    yield broker.bootstrap
    broker.stop()


class World:
    """A topic of two partitions, and a client that writes to it and reads it."""

    def __init__(self, bootstrap: str, client: str) -> None:
        self.bootstrap = bootstrap
        self.client = client
        self.topic = self.id = f"txn-{client}-{os.getpid()}-{next(_numbers)}"
        create_topic(bootstrap, self.topic, 2)

    @contextmanager
    def transactor(self, transactional_id: str = "", **more: Any) -> Iterator[Transactor]:
        one = TRANSACTORS[self.client](self.bootstrap, self.id + transactional_id, **more)
        try:
            yield one
        finally:
            one.close()

    def read(self, *, committed: bool = True) -> list[list[bytes]]:
        return READERS[self.client](self.bootstrap, self.topic, 2, committed)

    def settled(self, expected: list[list[bytes]]) -> None:
        """What readers of committed records get, once the markers have come: a commit is answered
        before, as in Kafka."""
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = [self.read()]
            return found[0] == expected

        wait_until(is_there, f"{expected}", PATIENCE_S, lambda: f"found {found}")


@pytest.fixture
def world(bootstrap: str, client: str) -> World:
    return World(bootstrap, client)


@EVERY
def test_a_transaction_is_read_as_a_whole_once_it_is_committed(world: World) -> None:
    with world.transactor() as one:
        one.begin()
        one.send(world.topic, 0, b"a")
        one.send(world.topic, 1, b"b")
        one.flush()
        assert world.read() == [[], []]
        assert world.read(committed=False) == [[b"a"], [b"b"]]
        one.commit()
        world.settled([[b"a"], [b"b"]])


@EVERY
def test_an_aborted_transaction_is_read_by_those_only_who_read_all(world: World) -> None:
    with world.transactor() as one:
        for value, end in ((b"a", one.commit), (b"b", one.abort), (b"c", one.commit)):
            one.begin()
            one.send(world.topic, 0, value)
            one.flush()
            end()
        world.settled([[b"a", b"c"], []])
        assert world.read(committed=False) == [[b"a", b"b", b"c"], []]


@EVERY
def test_an_open_transaction_holds_back_what_others_commit_behind_it(world: World) -> None:
    with world.transactor("-1") as one, world.transactor("-2") as other:
        one.begin()
        one.send(world.topic, 0, b"first")
        one.flush()
        other.begin()
        other.send(world.topic, 0, b"second")
        other.send(world.topic, 1, b"alone")
        other.commit()
        world.settled([[], [b"alone"]])
        one.abort()
        world.settled([[b"second"], [b"alone"]])


def _write_late(zombie: Transactor, topic: str) -> None:
    zombie.send(topic, 1, b"late")
    zombie.commit()


@EVERY
def test_a_second_producer_of_an_id_fences_the_first_and_aborts_what_it_began(
    world: World,
) -> None:
    with world.transactor() as zombie:
        zombie.begin()
        zombie.send(world.topic, 0, b"zombie's")
        zombie.flush()
        with world.transactor() as one:
            one.begin()
            one.send(world.topic, 0, b"mine")
            one.commit()
            with pytest.raises(Fenced):
                _write_late(zombie, world.topic)
            world.settled([[b"mine"], []])


@EVERY
def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_may_not_commit_it(
    world: World,
) -> None:
    with world.transactor(timeout_ms=3_000) as one:
        one.begin()
        one.send(world.topic, 0, b"late")
        one.flush()
        with world.transactor("-other") as other:
            other.begin()
            other.send(world.topic, 0, b"in time")
            other.commit()
        wait_until(lambda: world.read() == [[b"in time"], []], "the abort", PATIENCE_S)
        with pytest.raises(Fenced):
            one.commit()
    assert world.read() == [[b"in time"], []]


def committed(bootstrap: str, group: str, topic: str, *, stable: bool) -> int | str:
    """What the group has committed of partition 0, or the name of the error."""
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    (answer,) = admin.list_consumer_group_offsets(
        [asked], require_stable=stable, request_timeout=30
    ).values()
    (place,) = answer.result().topic_partitions
    return place.offset if place.error is None else str(place.error.name())


@EVERY
def test_offsets_sent_to_a_transaction_are_committed_with_it_or_not_at_all(world: World) -> None:
    group, place = f"group-{world.id}", (world.topic, 0)

    def now(stable: bool = True) -> int | str:
        return committed(world.bootstrap, group, world.topic, stable=stable)

    with world.transactor() as one:
        one.begin()
        one.send(world.topic, 1, b"a")
        one.send_offsets(group, {place: 5})
        assert (now(), now(stable=False)) == ("UNSTABLE_OFFSET_COMMIT", -1001)
        one.commit()
        wait_until(lambda: now() == 5, "the commit")
        one.begin()
        one.send(world.topic, 1, b"b")
        one.send_offsets(group, {place: 7})
        assert (now(), now(stable=False)) == ("UNSTABLE_OFFSET_COMMIT", 5)
        one.abort()
        wait_until(lambda: now() == 5, "the abort")
        world.settled([[], [b"a"]])


@EVERY
def test_what_a_loop_of_transactions_makes_of_its_input_is_there_once(world: World) -> None:
    """A copier that aborts some of what it does, and begins again where its group has got to."""
    other = World(world.bootstrap, world.client)
    values = [b"%d" % number for number in range(60)]
    with world.transactor("-filling") as filler:
        filler.begin()
        for value in values:
            filler.send(world.topic, 0, value)
        filler.commit()
    world.settled([values, []])
    group, place = f"group-{world.id}", (world.topic, 0)
    with other.transactor() as copier:
        for turn in count():
            wait_until(lambda: isinstance(at(world, group), int), "a stable offset", PATIENCE_S)
            done = max(int(at(world, group)), 0)
            if done >= len(values):
                break
            taken = values[done : done + 7]
            copier.begin()
            for value in taken:
                copier.send(other.topic, int(value) % 2, value)
            copier.send_offsets(group, {place: done + len(taken)})
            (copier.abort if turn % 3 == 1 else copier.commit)()
    other.settled([values[::2], values[1::2]])


def at(world: World, group: str) -> int | str:
    return committed(world.bootstrap, group, world.topic, stable=True)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_passes_over_what_every_client_aborted(bootstrap: str, reader: str) -> None:
    world = World(bootstrap, "confluent-kafka")
    expected: list[bytes] = []
    for client in TRANSACTORS:
        one: Callable[..., Transactor] = TRANSACTORS[client]
        transactor = one(bootstrap, f"{world.id}-{client}")
        for number in range(6):
            transactor.begin()
            value = f"{client} {number}".encode()
            transactor.send(world.topic, 0, value)
            if number % 2:
                transactor.flush()
                transactor.abort()
            else:
                transactor.commit()
                expected.append(value)
        transactor.close()
    wait_until(lambda: READERS[reader](bootstrap, world.topic, 2, True) == [expected, []], "all")
