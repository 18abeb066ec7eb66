"""What happens to a transaction while time goes on, others begin, and requests come again."""

from __future__ import annotations

from math import inf

import pytest

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.listing import Filter, describe, listed
from ottla.coordinator.transaction.metadata import BUMPING
from ottla.core.model import TopicPartition
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import World

TIMEOUT_S, LOOK_S = 60, 10
WEEK_S = 7 * 24 * 3600


@pytest.fixture
def world() -> World:
    return World()


def test_i41_partitions_that_come_later_give_a_transaction_no_more_time(world: World) -> None:
    """Its timeout is counted from its beginning, or one that keeps adding would hang for ever."""
    producer = world.ongoing()
    for number in range(1, 6):
        world.loop.advance(TIMEOUT_S / 6)
        assert world.add(producer, TopicPartition("t", number)) is ErrorCode.NONE
    world.loop.advance(TIMEOUT_S / 6 + LOOK_S)
    assert world.state() == "CompleteAbort"


def test_a_short_transaction_is_aborted_in_time_behind_a_long_one(world: World) -> None:
    world.ongoing("long", timeout_ms=600_000)
    world.ongoing("short", timeout_ms=2_000)
    world.loop.advance(2.1)
    assert (world.state("short"), world.state("long")) == ("CompleteAbort", "Ongoing")


def test_a_clock_that_was_set_back_keeps_no_id_for_longer(world: World) -> None:
    world.begun()
    world.loop.wall_offset_ms -= 10 * WEEK_S * 1000
    world.restart()
    world.loop.advance(WEEK_S + 2 * 3600)
    assert world.shard.transactions == {}


def test_an_abort_of_nothing_is_told_with_the_time_at_which_it_was_asked_for(world: World) -> None:
    """A producer of the new kind asks for it when it can't know what became of its batches."""
    producer = world.begun()
    assert world.of().start_ms == -1
    world.loop.advance(5)
    assert world.end(producer, committed=False) == producer._replace(epoch=1)
    assert world.of().start_ms == world.loop.wall_ms()


@pytest.mark.parametrize("committed", [True, False])
def test_after_an_end_the_epoch_before_is_asked_with_again_and_gets_the_one_that_it_was_told(
    world: World, committed: bool
) -> None:
    """KIP-360: the answer to its EndTxn was lost, and it goes on by InitProducerId."""
    producer = world.ongoing()
    told = world.end(producer, committed)
    assert world.init(expected=producer) == told == producer._replace(epoch=1)
    assert world.init(expected=producer) == told
    assert world.init(expected=told) == producer._replace(epoch=2)


def test_a_batch_whose_time_is_up_while_it_is_tried_again_waits_for_no_other_end() -> None:
    wait_s = 0.25
    world = World(add_partitions_to_txn_retry_backoff_max_ms=str(int(wait_s * 1000)))
    producer = world.ongoing()
    world.markers.holds = True
    goes_on = world.end(producer)
    assert isinstance(goes_on, Identity)
    place = TopicPartition("t", 0)
    waiting = world.transactions.join("x", goes_on, (place,), BUMPING)
    assert isinstance(waiting, Pending)
    world.loop.advance(wait_s - 0.05)
    # The end that it waits for comes; before its turn does, the next transaction is to end, too.
    world.journal.commits_at_once = False
    world.markers.release()
    world.transactions.add_partitions("x", goes_on, (place,), BUMPING)
    world.transactions.end("x", goes_on, True, BUMPING)
    world.loop.run()
    assert not waiting.done, "what it is told waits for the disk"
    world.loop.advance(0.1)
    world.journal.commit()
    assert world.told(waiting) is ErrorCode.CONCURRENT_TRANSACTIONS
    assert not world.transactions._waiting


def test_i41_nothing_is_looked_for_when_nothing_is_open(world: World) -> None:
    world.end(world.ongoing())
    world.loop.advance(TIMEOUT_S + LOOK_S)
    assert world.shard._scan_at_s == inf
    world.ongoing(timeout_ms=1_000)
    world.loop.advance(1 + LOOK_S)
    assert world.state() == "CompleteAbort"


def test_a_transaction_is_as_old_as_its_beginning_whatever_came_since(world: World) -> None:
    """Since when it holds readers back, and whether it is listed as an old one."""
    begun_ms = world.loop.wall_ms()
    producer = world.ongoing()
    world.loop.advance(10)
    world.add(producer, TopicPartition("t", 1))
    told = describe(world.shard, "x").reply
    assert told.transaction_start_time_ms == begun_ms
    now_ms = world.loop.wall_ms()
    for older_ms, is_listed in ((9_999, True), (10_000, False), (-1, True)):
        wanted = Filter(states=None, producer_ids=(), duration_ms=older_ms)
        assert (listed(world.shard, "x", wanted, now_ms) is not None) == is_listed
