"""Partitions in a transaction: added by a request, added by a batch, or only looked for."""

from __future__ import annotations

import pytest

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC, EXHAUSTED_EPOCH
from ottla.coordinator.transaction.ports import Admitted, said_of
from ottla.core.model import TopicPartition
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import P0, P1, P2, World

NONE = ErrorCode.NONE
CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
MAPPING = ErrorCode.INVALID_PRODUCER_ID_MAPPING


@pytest.fixture
def world() -> World:
    return World()


def admit(
    world: World, producer: Identity, *partitions: TopicPartition, add: bool = True, name: str = "x"
) -> Pending[dict[TopicPartition, ErrorCode]]:
    asked = world.transactions.admit(name, *producer, partitions or (P0,), add=add)
    world.loop.run()
    told: Pending[dict[TopicPartition, ErrorCode]] = Pending()
    places = partitions or (P0,)

    def done(admitted: Admitted) -> None:
        told.complete({one: said_of(one, admitted) for one in places})

    if isinstance(asked, Pending):
        asked.then(lambda: done(asked.result()))
    else:
        done(asked)
    return told


def test_the_first_partition_begins_a_transaction(world: World) -> None:
    producer = world.begun()
    world.loop.advance(3)
    assert world.add(producer, P0, P1) is NONE
    assert world.state() == "Ongoing"
    assert world.of().partitions == {P0, P1}
    assert world.of().start_ms == world.loop.wall_ms()


def test_more_partitions_join_it_and_it_has_begun_when_it_has(world: World) -> None:
    producer = world.ongoing()
    begun_ms = world.of().start_ms
    world.loop.advance(3)
    assert world.add(producer, P1) is NONE
    assert world.of().partitions == {P0, P1}
    assert world.of().start_ms == begun_ms


def test_partitions_that_are_in_it_cost_no_entry(world: World) -> None:
    producer = world.begun()
    world.add(producer, P0, P1)
    before = len(world.entries())
    assert world.add(producer, P1) is NONE
    assert len(world.entries()) == before


def test_who_only_looks_is_told_of_nothing_that_is_not_committed(world: World) -> None:
    producer = world.begun()
    world.journal.commits_at_once = False
    added = world.transactions.add_partitions("x", producer, (P0,), CLASSIC)
    looked = admit(world, producer, P0, P1, add=False)
    assert isinstance(added, Pending)
    assert not added.done
    assert not looked.done
    world.journal.commit()
    assert looked.result() == {P0: NONE, P1: ErrorCode.TRANSACTION_ABORTABLE}
    assert admit(world, producer, P0, add=False).result() == {P0: NONE}


def test_who_only_looks_waits_for_what_was_asked_before(world: World) -> None:
    producer = world.begun()
    files: Pending[None] = Pending()
    world.journal.files = files
    world.transactions.add_partitions("x", producer, (P0,), CLASSIC)
    looked = admit(world, producer, add=False)
    assert not looked.done
    files.complete(None)
    assert looked.result() == {P0: NONE}


def test_h113_only_its_producer_may_add(world: World) -> None:
    producer = world.begun()
    assert world.add(producer, name="nobody") is MAPPING
    assert world.add(producer, name="") is ErrorCode.INVALID_REQUEST
    assert world.add(Identity(4, producer.epoch)) is MAPPING
    for epoch in (-1, producer.epoch + 1):
        assert world.add(Identity(producer.producer_id, epoch)) is ErrorCode.PRODUCER_FENCED
    assert world.state() == "Empty"


def test_nothing_joins_a_transaction_that_is_about_to_end(world: World) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    goes_on = world.end(producer)
    assert isinstance(goes_on, Identity)
    assert world.add(producer, P1) is CONCURRENT
    assert world.add(goes_on, P1) is CONCURRENT
    world.markers.release()
    assert world.add(goes_on, P1) is NONE
    assert world.of().partitions == {P1}


def test_a_producer_that_was_given_another_id_waits_with_it(world: World) -> None:
    """It was told the new id when its transaction was prepared; here it is the old one yet."""
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    world.markers.holds = True
    goes_on = world.end(producer)
    assert isinstance(goes_on, Identity)
    assert goes_on == Identity(producer.producer_id + 1, 0)
    assert world.add(goes_on) is CONCURRENT
    world.markers.release()
    assert world.add(goes_on) is NONE


def test_a_transaction_has_so_many_partitions_and_no_more() -> None:
    world = World(transaction_partitions_max="2")
    producer = world.begun()
    assert world.add(producer, P0, P1) is NONE
    assert world.add(producer, P2) is ErrorCode.POLICY_VIOLATION
    assert world.add(producer, P1) is NONE
    assert world.of().partitions == {P0, P1}


# --- looked for only ---------------------------------------------------------------------------


def test_i41_a_partition_that_is_not_in_it_is_not_let_in(world: World) -> None:
    producer = world.ongoing()
    told = admit(world, producer, P0, P1, add=False).result()
    assert told == {P0: NONE, P1: ErrorCode.TRANSACTION_ABORTABLE}
    assert world.of().partitions == {P0}


@pytest.mark.parametrize(
    ("name", "producer", "error"),
    [
        ("x", Identity(4, 0), MAPPING),
        ("x", Identity(1000, 1), ErrorCode.PRODUCER_FENCED),
        ("nobody", Identity(1000, 0), MAPPING),
        ("", Identity(1000, 0), ErrorCode.INVALID_REQUEST),
    ],
)
def test_h60_nobody_else_is_let_in(
    world: World, name: str, producer: Identity, error: ErrorCode
) -> None:
    world.ongoing()
    for add in (False, True):
        told = admit(world, producer, P0, P1, add=add, name=name).result()
        assert told == dict.fromkeys((P0, P1), error)


def test_nothing_is_let_into_a_transaction_that_is_about_to_end(world: World) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    world.end(producer, version=0)
    assert admit(world, producer, add=False).result() == {P0: CONCURRENT}


def test_what_was_in_the_last_transaction_is_not_in_the_next(world: World) -> None:
    producer = world.ongoing()
    world.end(producer, version=0)
    told = admit(world, producer, add=False).result()
    assert told == {P0: ErrorCode.TRANSACTION_ABORTABLE}


# --- added by a batch --------------------------------------------------------------------------


def test_a_batch_begins_a_transaction_of_the_new_kind(world: World) -> None:
    producer = world.begun()
    assert admit(world, producer, P0, P1).result() == {P0: NONE, P1: NONE}
    assert world.of().partitions == {P0, P1}
    assert world.of().version == BUMPING


def test_a_batch_is_let_in_once_that_is_on_disk(world: World) -> None:
    producer = world.begun()
    world.journal.commits_at_once = False
    asked = admit(world, producer)
    assert not asked.done
    world.journal.commit()
    assert asked.result() == {P0: NONE}


def test_a_batch_waits_for_the_end_of_the_transaction_before(world: World) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    goes_on = world.end(producer)
    assert isinstance(goes_on, Identity)
    waiting = [admit(world, goes_on, one) for one in (P0, P1)]
    assert not any(one.done for one in waiting)
    world.markers.release()
    world.loop.run()
    assert [one.result() for one in waiting] == [{P0: NONE}, {P1: NONE}]
    assert world.state() == "Ongoing"


def test_a_request_of_version_1_waits_for_it_too_and_is_of_the_next_transaction(
    world: World,
) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    assert world.end(producer, version=CLASSIC) == producer
    waiting = world.transactions.join("x", producer, (P1,), CLASSIC)
    assert isinstance(waiting, Pending)
    assert not waiting.done
    world.markers.release()
    assert world.told(waiting) is NONE
    assert (world.state(), world.of().version) == ("Ongoing", CLASSIC)
    assert world.of().partitions == {P1}


def test_thousands_may_wait_for_the_same_end_and_all_be_too_late(world: World) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    world.end(producer, version=CLASSIC)
    waiting = [world.transactions.join("x", producer, (P1,), CLASSIC) for _ in range(5000)]
    world.loop.advance(1)
    assert {world.told(one) for one in waiting} == {CONCURRENT}
    assert not world.transactions._waiting


def test_who_need_not_wait_to_join_is_told_at_once(world: World) -> None:
    producer = world.begun()
    assert world.transactions.join("x", producer, (P0,), CLASSIC) is NONE
    stranger = Identity(4, 0)
    assert world.transactions.join("x", stranger, (P0,), CLASSIC) is MAPPING


def test_a_batch_misses_no_end_that_came_before_it_was_told_to_wait(world: World) -> None:
    """What it is told waits for the disk, for what others have written; the end does not."""
    producer = world.ongoing()
    world.markers.holds = True
    goes_on = world.end(producer)
    assert isinstance(goes_on, Identity)
    world.journal.commits_at_once = False
    world.transactions.init_producer_id("other", 60_000, None)
    waiting = admit(world, goes_on)
    world.markers.release()
    world.journal.commit()
    world.loop.run()
    world.journal.commit()
    assert waiting.done
    assert waiting.result() == {P0: NONE}


def test_a_batch_waits_as_long_as_the_option_says() -> None:
    world = World(add_partitions_to_txn_retry_backoff_max_ms="250")
    producer = world.ongoing()
    world.markers.holds = True
    goes_on = world.end(producer)
    assert isinstance(goes_on, Identity)
    waiting = [admit(world, goes_on, one) for one in (P0, P1)]
    world.loop.advance(0.2)
    assert not any(one.done for one in waiting)
    world.loop.advance(0.06)
    assert [one.result() for one in waiting] == [{P0: CONCURRENT}, {P1: CONCURRENT}]
    world.markers.release()
    world.loop.run()
    assert world.state() == "CompleteCommit"
    assert not world.transactions._waiting


def test_a_batch_that_waited_for_another_producer_is_fenced_then(world: World) -> None:
    zombie = world.ongoing()
    world.markers.holds = True
    world.init()  # aborts it
    waiting = admit(world, zombie)
    assert not waiting.done
    world.markers.release()
    world.loop.run()
    assert waiting.result() == {P0: ErrorCode.PRODUCER_FENCED}
