"""How transactions end: commit and abort, asked once, again, too late, and by the wrong one."""

from __future__ import annotations

import pytest

from ottla.coordinator.decision import Ending
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC, EXHAUSTED_EPOCH
from ottla.coordinator.transaction.shard import SETTLE_S
from ottla.coordinator.transaction.states import MOVES, TransactionState
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import EPOCH, P0, P1, World

FENCED = ErrorCode.PRODUCER_FENCED
INVALID = ErrorCode.INVALID_TXN_STATE
CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
MAPPING = ErrorCode.INVALID_PRODUCER_ID_MAPPING
VERSIONS = (CLASSIC, BUMPING)


@pytest.fixture
def world() -> World:
    return World()


def next_epoch(producer: Identity) -> Identity:
    return Identity(producer.producer_id, producer.epoch + 1)


@pytest.mark.parametrize("committed", [True, False])
def test_a_classic_producer_keeps_its_epoch(world: World, committed: bool) -> None:
    producer = world.ongoing()
    assert world.end(producer, committed, version=CLASSIC) == producer
    assert world.state() == ("CompleteCommit" if committed else "CompleteAbort")
    [(ending, partitions)] = world.markers.written
    assert partitions == (P0,)
    assert ending == Ending(*producer, committed, EPOCH, CLASSIC)


@pytest.mark.parametrize("committed", [True, False])
def test_under_version_2_each_transaction_ends_with_the_next_epoch(
    world: World, committed: bool
) -> None:
    producer = world.ongoing()
    goes_on = world.end(producer, committed)
    assert goes_on == next_epoch(producer)
    [(ending, partitions)] = world.markers.written
    assert partitions == (P0,)
    assert ending == Ending(*next_epoch(producer), committed, EPOCH, BUMPING)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_answered_once_it_is_on_disk_and_no_marker_is_sent_before(
    world: World, version: int
) -> None:
    producer = world.ongoing()
    world.journal.commits_at_once = False
    asked = world.transactions.end("x", producer, True, version)
    assert isinstance(asked, Pending)
    assert not asked.done
    assert world.markers.written == []
    world.journal.commit()
    world.loop.run()
    assert asked.done
    assert len(world.markers.written) == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("committed", [True, False])
def test_the_same_again_is_answered_the_same(world: World, committed: bool, version: int) -> None:
    producer = world.ongoing()
    goes_on = world.end(producer, committed, version=version)
    for _ in range(3):
        assert world.end(producer, committed, version=version) == goes_on
    assert len(world.markers.written) == 1
    for _ in range(2):
        world.restart()
        assert world.end(producer, committed, version=version) == goes_on
        world.loop.advance(SETTLE_S)
    assert len(world.markers.written) == 2, "again after a crash that came before the completion"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("committed", [True, False])
def test_h114_the_opposite_is_refused(world: World, committed: bool, version: int) -> None:
    producer = world.ongoing()
    world.end(producer, committed, version=version)
    assert world.end(producer, not committed, version=version) is INVALID


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("committed", [True, False])
def test_h114_while_it_ends_the_producer_is_to_wait(
    world: World, committed: bool, version: int
) -> None:
    producer = world.ongoing()
    world.markers.holds = True
    world.end(producer, version=version)
    assert world.end(producer, committed, version=version) is CONCURRENT


def test_h114_there_is_nothing_to_commit(world: World) -> None:
    producer = world.begun()
    for version in VERSIONS:
        assert world.end(producer, version=version) is INVALID
    assert world.end(producer, False, version=CLASSIC) is INVALID
    assert world.state() == "Empty"


def test_an_abort_of_nothing_gives_the_next_epoch(world: World) -> None:
    producer = world.begun()
    for _ in range(3):
        goes_on = world.end(producer, False)
        assert goes_on == next_epoch(producer)
        assert world.state() == "CompleteAbort"
        producer = next_epoch(producer)
    assert world.markers.written == []
    assert world.end(producer) is INVALID


@pytest.mark.parametrize("version", VERSIONS)
def test_h113_only_its_producer_may_end_it(world: World, version: int) -> None:
    producer = world.ongoing()
    assert world.end(producer, name="nobody", version=version) is MAPPING
    assert world.end(producer, name="", version=version) is ErrorCode.INVALID_REQUEST
    assert world.end(Identity(4, producer.epoch), version=version) is MAPPING
    for epoch in (-1, producer.epoch + 1):
        stranger = Identity(producer.producer_id, epoch)
        assert world.end(stranger, version=version) is FENCED
    assert world.state() == "Ongoing"


@pytest.mark.parametrize("committed", [True, False])
def test_h115_i39_a_late_request_does_not_end_the_next_transaction(
    world: World, committed: bool
) -> None:
    first = world.ongoing()
    second = world.end(first)
    assert isinstance(second, Identity)
    world.add(second)
    assert world.end(first, committed) is FENCED
    assert world.state() == "Ongoing"


@pytest.mark.parametrize("committed", [True, False])
def test_i40_a_zombie_of_version_2_does_not_become_the_classic_producer_after_it(
    world: World, committed: bool
) -> None:
    """Its epoch is one below that of a transaction that has ended so, as if it had asked for it."""
    zombie = world.begun()
    producer = world.ongoing()
    assert world.end(producer, committed, version=CLASSIC) == producer == next_epoch(zombie)
    assert world.end(zombie, committed) is FENCED


def test_a_client_may_go_from_old_transactions_to_new_ones_and_back(world: World) -> None:
    producer = world.ongoing()
    for version in (BUMPING, CLASSIC, CLASSIC, BUMPING, CLASSIC):
        goes_on = world.end(producer, version=version)
        assert isinstance(goes_on, Identity)
        assert goes_on.epoch == producer.epoch + (version == BUMPING)
        producer = goes_on
        assert world.add(producer, version=version) is ErrorCode.NONE


# --- the last epoch ------------------------------------------------------------------------------


def test_h119_at_its_last_epoch_a_producer_goes_on_with_another_id(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    goes_on = world.end(producer)
    assert goes_on == Identity(producer.producer_id + 1, 0)
    [(ending, _)] = world.markers.written
    assert (ending.producer_id, ending.producer_epoch) == next_epoch(producer)
    assert (world.of().producer_id, world.of().epoch) == goes_on


def test_h119_asked_again_it_is_told_that_id_again(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    goes_on = world.end(producer)
    assert world.end(producer) == goes_on
    assert world.end(producer, False) is INVALID
    world.restart()
    assert world.end(producer) == goes_on


def test_h119_a_classic_producer_stays_at_its_last_epoch(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    for _ in range(3):
        world.add(producer)
        assert world.end(producer, version=CLASSIC) == producer


def test_h119_without_an_id_nothing_ends_and_the_client_asks_again(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    world.no_ids = True
    assert world.end(producer) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert world.state() == "Ongoing"
    world.no_ids = False
    assert world.end(producer) == Identity(producer.producer_id + 1, 0)


# --- the table -----------------------------------------------------------------------------------


def test_every_state_is_in_the_table_and_nothing_leaves_death() -> None:
    assert set(MOVES) == set(TransactionState)
    assert MOVES[TransactionState.DEAD] == frozenset()


def test_what_is_prepared_can_only_be_completed_in_the_same_way() -> None:
    assert MOVES[TransactionState.PREPARE_COMMIT] == {TransactionState.COMPLETE_COMMIT}
    assert MOVES[TransactionState.PREPARE_ABORT] == {TransactionState.COMPLETE_ABORT}


def test_a_move_that_is_not_in_the_table_is_a_fault_of_ours(world: World) -> None:
    world.begun()
    with pytest.raises(AssertionError, match="EMPTY -> PREPARE_COMMIT"):
        world.of().prepared(True, 0, CLASSIC, -1)


def test_states_are_told_by_the_names_that_kafka_gives_them() -> None:
    assert [state.title for state in TransactionState] == [
        "Empty",
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
        "Dead",
        "PrepareEpochFence",
    ]


def test_the_partitions_of_a_transaction_are_gone_when_it_has_ended(world: World) -> None:
    producer = world.begun()
    world.add(producer, P0, P1)
    world.end(producer)
    assert world.of().partitions == frozenset()
