"""What partitions tell the transaction coordinator of the transactions that are open in them."""

from __future__ import annotations

from ottla.coordinator.transaction.ports import Open
from ottla.core.model import TopicPartition
from ottla.handlers.open_transactions import LocalTransactions
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record
from tests.unit.handlers.node import FakeLog, FakeNode, topic_image

PLACE = TopicPartition("a", 0)


def begin(log: FakeLog, producer_id: int, epoch: int, offset: int) -> None:
    who = Producer(producer_id, epoch, 0)
    raw = build_batch([Record()], base_offset=offset, producer=who, attributes=TRANSACTIONAL_BIT)
    log.producers.update(BatchView(memoryview(raw)))


def end(log: FakeLog, producer_id: int, epoch: int, offset: int, kind: ControlType) -> None:
    raw = build_end_marker(EndMarker(kind, 5), producer_id, epoch, 99, offset)
    log.producers.update(BatchView(memoryview(raw)))


def a_log() -> tuple[FakeLog, LocalTransactions]:
    node = FakeNode(topic_image("a", 1))
    log = FakeLog()
    node.partition("a", 0, log)
    return log, LocalTransactions(node.context.table)


def test_one_is_open_until_its_marker_and_the_next_one_is_another() -> None:
    log, transactions = a_log()
    begin(log, 7, 3, 0)
    (one,) = transactions.all()
    assert one == Open(PLACE, 7, 3, 0, -1)
    assert transactions.is_open(one)
    end(log, 7, 3, 1, ControlType.ABORT)
    assert not transactions.is_open(one)
    begin(log, 7, 3, 2)
    assert not transactions.is_open(one)
    assert list(transactions.all()) == [Open(PLACE, 7, 3, 2, 5)]
    assert not transactions.is_open(one._replace(producer_id=8))
    assert not transactions.is_open(one._replace(place=TopicPartition("a", 1)))


def test_nothing_is_told_of_a_log_that_takes_nothing_ever_again() -> None:
    log, transactions = a_log()
    begin(log, 7, 3, 0)
    log.usable = False
    assert list(transactions.all()) == []


def test_how_it_ended_is_told_of_those_that_are_asked_for_and_had_an_epoch_of_their_own() -> None:
    log, transactions = a_log()
    for offset, producer_id in enumerate((7, 8, 9)):
        begin(log, producer_id, 3, offset)
    end(log, 7, 4, 3, ControlType.COMMIT)
    end(log, 8, 4, 4, ControlType.ABORT)
    end(log, 9, 3, 5, ControlType.COMMIT)
    told = {(7, 3): True, (8, 3): False}
    assert dict(next(transactions.outcomes({7, 8, 9, 10, 11}))) == told
    assert dict(next(transactions.outcomes({8, 9}))) == {(8, 3): False}
    assert dict(next(transactions.epochs())) == {7: 4, 8: 4, 9: 3}
