"""What the producers of the measurement send, in which order, and how they wait."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ottla.bench import pump
from ottla.bench import transactions as measured
from ottla.bench.transactions import SIZES, Batches, Done
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import add_partitions_to_txn as ap
from ottla.protocol.messages import end_txn as et
from ottla.protocol.messages import init_producer_id as ip
from ottla.protocol.messages import produce as pr
from ottla.records.batch import BatchView
from ottla.records.builder import NO_PRODUCER, Producer

ONE, MANY = SIZES


class Asking:
    """A program, and what it wants to know next."""

    def __init__(self, kind: str, size: Any = ONE, seconds: float = 60) -> None:
        self.done = Done()
        self.done.until = time.perf_counter() + seconds
        self.program = measured._program(kind, "topic", size, 1, self.done)
        self.wanted: Any = next(self.program)

    def answer(self, message: Any) -> None:
        self.wanted = self.program.send(message)

    @property
    def asked(self) -> tuple[str, int]:
        return type(self.wanted[0]).__name__, self.wanted[1]


def begun(producer_id: int = 7, epoch: int = 0) -> ip.InitProducerIdResponse:
    return ip.InitProducerIdResponse(producer_id=producer_id, producer_epoch=epoch)


def produced(*errors: int) -> pr.ProduceResponse:
    parts = [pr.PartitionProduceResponse(index=at, error_code=e) for at, e in enumerate(errors)]
    topic = pr.TopicProduceResponse(name="topic", partition_responses=parts)
    return pr.ProduceResponse(responses=[topic])


def added(error: int = 0) -> ap.AddPartitionsToTxnResponse:
    part = ap.AddPartitionsToTxnPartitionResult(partition_index=1, partition_error_code=error)
    topic = ap.AddPartitionsToTxnTopicResult(name="topic", results_by_partition=[part])
    return ap.AddPartitionsToTxnResponse(results_by_topic_v3_and_below=[topic])


def batch_of(request: pr.ProduceRequest) -> BatchView:
    return BatchView(memoryview(bytearray(request.topic_data[0].partition_data[0].records)))


def test_records_are_spread_over_partitions_of_the_producers_own() -> None:
    request = Batches("topic", MANY, 3).request(None, NO_PRODUCER)
    parts = request.topic_data[0].partition_data
    assert [part.index for part in parts] == list(range(30, 40))
    assert (
        sum(BatchView(memoryview(bytearray(part.records))).records_count for part in parts) == 100
    )
    assert (request.acks, request.transactional_id) == (-1, None)


def test_a_new_transaction_is_a_produce_and_an_end_that_gives_the_next_epoch() -> None:
    asking = Asking("new")
    asking.answer(begun())
    assert asking.asked == ("ProduceRequest", 12)
    batch = batch_of(asking.wanted[0])
    assert (batch.is_transactional, batch.producer_epoch, batch.base_sequence) == (True, 0, 0)
    asking.answer(produced(0))
    assert asking.asked == ("EndTxnRequest", 5)
    asking.answer(et.EndTxnResponse(producer_id=7, producer_epoch=1))
    batch = batch_of(asking.wanted[0])
    assert (batch.producer_epoch, batch.base_sequence) == (1, 0)
    assert asking.done.count == 1


def test_an_old_transaction_names_its_partitions_first_and_goes_on_in_its_epoch() -> None:
    asking = Asking("old")
    asking.answer(begun())
    assert asking.asked == ("AddPartitionsToTxnRequest", 3)
    asking.answer(added(ErrorCode.CONCURRENT_TRANSACTIONS))
    assert asking.wanted == 0.02  # it rests, as Java does
    asking.answer(None)
    asking.answer(added())
    assert asking.asked == ("ProduceRequest", 9)
    asking.answer(produced(0))
    assert asking.asked == ("EndTxnRequest", 3)
    asking.answer(et.EndTxnResponse())
    asking.answer(added())
    batch = batch_of(asking.wanted[0])
    assert (batch.producer_epoch, batch.base_sequence) == (0, 1)
    assert (asking.done.count, asking.done.waits) == (1, 1)


def test_a_refusal_ends_the_measurement_with_its_name() -> None:
    asking = Asking("new")
    asking.answer(begun())
    with pytest.raises(pump.LoadFailed, match="INVALID_PRODUCER_EPOCH"):
        asking.answer(produced(ErrorCode.INVALID_PRODUCER_EPOCH))


def test_when_its_time_is_over_a_producer_rests() -> None:
    asking = Asking("plain", seconds=0)
    assert isinstance(asking.wanted, float)
    assert asking.done.resting == 1


def test_a_plain_produce_is_of_no_producer() -> None:
    asking = Asking("plain")
    assert batch_of(asking.wanted[0]).producer_id == NO_PRODUCER.id
    assert Batches("topic", ONE, 0).request("x", Producer(1, 2, 3)).transactional_id == "x"
