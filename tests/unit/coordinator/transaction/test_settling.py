"""Completions that are written late, or never: what the next entry of an id says makes them needless."""

from __future__ import annotations

from random import Random

import pytest

from ottla.coordinator.decision import Entry
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC, EXHAUSTED_EPOCH
from ottla.coordinator.transaction.shard import SETTLE_S, SETTLED_AT_ONCE, TransactionShard
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import P0, P1, P2, World

VERSIONS = (CLASSIC, BUMPING)


@pytest.fixture
def world() -> World:
    return World()


def titles(world: World, name: str = "x") -> list[str]:
    """The states that the log has of an id, one after the other."""
    return logged(world)[name]


def logged(world: World) -> dict[str, list[str]]:
    """The same of all ids."""
    found: dict[str, list[str]] = {}
    for key, value in world.entries():
        title = "-" if value is None else _TITLES[value.transaction_status]
        found.setdefault(key.transactional_id, []).append(title)
    return found


_TITLES = {
    0: "Empty",
    1: "Ongoing",
    2: "PrepareCommit",
    3: "PrepareAbort",
    4: "Complete",
    5: "Complete",
}


def ended(world: World, name: str = "x", *, version: int = BUMPING) -> Identity:
    """A producer whose transaction is over."""
    goes_on = world.end(world.ongoing(name), name=name, version=version)
    assert isinstance(goes_on, Identity)
    return goes_on


@pytest.mark.parametrize("version", VERSIONS)
def test_a_completion_is_true_at_once_and_in_the_log_a_little_later(
    world: World, version: int
) -> None:
    ended(world, version=version)
    assert world.state() == "CompleteCommit"
    assert titles(world) == ["Empty", "Ongoing", "PrepareCommit"]
    world.loop.advance(SETTLE_S)
    assert titles(world) == ["Empty", "Ongoing", "PrepareCommit", "Complete"]
    world.loop.advance(100 * SETTLE_S)
    assert len(titles(world)) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_transaction_makes_it_needless(world: World, version: int) -> None:
    producer = ended(world, version=version)
    assert world.add(producer, version=version) is ErrorCode.NONE
    world.loop.advance(SETTLE_S)
    assert titles(world) == ["Empty", "Ongoing", "PrepareCommit", "Ongoing"]


def test_so_does_the_next_producer(world: World) -> None:
    ended(world)
    world.begun()
    world.loop.advance(SETTLE_S)
    assert titles(world) == ["Empty", "Ongoing", "PrepareCommit", "Empty"]


def test_that_of_another_id_does_not(world: World) -> None:
    ended(world)
    world.ongoing("y")
    world.loop.advance(SETTLE_S)
    assert titles(world)[-1] == "Complete"


def test_a_stop_leaves_nothing_to_be_done_by_the_next_start(world: World) -> None:
    names = [f"{number}" for number in range(SETTLED_AT_ONCE + 10)]
    for name in names:
        ended(world, name)
    world.transactions.stop()
    states = logged(world)
    assert {states[name][-1] for name in names} == {"Complete"}
    sent = len(world.markers.written)
    world.restart()
    assert len(world.markers.written) == sent


@pytest.mark.parametrize("version", VERSIONS)
def test_a_crash_before_it_has_the_markers_sent_again_and_nothing_else_done(
    world: World, version: int
) -> None:
    producer = ended(world, version=version)
    world.restart()
    [first, again] = world.markers.written
    assert first == again
    assert world.state() == "CompleteCommit"
    assert world.add(producer, version=version) is ErrorCode.NONE


def test_what_a_disk_does_not_take_is_written_when_it_does(world: World) -> None:
    producer = ended(world)
    world.journal.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    world.loop.advance(10 * SETTLE_S)
    assert world.add(producer) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert titles(world)[-1] == "PrepareCommit"
    world.journal.append_error = ErrorCode.NONE
    world.loop.advance(1.0)
    assert titles(world)[-1] == "Complete"
    assert world.add(producer) is ErrorCode.NONE


def test_many_are_written_in_their_turns(world: World) -> None:
    for number in range(2 * SETTLED_AT_ONCE + 1):
        ended(world, f"{number}")
    appended = len(world.journal.batches)
    world.loop.advance(SETTLE_S)
    assert {states[-1] for states in logged(world).values()} == {"Complete"}
    assert len(world.journal.batches) == appended + 3


def test_they_are_written_also_if_the_shard_is_too_busy_to_be_told_so(world: World) -> None:
    producer = world.ongoing()
    world.end(world.ongoing("y"), name="y")
    world.loop.advance(SETTLE_S)
    world.markers.holds = True
    world.end(producer)
    files: Pending[None] = Pending()
    world.journal.files = files
    asked = world.transactions.init_producer_id("z", 1000, None)
    runtime = world.transactions.runtime
    while not (one := runtime.submit_to(0, lambda shard: shard.expire_ids())).done:
        pass
    assert one.result() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "its queue is full"
    world.markers.release()
    world.loop.run()
    files.complete(None)
    world.loop.advance(3 * SETTLE_S)
    assert isinstance(asked, Pending)
    assert asked.done
    assert titles(world)[-1] == "Complete"


def test_one_that_is_complete_while_others_wait_for_files_is_written_after_them(
    world: World,
) -> None:
    producer = world.ongoing("y")
    world.markers.holds = True
    world.end(producer, name="y")
    world.markers.holds = False
    ended(world)
    files: Pending[None] = Pending()
    world.journal.files = files
    world.loop.advance(SETTLE_S)
    world.markers.release()
    world.loop.run()
    assert world.state("y") == "CompleteCommit"
    files.complete(None)
    world.loop.advance(SETTLE_S)
    assert (titles(world)[-1], titles(world, "y")[-1]) == ("Complete", "Complete")


@pytest.mark.parametrize("how", ["stopped", "its disk has failed", "its topic is gone"])
def test_where_they_can_never_be_written_nobody_asks_for_it_any_more(
    world: World, how: str
) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    world.end(producer)
    if how == "stopped":
        world.transactions.stop()
    elif how == "its topic is gone":
        world.journals.delete()
    else:
        world.journals.open_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        world.journal.fail(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    world.markers.release()
    world.loop.advance(10 * SETTLE_S)
    world.transactions.hanging.stop()  # it looks for as long as there is a node
    waiting = [timer for _, _, timer in world.loop._later if timer.call is not None]
    assert not waiting


LASTING = (
    "state",
    "producer_id",
    "previous_producer_id",
    "next_producer_id",
    "epoch",
    "partitions",
    "timeout_ms",
    "start_ms",
    "version",
    "is_prepared",
)
"""What is known of an id beside times and what the log has no place for."""


class Learned(World):
    """Producers that do anything; held against what a crash would leave of them."""

    def __init__(self, seed: int) -> None:
        super().__init__(
            transactional_id_expiration_ms="100000",
            transaction_remove_expired_transaction_cleanup_interval_ms="50000",
        )
        self.chance = Random(seed)
        self.own = {name: self.begun(name) for name in "xyz"}
        self.late_count = 0

    def step(self) -> None:
        chance = self.chance
        name = chance.choice("xyz")
        own = self.own[name]
        version = chance.choice(VERSIONS)
        told: Identity | ErrorCode = ErrorCode.NONE
        match chance.randrange(12):
            case 0:
                told = self.init(name, chance.choice((None, own)), chance.choice((1000, 60_000)))
            case 1 | 2 | 3 | 4:
                self.add(own, *chance.sample((P0, P1, P2), 2), name=name, version=version)
            case 5 | 6 | 7 | 8:
                told = self.end(own, chance.random() < 0.7, name=name, version=version)
            case 9:
                self.loop.advance(chance.choice((SETTLE_S / 2, SETTLE_S, 20, 200)))
            case 10:
                self.markers.holds = not self.markers.holds
                self.markers.release()
                self.loop.run()
            case _ if own.epoch and name in self.shard.transactions and self.state(name) == "Empty":
                self.of(name).epoch = chance.choice((EXHAUSTED_EPOCH - 1, EXHAUSTED_EPOCH))
                told = Identity(self.of(name).producer_id, self.of(name).epoch)
                entry = Entry(self.of(name).key, self.of(name).as_logged())
                self.write(entry)
        if isinstance(told, Identity):
            self.own[name] = told

    def check(self) -> None:
        """What the log says, and its prepared ones completed where all markers are written."""
        shard = TransactionShard(0, self.config, self.loop, self.transactions)
        for entry in self.entries():
            shard.replay(entry)
        living = self.shard.transactions
        assert shard.transactions.keys() == living.keys()
        for name, found in shard.transactions.items():
            if found.is_prepared and not living[name].is_prepared:
                found.complete(0)
                self.late_count += 1
            for what in LASTING:
                assert getattr(found, what) == getattr(living[name], what), (name, what)


@pytest.mark.parametrize("seed", range(10))
def test_what_the_log_says_leads_to_what_is_known_at_every_moment(seed: int) -> None:
    world = Learned(seed)
    for _ in range(150):
        world.step()
        world.check()
    assert world.late_count
