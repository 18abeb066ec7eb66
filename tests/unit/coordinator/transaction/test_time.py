"""Time: transactions that take too long, ids that nobody uses, and clocks that jump (I41)."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import EXHAUSTED_EPOCH
from ottla.coordinator.transaction.shard import EXPIRED_AT_ONCE, GRACE_S
from ottla.core.model import ProducerId, TopicPartition
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import World

TIMEOUT_S, LOOK_S = 60, 10
WEEK_S = 7 * 24 * 3600


@pytest.fixture
def world() -> World:
    return World()


def test_i41_a_transaction_that_takes_too_long_is_aborted(world: World) -> None:
    producer = world.ongoing()
    world.loop.advance(TIMEOUT_S - 1)
    assert world.state() == "Ongoing"
    world.loop.advance(1 + LOOK_S)
    assert world.state() == "CompleteAbort"
    [(ending, _)] = world.markers.written
    assert not ending.committed
    assert world.end(producer) is ErrorCode.INVALID_TXN_STATE
    assert world.add(producer) is ErrorCode.PRODUCER_FENCED


def test_h116_a_classic_producer_that_took_too_long_is_fenced(world: World) -> None:
    producer = world.ongoing()
    world.loop.advance(TIMEOUT_S + LOOK_S)
    for committed in (True, False):
        assert world.end(producer, committed, version=0) is ErrorCode.PRODUCER_FENCED


def test_its_timeout_begins_with_its_first_partition(world: World) -> None:
    producer = world.begun()
    world.loop.advance(TIMEOUT_S - 5)
    world.add(producer)
    world.loop.advance(TIMEOUT_S - 1)
    assert world.state() == "Ongoing"
    world.end(producer)
    world.loop.advance(TIMEOUT_S + LOOK_S)
    assert world.state() == "CompleteCommit"


@pytest.mark.parametrize("timeouts_s", [(5, 600), (600, 5), (5, 5), (0.001, 600)])
def test_each_is_aborted_in_its_own_time(world: World, timeouts_s: tuple[float, float]) -> None:
    for name, timeout_s in zip("ab", timeouts_s, strict=True):
        world.ongoing(name, timeout_ms=int(timeout_s * 1000))
    for name, timeout_s in sorted(zip("ab", timeouts_s, strict=True), key=lambda one: one[1]):
        world.loop.advance(timeout_s + LOOK_S - world.loop.now_s)
        assert world.state(name) == "CompleteAbort"


def test_how_often_is_looked_is_an_option() -> None:
    world = World(transaction_abort_timed_out_transaction_cleanup_interval_ms="50")
    world.ongoing(timeout_ms=1000)
    world.loop.advance(1.05)
    assert world.state() == "CompleteAbort"


def test_a_hundred_that_took_too_long_are_aborted_in_their_turns(world: World) -> None:
    for number in range(120):
        world.ongoing(f"{number}")
    world.loop.advance(TIMEOUT_S + LOOK_S)
    assert {found.state.title for found in world.shard.transactions.values()} == {"CompleteAbort"}


def test_one_that_could_not_be_aborted_is_aborted_later(world: World) -> None:
    world.ongoing()
    world.journal.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    world.loop.advance(TIMEOUT_S + LOOK_S)
    assert world.state() == "Ongoing"
    world.journal.append_error = ErrorCode.NONE
    world.loop.advance(LOOK_S)
    assert world.state() == "CompleteAbort"


def test_an_abort_that_comes_late_spares_the_next_transaction_of_the_same_epoch(
    world: World,
) -> None:
    """It had to wait for a producer id; its transaction was committed meanwhile."""
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    waited: list[Pending[ProducerId]] = []

    def next_id() -> Pending[ProducerId]:
        waited.append(Pending())
        return waited[-1]

    with patch.object(world.transactions, "_next_producer_id", next_id):
        world.loop.advance(TIMEOUT_S + LOOK_S)
    assert world.state() == "Ongoing"
    assert world.end(producer, version=0) == producer
    assert world.add(producer) is ErrorCode.NONE
    assert waited
    for pending in waited:
        pending.complete(ProducerId(5000))
    world.loop.run()
    assert world.state() == "Ongoing"
    world.loop.advance(TIMEOUT_S + LOOK_S)
    assert world.state() == "CompleteAbort"


@pytest.mark.parametrize("too_long", [False, True])
@pytest.mark.parametrize("left", [0, -100])
def test_i41_a_transaction_ends_though_its_entry_is_as_large_as_a_batch_may_be(
    world: World, left: int, too_long: bool
) -> None:
    """By a few bytes what ends it is larger than what began it, and the limit may be lowered."""
    producer = world.ongoing()
    world.journal.batch_bytes_max = len(world.journal.batches[-1]) + left
    if too_long:
        world.loop.advance(TIMEOUT_S + LOOK_S)
    else:
        assert isinstance(world.end(producer, committed=False), Identity)
    assert world.state() == "CompleteAbort"
    goes_on = Identity(producer.producer_id, producer.epoch + 1)
    many = [TopicPartition("t", number) for number in range(100)]
    assert world.add(goes_on, *many) is ErrorCode.UNKNOWN_SERVER_ERROR


def test_h119_one_at_the_last_epoch_is_aborted_like_any_other(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    world.loop.advance(TIMEOUT_S + LOOK_S)
    assert world.state() == "CompleteAbort"
    assert (world.of().producer_id, world.of().epoch) == (producer.producer_id + 1, 0)


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
def test_i41_a_wall_clock_that_jumps_changes_nothing(world: World, jump_s: int) -> None:
    world.ongoing()
    world.loop.wall_offset_ms += jump_s * 1000
    world.loop.advance(TIMEOUT_S - 1)
    assert world.state() == "Ongoing"
    world.loop.advance(1 + LOOK_S)
    assert world.state() == "CompleteAbort"


def test_after_a_restart_a_transaction_has_the_time_that_is_left(world: World) -> None:
    world.ongoing()
    world.loop.advance(TIMEOUT_S - 30)
    world.restart(down_s=10)
    world.loop.advance(19)
    assert world.state() == "Ongoing"
    world.loop.advance(1 + LOOK_S)
    assert world.state() == "CompleteAbort"


def test_after_a_long_stop_its_producer_has_a_little_time_to_come_back(world: World) -> None:
    producer = world.ongoing()
    world.restart(down_s=86_400)
    world.loop.advance(GRACE_S - 1)
    assert isinstance(world.end(producer), Identity)


def test_i41_after_a_long_stop_it_is_aborted_soon(world: World) -> None:
    world.ongoing()
    world.restart(down_s=86_400)
    world.loop.advance(GRACE_S + LOOK_S)
    assert world.state() == "CompleteAbort"


def test_i41_after_a_restart_with_a_clock_set_back_it_has_its_timeout_and_no_more(
    world: World,
) -> None:
    world.ongoing()
    world.loop.wall_offset_ms -= 86_400_000
    world.restart()
    world.loop.advance(TIMEOUT_S - 1)
    assert world.state() == "Ongoing"
    world.loop.advance(1 + LOOK_S)
    assert world.state() == "CompleteAbort"


def test_a_timeout_that_is_shorter_than_the_grace_is_kept(world: World) -> None:
    world.ongoing(timeout_ms=1000)
    world.restart()
    world.loop.advance(1)
    assert world.state() == "CompleteAbort"


# --- ids that nobody uses ------------------------------------------------------------------------


def test_an_id_is_forgotten_when_it_was_not_used_for_a_week(world: World) -> None:
    producer = world.begun()
    world.loop.advance(WEEK_S - 3600)
    assert "x" in world.shard.transactions
    world.loop.advance(2 * 3600)
    assert world.shard.transactions == {}
    assert world.add(producer) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    world.restart()
    assert world.shard.transactions == {}


def test_an_id_that_is_used_stays(world: World) -> None:
    producer = world.begun()
    for _ in range(3):
        world.loop.advance(WEEK_S / 2)
        world.add(producer)
        world.end(producer, version=0)
    assert "x" in world.shard.transactions


def test_a_prepared_transaction_does_not_expire(world: World) -> None:
    world.markers.holds = True
    world.end(world.ongoing())
    world.loop.advance(2 * WEEK_S)
    assert world.state() == "PrepareCommit"


def test_ids_expire_by_the_monotonic_clock(world: World) -> None:
    world.begun()
    world.loop.wall_offset_ms += 2 * WEEK_S * 1000
    world.loop.advance(2 * 3600)
    assert "x" in world.shard.transactions


def test_what_was_not_used_before_a_restart_counts(world: World) -> None:
    world.begun()
    world.loop.advance(WEEK_S / 2)
    world.restart(down_s=WEEK_S / 2)
    world.loop.advance(3600)
    assert world.shard.transactions == {}


def test_many_expire_in_several_goes(world: World) -> None:
    for number in range(EXPIRED_AT_ONCE + 5):
        world.begun(f"{number}")
    world.loop.advance(WEEK_S + 3600)
    assert world.shard.transactions == {}
    world.loop.advance(WEEK_S)


def test_when_and_how_often_are_options() -> None:
    world = World(
        transactional_id_expiration_ms="1000",
        transaction_remove_expired_transaction_cleanup_interval_ms="500",
    )
    world.begun()
    world.loop.advance(0.9)
    assert "x" in world.shard.transactions
    world.loop.advance(0.6)
    assert world.shard.transactions == {}
