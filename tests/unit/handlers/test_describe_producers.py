"""DescribeProducers: what a log remembers of who wrote to it."""

from __future__ import annotations

from typing import Any

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record
from tests.unit.handlers.node import FakeLog, FakeNode, topic_image


def asked(node: FakeNode, *wanted: tuple[str, list[int]]) -> Any:
    topics = [TopicRequest(name=name, partition_indexes=numbers) for name, numbers in wanted]
    return node.ask(DescribeProducersRequest(topics=topics), 0).topics


def a_node() -> FakeNode:
    node = FakeNode(topic_image("a", 1))
    log = FakeLog()
    node.partition("a", 0, log)
    for producer in (Producer(7, 0, 0), Producer(7, 0, 2), Producer(8, 3, 0)):
        raw = build_batch([Record(timestamp=5), Record(timestamp=6)], producer=producer)
        log.producers.update(BatchView(memoryview(raw)))
    return node


def test_each_producer_has_its_epoch_its_last_sequence_and_its_last_timestamp() -> None:
    (topic,) = asked(a_node(), ("a", [0]))
    (partition,) = topic.partitions
    found = [
        (one.producer_id, one.producer_epoch, one.last_sequence, one.last_timestamp)
        for one in partition.active_producers
    ]
    assert found == [(7, 0, 3, 6), (8, 3, 1, 6)]
    for one in partition.active_producers:
        assert (one.coordinator_epoch, one.current_txn_start_offset) == (-1, -1)


def test_an_open_transaction_is_told_with_its_start_and_a_marker_with_its_coordinator() -> None:
    node = FakeNode(topic_image("a", 1))
    log = FakeLog()
    node.partition("a", 0, log)
    for offset, pid in enumerate((7, 8)):
        who = Producer(pid, 0, 0)
        raw = build_batch(
            [Record()], base_offset=offset, producer=who, attributes=TRANSACTIONAL_BIT
        )
        log.producers.update(BatchView(memoryview(raw)))
    marker = EndMarker(ControlType.COMMIT, 5)
    log.producers.update(BatchView(memoryview(build_end_marker(marker, 7, 1, 99, 2))))
    (topic,) = asked(node, ("a", [0]))
    told = {
        one.producer_id: (one.producer_epoch, one.last_sequence, one.last_timestamp)
        for one in topic.partitions[0].active_producers
    }
    assert told == {8: (0, 0, -1), 7: (1, -1, 99)}
    starts = {
        one.producer_id: (one.coordinator_epoch, one.current_txn_start_offset)
        for one in topic.partitions[0].active_producers
    }
    assert starts == {8: (-1, 1), 7: (5, -1)}


def test_what_is_not_there_is_unknown_and_only_an_unknown_topic_is_explained() -> None:
    known, unknown, illegal = asked(a_node(), ("a", [9]), ("b", [0]), ("b/c", [0]))
    not_here = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert (known.partitions[0].error_code, known.partitions[0].error_message) == (not_here, None)
    assert unknown.partitions[0].error_code == not_here
    assert "does not host" in unknown.partitions[0].error_message
    assert illegal.partitions[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert "b/c" in illegal.partitions[0].error_message


def test_a_partition_that_is_named_twice_is_answered_once() -> None:
    first, second = asked(a_node(), ("a", [0, 0]), ("a", [0]))
    assert [len(one.partitions) for one in (first, second)] == [1, 0]


def test_a_request_that_names_too_many_partitions_is_refused() -> None:
    node = FakeNode(topic_image("a", 1), **{"request_partitions_max": "1"})
    (topic,) = asked(node, ("a", [0, 1]))
    assert {one.error_code for one in topic.partitions} == {ErrorCode.INVALID_REQUEST}
