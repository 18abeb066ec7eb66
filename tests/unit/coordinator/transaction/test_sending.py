"""Markers on their way: tried again, given up where there is nothing to end, sent anew after a start."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from ottla.coordinator.transaction import sending
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import CLASSIC
from ottla.coordinator.transaction.sending import AGAIN_S, AGAIN_S_MAX
from ottla.protocol.errors import ErrorCode
from tests.transactions import P0, P1, P2, World


@pytest.fixture
def world() -> World:
    return World()


def prepared(world: World, *, committed: bool = True, version: int = CLASSIC) -> Identity:
    """A transaction whose markers are on their way."""
    producer = world.begun()
    world.add(producer, P0, P1, P2)
    world.markers.holds = True
    world.end(producer, committed, version=version)
    assert world.of().is_prepared
    return producer


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_SERVER_ERROR,
    ],
)
def test_a_marker_that_could_not_be_written_is_tried_again_there_alone(
    world: World, error: ErrorCode
) -> None:
    world.markers.errors[P1] = error
    prepared(world)
    world.markers.release()
    world.loop.run()
    assert world.state() == "PrepareCommit"
    world.loop.advance(AGAIN_S)
    assert [partitions for _, partitions in world.markers.written] == [(P0, P1, P2), (P1,)]
    world.markers.release()
    world.loop.run()
    assert world.state() == "CompleteCommit"


def test_a_partition_that_stays_damaged_is_tried_now_and_then_and_told_of_once(
    world: World,
) -> None:
    prepared(world)
    world.markers.holds = False
    world.markers.errors[P1] = ErrorCode.KAFKA_STORAGE_ERROR
    with patch.object(sending._log, "warning") as told:
        world.markers.release()
        for _ in range(600):
            world.markers.errors[P1] = ErrorCode.KAFKA_STORAGE_ERROR
            world.loop.advance(1.0)
    assert told.call_count == 1
    assert world.state() == "PrepareCommit"
    assert 600 / AGAIN_S_MAX <= len(world.markers.written) <= 600 / AGAIN_S_MAX + 10
    world.markers.errors.clear()
    world.loop.advance(AGAIN_S_MAX)
    assert world.state() == "CompleteCommit"


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_PRODUCER_EPOCH,
    ],
)
def test_i41_a_partition_that_is_gone_or_has_gone_on_holds_nothing_up(
    world: World, error: ErrorCode
) -> None:
    world.markers.errors[P1] = error
    prepared(world)
    world.markers.release()
    world.loop.run()
    assert world.state() == "CompleteCommit"
    assert len(world.markers.written) == 1


@pytest.mark.parametrize("committed", [True, False])
def test_after_a_restart_what_is_prepared_is_sent_again(world: World, committed: bool) -> None:
    prepared(world, committed=committed)
    world.restart()
    assert len(world.markers.written) == 2
    assert world.markers.written[0] == world.markers.written[1]
    world.markers.release()
    world.loop.run()
    assert world.state() == ("CompleteCommit" if committed else "CompleteAbort")


def test_after_a_restart_a_hundred_are_sent_in_their_turns(world: World) -> None:
    world.markers.holds = True
    for number in range(120):
        name = f"{number}"
        world.end(world.ongoing(name), name=name)
    world.markers.holds = False
    world.restart()
    assert {found.state.title for found in world.shard.transactions.values()} == {"CompleteCommit"}


def test_i43_a_marker_is_not_sent_again_for_a_transaction_that_has_ended(world: World) -> None:
    """Under version 1 it would end the next one, which has the same epoch."""
    world.markers.errors[P1] = ErrorCode.KAFKA_STORAGE_ERROR
    producer = prepared(world)
    world.markers.release()
    world.loop.run()
    world.shard.complete(world.of(), producer)
    assert world.add(producer, P1) is ErrorCode.NONE
    sent = len(world.markers.written)
    world.loop.advance(10 * AGAIN_S)
    assert len(world.markers.written) == sent
    assert world.state() == "Ongoing"


def test_i43_a_marker_that_is_done_late_does_not_complete_the_next_transaction(
    world: World,
) -> None:
    first = prepared(world, version=2)
    held, world.markers.held = world.markers.held, []
    world.shard.complete(world.of(), world_of(first))
    second = world_of(first)
    world.add(second, P0)
    world.end(second)
    assert world.state() == "PrepareCommit"
    for pending, partitions in held:
        pending.complete(dict.fromkeys(partitions, ErrorCode.NONE))
    world.loop.run()
    assert world.state() == "PrepareCommit"


def world_of(producer: Identity) -> Identity:
    """As whom a producer goes on under version 2."""
    return Identity(producer.producer_id, producer.epoch + 1)


def test_nothing_is_tried_again_once_the_topic_is_deleted(world: World) -> None:
    prepared(world)
    world.markers.errors[P1] = ErrorCode.KAFKA_STORAGE_ERROR
    world.journals.delete()
    world.markers.release()
    world.loop.run()
    world.loop.advance(10 * AGAIN_S)
    assert world.journals.made_count == 0
    assert len(world.markers.written) == 1


def test_i43_a_marker_is_not_sent_again_by_who_was_unloaded_meanwhile(world: World) -> None:
    """Its successor sends its own; by the next transaction's, of the same epoch, it would end it
    too early."""
    producer = prepared(world)
    world.markers.holds = False
    world.markers.errors[P1] = ErrorCode.KAFKA_STORAGE_ERROR
    world.markers.release()
    world.transactions.runtime._keepers[0].unload(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert world.add(producer, P1) is ErrorCode.NONE, "loaded anew, and ended"
    sent = len(world.markers.written)
    world.markers.holds = True
    world.end(producer, version=CLASSIC)
    world.loop.advance(10 * AGAIN_S)
    assert len(world.markers.written) == sent + 1, "the second one's own"
    assert world.state() == "PrepareCommit"


def test_what_was_prepared_and_never_reached_the_disk_is_not_sent(world: World) -> None:
    producer = world.ongoing()
    world.journal.commits_at_once = False
    asked = world.transactions.end("x", producer, True, CLASSIC)
    world.journal.fail(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert world.told(asked) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert world.markers.written == []
