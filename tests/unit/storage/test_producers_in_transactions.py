"""What a partition remembers of transactions, and what it asks of those who write in them."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.storage.aborted import Aborted
from ottla.storage.producers import (
    Duplicate,
    ProducerStates,
    Verification,
    decode_snapshot,
)

from .conftest import make_batch

ABORT, COMMIT = ControlType.ABORT, ControlType.COMMIT
FENCED = ErrorCode.TRANSACTION_COORDINATOR_FENCED
INVALID_EPOCH = ErrorCode.INVALID_PRODUCER_EPOCH
INVALID_STATE = ErrorCode.INVALID_TXN_STATE
OUT_OF_ORDER = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def sent(sequence: int, *, pid: int = 7, epoch: int = 0, at: int = 0, count: int = 1) -> BatchView:
    batch = make_batch(count, producer=(pid, epoch, sequence), attributes=TRANSACTIONAL_BIT)
    batch.base_offset = at
    return batch


def plain(sequence: int, *, pid: int = 7, epoch: int = 0, at: int = 0) -> BatchView:
    batch = make_batch(producer=(pid, epoch, sequence))
    batch.base_offset = at
    return batch


def marker(
    kind: ControlType = COMMIT, *, pid: int = 7, epoch: int = 0, at: int = 0, coordinator: int = 0
) -> BatchView:
    raw = build_end_marker(EndMarker(kind, coordinator), pid, epoch, 2000, at)
    return BatchView(memoryview(raw))


@pytest.fixture
def states() -> ProducerStates:
    return ProducerStates()


def verified(states: ProducerStates, batch: BatchView, bumps: bool = True) -> Verification | None:
    return states.verify(batch.producer_id, batch.producer_epoch, batch.base_sequence, bumps=bumps)


def test_a_transaction_begins_with_its_first_batch_and_not_with_the_next(states):
    began = states.update(sent(0, at=10))
    assert (began.producer_id, began.epoch, began.first_offset) == (7, 0, 10)
    assert states.update(sent(1, at=11)) is None
    assert [one.first_offset for one in states.unstable.open()] == [10]


def test_nothing_of_a_transaction_is_taken_before_it_is_verified(states):  # I41
    batch = sent(0)
    assert states.check(batch) is INVALID_STATE
    assert states.check(batch, Verification(0, 0, bumps=True)) is INVALID_STATE
    assert states.check(batch, verified(states, batch)) is None


@pytest.mark.parametrize("is_open", [False, True])
def test_an_epoch_that_is_over_is_not_verified_and_refused_as_that(states, is_open):
    states.update(sent(0, epoch=2))
    if not is_open:
        states.update(marker(epoch=3, at=1))
    late = sent(1, epoch=1)
    assert verified(states, late) is None
    assert verifying(states) == 0
    assert states.check(late) is INVALID_EPOCH


def test_what_is_open_here_needs_no_verification(states):
    states.update(sent(0))
    assert verified(states, sent(1)) is None
    assert states.check(sent(1)) is None


def test_a_marker_between_the_verification_and_the_append_makes_it_worthless(states):  # I41
    states.update(sent(0))
    states.update(marker(ABORT, at=1))
    late = sent(1, at=2)
    verification = verified(states, late)
    states.update(marker(ABORT, at=2))
    assert states.check(late, verification) is INVALID_STATE
    again = verified(states, late)
    assert again is not verification
    assert states.check(late, again) is None


def test_the_first_append_of_a_transaction_uses_its_verification_up(states):  # I41
    batch = sent(0)
    verification = verified(states, batch)
    states.update(batch)
    states.update(marker(epoch=1, at=1))
    assert states.check(sent(0, epoch=1, at=2), verification) is INVALID_STATE


def test_a_batch_that_was_verified_does_not_overtake_one_that_was_not_yet(states):
    verified(states, sent(0))
    second = verified(states, sent(1))
    assert states.check(sent(1), second) is OUT_OF_ORDER
    assert states.check(sent(0), second) is None


def test_the_lowest_sequence_is_that_of_the_newest_epoch(states):
    verified(states, sent(3, epoch=1), bumps=False)
    verification = verified(states, sent(5, epoch=2), bumps=False)
    assert states.check(sent(5, epoch=2), verification) is None
    assert states.check(sent(6, epoch=2), verification) is OUT_OF_ORDER


def test_a_batch_that_comes_again_after_its_transaction_holds_up_no_later_one(states):
    states.update(sent(0, at=0))
    states.update(marker(at=1))
    assert states.check(sent(0), verified(states, sent(0), bumps=False)) == Duplicate(0, 1000)
    assert states.check(sent(1), verified(states, sent(1), bumps=False)) is None


def test_by_the_new_rules_a_producer_without_state_begins_at_sequence_0(states):
    verification = verified(states, sent(4))
    assert states.check(sent(4), verification) is OUT_OF_ORDER
    old = ProducerStates()
    assert old.check(sent(4), verified(old, sent(4), bumps=False)) is None


def test_a_batch_that_comes_again_is_answered_without_a_verification(states):
    states.update(sent(0, at=10))
    states.update(marker(at=11))
    assert states.check(sent(0)) == Duplicate(10, 1000)


def test_a_plain_batch_is_not_taken_while_its_producer_has_a_transaction_open(states):  # H61
    states.update(sent(0))
    assert states.check(plain(1)) is INVALID_STATE
    states.update(marker(at=1))
    assert states.check(plain(1)) is None


def test_an_older_epoch_is_fenced_by_a_marker_as_by_a_batch(states):  # I40
    states.update(sent(0, epoch=3))
    states.update(marker(epoch=4, at=1))
    zombie = sent(1, epoch=3)
    assert states.check(zombie, verified(states, zombie)) is INVALID_EPOCH
    assert states.check(plain(1, epoch=3)) is INVALID_EPOCH


def test_a_coordinators_batch_has_an_epoch_and_no_sequences(states):
    batch = sent(-1, epoch=2)
    assert states.check(batch) is INVALID_STATE
    assert states.check(batch, verified(states, batch)) is None
    states.update(batch)
    assert states.check(sent(-1, epoch=2)) is None
    older = sent(-1, epoch=1)
    assert states.check(older, verified(states, older)) is INVALID_EPOCH


# --- markers


@pytest.mark.parametrize(
    ("version", "epoch", "expected"),
    [
        (1, 4, INVALID_EPOCH),
        (1, 5, ErrorCode.NONE),
        (1, 6, ErrorCode.NONE),
        (2, 4, INVALID_EPOCH),
        (2, 5, INVALID_EPOCH),
        (2, 6, ErrorCode.NONE),
    ],
)
def test_the_epoch_that_a_marker_must_have_depends_on_the_version(states, version, epoch, expected):
    states.update(sent(0, epoch=5))
    assert states.check_marker(7, epoch, 0, version) is expected


def test_a_marker_of_the_new_rules_that_comes_again_is_taken_while_nothing_is_open(states):  # I43
    states.update(sent(0, epoch=5))
    states.update(marker(epoch=6, at=1))
    assert states.check_marker(7, 6, 0, 2) is ErrorCode.NONE
    states.update(sent(0, epoch=6, at=2))
    assert states.check_marker(7, 6, 0, 2) is INVALID_EPOCH


def test_a_coordinator_that_was_replaced_is_fenced(states):  # I43
    states.update(sent(0))
    states.update(marker(at=1, coordinator=5))
    assert states.check_marker(7, 0, 4, 1) is FENCED
    assert states.check_marker(7, 0, 5, 1) is ErrorCode.NONE
    assert states.check_marker(7, 0, None, 1) is ErrorCode.NONE


def test_a_marker_for_a_producer_that_is_not_known_is_taken(states):
    assert states.check_marker(7, 3, 0, 2) is ErrorCode.NONE
    states.update(marker(epoch=3))
    assert states.check(plain(0, epoch=2)) is INVALID_EPOCH


def test_by_the_old_rules_sequences_go_on_behind_a_marker(states):
    states.update(sent(0))
    states.update(marker(at=1))
    assert states.check(plain(1)) is None
    assert states.check(plain(2)) is OUT_OF_ORDER


# --- what is stable


def test_a_transaction_holds_readers_back_until_its_marker_is_committed(states):
    first = states.update(sent(0, at=10))
    second = states.update(sent(0, pid=8, at=11))
    states.update(marker(at=12))
    states.unstable.settle(Offset(12))
    assert states.unstable.first is first
    states.unstable.settle(Offset(13))
    assert states.unstable.first is second
    states.update(marker(pid=8, at=13))
    states.unstable.settle(Offset(14))
    assert states.unstable.first is None
    assert not states.unstable


def test_a_transaction_that_ended_is_not_open_but_still_unstable(states):
    states.update(sent(0, at=10))
    states.update(marker(at=11))
    assert list(states.unstable.open()) == []
    assert len(states.unstable) == 1


def test_an_abort_takes_back_what_is_open_and_says_what_is_stable_then(states):
    states.update(sent(0, at=10))
    states.update(sent(0, pid=8, at=11))
    assert states.taken_back(marker(ABORT), Offset(12)) == Aborted(7, 10, 12, 11)
    assert states.taken_back(marker(ABORT, pid=8), Offset(12)) == Aborted(8, 11, 12, 10)
    assert states.taken_back(marker(COMMIT), Offset(12)) is None
    assert states.taken_back(marker(ABORT, pid=9), Offset(12)) is None


# --- over a restart


def test_an_open_transaction_is_in_the_snapshot_and_comes_back_from_it(states):
    states.update(sent(0, at=10))
    states.update(marker(coordinator=4, at=11))
    states.update(sent(1, at=12))
    states.update(sent(0, pid=8, at=11))
    copy = ProducerStates()
    copy.load(decode_snapshot(states.encode()))
    assert list(copy.entries()) == list(states.entries())
    assert [one.first_offset for one in copy.unstable.open()] == [11, 12]
    assert copy.check_marker(7, 0, 3, 1) is FENCED


def test_a_producer_of_which_only_a_marker_is_left_keeps_its_timestamp(states):
    states.update(sent(0, at=10))
    states.update(marker(epoch=1, at=11))
    (entry,) = states.entries()
    assert entry == (7, 1, -1, -1, 0, 2000, 0, -1)
    copy = ProducerStates()
    copy.load(decode_snapshot(states.encode()))
    assert list(copy.entries()) == [entry]


def test_the_timestamp_is_that_of_the_batch_or_marker_that_came_last(states):
    states.update(sent(0, at=10))
    states.update(marker(at=11))
    assert next(states.entries())[5] == 2000
    states.update(sent(1, at=12))
    assert next(states.entries())[5] == 1000


def test_a_producer_with_an_open_transaction_is_not_forgotten(states):
    states.update(sent(0))
    states.expire(1_000, 10)
    states.expire(9_000, 10)
    assert len(states) == 1
    states.update(marker(at=1))
    states.expire(10_000, 10)
    states.expire(11_000, 10)
    assert len(states) == 0


def test_a_verification_that_is_not_used_is_forgotten(states):
    batch = sent(0)
    verification = verified(states, batch)
    states.expire(1_000, 10)
    states.expire(1_010, 10)
    assert states.check(batch, verification) is INVALID_STATE


def test_the_limit_forgets_the_idlest_producer_without_an_open_transaction():
    states = ProducerStates(producers_max=2)
    states.update(sent(0, pid=1, at=10))
    for pid in (2, 3, 4):
        states.update(plain(0, pid=pid, at=10 + pid))
    assert sorted(entry[0] for entry in states.entries()) == [1, 4]


def test_verifications_are_bounded_as_producers_are():
    states = ProducerStates(producers_max=2)
    first = verified(states, sent(0, pid=1))
    for pid in (2, 3):
        verified(states, sent(0, pid=pid))
    assert states.check(sent(0, pid=1), first) is INVALID_STATE


def verifying(states: ProducerStates) -> int:
    return len(states._verifying)


def test_a_producer_that_the_coordinator_does_not_know_takes_no_place(states):
    for pid in range(100):
        batch = sent(0, pid=pid)
        states.refute(pid, verified(states, batch))
    assert verifying(states) == 0


def test_who_names_the_id_of_another_takes_nothing_from_that_one(states):  # I41
    batch = sent(0)
    verification = verified(states, batch)
    states.refute(7, verified(states, sent(3)))
    assert states.check(batch, verification) is None


def test_a_refusal_that_comes_late_takes_nothing_from_a_later_verification(states):
    earlier = verified(states, sent(0))
    states.update(marker(ABORT, at=0))
    later = sent(0, epoch=1, at=1)
    verification = verified(states, later)
    states.refute(7, earlier)
    assert states.check(later, verification) is None


def test_a_marker_that_was_written_here_is_remembered_as_one_that_is_read() -> None:
    read, told = ProducerStates(2), ProducerStates(2)
    for states in (read, told):
        offset = 0
        for pid, epoch, kind, coordinator in (
            (7, 0, COMMIT, 0),
            (7, 1, COMMIT, 3),
            (7, 0, COMMIT, 3),
            (8, 2, ABORT, 1),
            (9, 0, COMMIT, 0),  # pushes one of the others out
        ):
            if pid != 9:
                verification = states.verify(pid, epoch, 0, bumps=True)
                batch = sent(0, pid=pid, epoch=epoch, at=offset)
                if states.check(batch, verification) is None:
                    states.update(batch)
            view = marker(kind, pid=pid, epoch=epoch, at=offset + 1, coordinator=coordinator)
            if states is read:
                states.update(view)
            else:
                states.mark(pid, epoch, EndMarker(kind, coordinator), 2000, Offset(offset + 1))
            states.unstable.settle(Offset(offset + 1))
            offset += 2
    assert told.encode() == read.encode()
    assert len(told.unstable) == len(read.unstable)
    assert [one.first_offset for one in told.unstable.open()] == [
        one.first_offset for one in read.unstable.open()
    ]
