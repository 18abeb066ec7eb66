"""What a partition remembers of idempotent producers."""

from __future__ import annotations

import pytest

from ottla.core.model import ProducerId
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import CONTROL_BIT, BatchView
from ottla.storage.producers import (
    SEQUENCE_MAX,
    BadSnapshot,
    Duplicate,
    ProducerStates,
    decode_snapshot,
)

from .conftest import make_batch


def sent(sequence: int, count: int = 1, *, pid: int = 7, epoch: int = 0, at: int = 0) -> BatchView:
    batch = make_batch(count, producer=(pid, epoch, sequence))
    batch.base_offset = at
    return batch


@pytest.fixture
def states() -> ProducerStates:
    return ProducerStates()


def test_a_batch_without_a_producer_is_always_welcome(states):
    assert states.check(make_batch()) is None
    states.update(make_batch())
    assert len(states) == 0


def test_an_unknown_producer_may_begin_at_any_sequence(states):
    assert states.check(sent(41)) is None


def test_a_repeated_batch_is_answered_with_its_first_offset(states):
    states.update(sent(0, 3, at=100))
    assert states.check(sent(0, 3)) == Duplicate(100, 1000)


def test_each_of_the_last_five_batches_is_known_and_the_sixth_is_not(states):
    for number in range(6):
        states.update(sent(number, at=10 + number))
    for number in range(1, 6):
        assert states.check(sent(number)) == Duplicate(10 + number, 1000)
    assert states.check(sent(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_repeated_sequence_with_another_length_is_no_duplicate(states):
    states.update(sent(0, 3))
    assert states.check(sent(0, 2)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_gap_is_refused(states):
    states.update(sent(0))
    assert states.check(sent(2)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_the_next_sequence_is_accepted(states):
    states.update(sent(0, 5))
    assert states.check(sent(5)) is None


def test_an_old_epoch_is_refused(states):
    states.update(sent(0, epoch=3))
    assert states.check(sent(1, epoch=2)) is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_new_epoch_begins_at_sequence_0(states):
    states.update(sent(8, epoch=3))
    assert states.check(sent(9, epoch=4)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert states.check(sent(0, epoch=4)) is None


def test_batches_of_an_older_epoch_are_forgotten(states):
    states.update(sent(0, epoch=3, at=5))
    states.update(sent(0, epoch=4, at=6))
    assert states.check(sent(0, epoch=4)) == Duplicate(6, 1000)
    assert states.check(sent(0, epoch=3)) is ErrorCode.INVALID_PRODUCER_EPOCH


def test_sequences_wrap_after_the_largest(states):
    states.update(sent(SEQUENCE_MAX))
    assert states.check(sent(0)) is None


def test_sequences_wrap_within_a_batch(states):
    states.update(sent(SEQUENCE_MAX, 3))
    assert states.check(sent(2)) is None
    assert states.check(sent(0)) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_marker_raises_the_epoch_and_leaves_no_sequence(states):
    states.update(sent(5, epoch=1))
    marker = make_batch(producer=(7, 2, -1), attributes=CONTROL_BIT)
    states.update(marker)
    assert states.check(sent(6, epoch=1)) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert states.check(sent(0, epoch=2)) is None


def test_a_producer_not_heard_of_for_long_is_forgotten(states):
    states.update(sent(0))
    states.expire(1_000, 500)  # dates it
    states.expire(1_499, 500)
    assert len(states) == 1
    states.expire(1_500, 500)
    assert len(states) == 0


def test_a_producer_of_old_records_that_goes_on_is_not_forgotten(states):
    for now in range(1_000, 5_000, 400):
        states.update(sent(now))
        states.expire(now, 500)
    assert len(states) == 1


def test_past_the_limit_the_producer_idle_longest_is_forgotten():
    states = ProducerStates(producers_max=2)
    for pid in (1, 2, 1, 3):
        states.update(sent(0, pid=pid))
    assert states.get(ProducerId(2)) is None
    assert states.get(ProducerId(1)) is not None


def test_a_snapshot_carries_the_last_batch_of_each_producer(states):
    states.update(sent(0, 3, pid=1, at=10))
    states.update(sent(3, 2, pid=1, at=13))
    states.update(sent(7, 1, pid=2, epoch=4, at=15))
    loaded = ProducerStates()
    loaded.load(decode_snapshot(states.encode()))
    assert loaded.check(sent(3, 2, pid=1)) == Duplicate(13, 1000)
    assert loaded.check(sent(5, pid=1)) is None
    assert loaded.check(sent(8, pid=2, epoch=4)) is None
    assert loaded.encode() == states.encode()


def test_a_snapshot_is_what_apache_kafka_writes():
    # 00000000000000016872.snapshot of Kafka 4.3.1, one idempotent producer.
    raw = bytes.fromhex(
        "0001ba0236fc00000001000000000000000000000000"
        "41e700000000000041e700000093000001a213d328a4ffffffffffffffffffffffff"
    )
    states = ProducerStates()
    states.load(decode_snapshot(raw))
    assert states.encode() == raw
    assert states.check(sent(16872, pid=0)) is None
    assert states.check(sent(16724, 148, pid=0)) == Duplicate(16724, 1795628935332)


def test_a_wrapped_sequence_survives_a_snapshot(states):
    states.update(sent(SEQUENCE_MAX, 3, at=4))
    loaded = ProducerStates()
    loaded.load(decode_snapshot(states.encode()))
    assert loaded.check(sent(SEQUENCE_MAX, 3)) == Duplicate(4, 1000)


def test_no_damaged_snapshot_is_believed(states):
    states.update(sent(0))
    raw = states.encode()
    for at in range(len(raw)):
        broken = bytearray(raw)
        broken[at] ^= 0x10
        with pytest.raises(BadSnapshot):
            decode_snapshot(broken)
        with pytest.raises(BadSnapshot):
            decode_snapshot(raw[:at])
