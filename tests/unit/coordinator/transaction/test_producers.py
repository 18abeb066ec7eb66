"""Producer ids and epochs: who gets which, and who is fenced by it (KIP-98, KIP-360, KIP-890)."""

from __future__ import annotations

import pytest

from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import EXHAUSTED_EPOCH
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import P0, World

FENCED = ErrorCode.PRODUCER_FENCED
CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_id_begins_with_epoch_zero(world: World) -> None:
    assert world.init("a") == Identity(1000, 0)
    assert world.init("b") == Identity(1001, 0)


def test_i40_each_start_of_a_producer_fences_those_before(world: World) -> None:
    first, second = world.begun(), world.begun()
    assert second == Identity(first.producer_id, first.epoch + 1)
    assert world.add(first) is FENCED
    assert world.end(first) is FENCED
    assert world.add(second) is ErrorCode.NONE


def test_i40_a_fenced_producer_stays_so_after_a_restart(world: World) -> None:
    first, second = world.begun(), world.begun()
    world.restart()
    assert world.add(first) is FENCED
    assert world.add(second) is ErrorCode.NONE


def test_a_producer_that_goes_on_after_an_error_gets_the_next_epoch(world: World) -> None:
    had = world.begun()
    assert world.init(expected=had) == Identity(had.producer_id, 1)


def test_the_same_question_again_gets_the_same_answer(world: World) -> None:
    had = world.begun()
    given = world.init(expected=had)
    assert world.init(expected=had) == given
    assert world.init(expected=had) == given


def test_a_new_producer_takes_that_from_the_one_before(world: World) -> None:
    had = world.begun()
    world.init(expected=had)
    world.begun()
    assert world.init(expected=had) is FENCED


def test_an_epoch_that_was_never_given_is_fenced(world: World) -> None:
    had = world.begun()
    assert world.init(expected=Identity(had.producer_id, 5)) is FENCED
    assert world.init(expected=Identity(4, 0)) is FENCED


def test_a_producer_of_which_nothing_is_known_begins_anew(world: World) -> None:
    assert world.init(expected=Identity(4, 7)) == Identity(1000, 0)


def test_an_ongoing_transaction_is_aborted_before_there_is_a_new_epoch(world: World) -> None:
    zombie = world.ongoing()
    assert world.init() is CONCURRENT
    assert world.state() == "CompleteAbort"
    [(ending, partitions)] = world.markers.written
    assert partitions == (P0,)
    assert (ending.committed, ending.producer_epoch) == (False, zombie.epoch + 1)
    assert world.init() == Identity(zombie.producer_id, zombie.epoch + 2)
    assert world.end(zombie) is FENCED


def test_until_the_markers_are_written_there_is_no_new_epoch(world: World) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    world.end(producer)
    assert world.state() == "PrepareCommit"
    assert world.init() is CONCURRENT
    assert world.init(expected=producer) is CONCURRENT
    world.markers.release()
    assert world.init() == Identity(producer.producer_id, producer.epoch + 2)


def test_the_timeout_is_the_last_one_that_was_asked_for(world: World) -> None:
    world.begun(timeout_ms=5000)
    world.begun(timeout_ms=7000)
    assert world.of().timeout_ms == 7000


def test_a_reply_waits_until_the_epoch_is_on_disk(world: World) -> None:
    world.begun()
    world.journal.commits_at_once = False
    asked = world.transactions.init_producer_id("x", 1000, None)
    assert isinstance(asked, Pending)
    assert not asked.done
    world.journal.commit()
    assert asked.result() == Identity(1000, 1)


def test_without_a_block_of_ids_a_new_producer_tries_again(world: World) -> None:
    world.no_ids = True
    assert world.init() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    world.no_ids = False
    assert world.init() == Identity(1000, 0)


def test_there_are_so_many_ids_and_no_more() -> None:
    world = World(transactional_ids_max="2")
    world.begun("a")
    world.begun("b")
    assert world.init("c") is ErrorCode.POLICY_VIOLATION
    assert isinstance(world.init("a"), Identity)


def test_h119_at_the_last_epoch_a_producer_gets_another_id(world: World) -> None:
    had = world.at_epoch(EXHAUSTED_EPOCH - 1)
    last = world.init()
    assert last == Identity(had.producer_id, EXHAUSTED_EPOCH)
    assert world.init() == Identity(had.producer_id + 1, 0)
    assert world.add(last) is ErrorCode.INVALID_PRODUCER_ID_MAPPING


def test_h119_that_question_again_gets_the_same_answer(world: World) -> None:
    had = world.at_epoch(EXHAUSTED_EPOCH)
    given = world.init(expected=had)
    assert given == Identity(had.producer_id + 1, 0)
    assert world.init(expected=had) == given


def test_h119_an_ongoing_transaction_at_the_last_epoch_is_fenced_with_the_one_that_is_left(
    world: World,
) -> None:
    zombie = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(zombie)
    assert world.init() is CONCURRENT
    [(ending, _)] = world.markers.written
    assert (ending.producer_id, ending.producer_epoch) == (zombie.producer_id, EXHAUSTED_EPOCH + 1)
    assert world.state() == "CompleteAbort"
    assert world.init() == Identity(zombie.producer_id + 1, 1)
    assert world.end(zombie) is ErrorCode.INVALID_PRODUCER_ID_MAPPING


def test_an_id_that_was_fetched_in_vain_goes_to_the_next_who_needs_one(world: World) -> None:
    waiting = [world.transactions.init_producer_id("a", 1000, None) for _ in range(2)]
    assert {world.told(one) for one in waiting} == {Identity(1000, 0), Identity(1000, 1)}
    assert world.begun("b").producer_id == 1001
