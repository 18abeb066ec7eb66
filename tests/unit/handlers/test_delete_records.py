"""DeleteRecords: how far records may be deleted, and when that is answered."""

from __future__ import annotations

from errno import EIO
from typing import Any

import pytest

from ottla.core.ports import DiskError
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from tests.unit.handlers.node import FakeLog, FakeNode, topic_image

VERSIONS = range(3)


def asking(
    *wanted: tuple[int, int], topic: str = "a", timeout_ms: int = 5000
) -> DeleteRecordsRequest:
    partitions = [DeleteRecordsPartition(partition_index=n, offset=o) for n, o in wanted]
    topics = [DeleteRecordsTopic(name=topic, partitions=partitions)]
    return DeleteRecordsRequest(topics=topics, timeout_ms=timeout_ms)


def a_node(**configs: str) -> FakeNode:
    """Topic a with offsets 2 to 10, of which 8 is not yet committed."""
    node = FakeNode(topic_image("a", 1, **configs))
    node.partition("a", 0, FakeLog(2, 10), high_watermark=8)
    return node


def answered(node: FakeNode, request: DeleteRecordsRequest, version: int = 2) -> Any:
    """(partition, low watermark, error) of the one topic, when all is durable."""
    outcome = node.ask(request, version)
    if isinstance(outcome, Parked):
        for pending in node.table.deletions:
            pending.complete(None)
        assert outcome.pending.done
        outcome = node.as_sent(outcome.resume(), 21, version)
    (topic,) = outcome.topics
    return [(one.partition_index, one.low_watermark, one.error_code) for one in topic.partitions]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_moves_the_start_and_tells_it(version: int) -> None:
    assert answered(a_node(), asking((0, 5)), version) == [(0, 5, ErrorCode.NONE)]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (-1, (8, ErrorCode.NONE)),
        (8, (8, ErrorCode.NONE)),
        (0, (2, ErrorCode.NONE)),
        (9, (-1, ErrorCode.OFFSET_OUT_OF_RANGE)),
        (-2, (-1, ErrorCode.OFFSET_OUT_OF_RANGE)),
        ((1 << 63) - 1, (-1, ErrorCode.OFFSET_OUT_OF_RANGE)),
    ],
)
def test_the_high_watermark_is_as_far_as_it_goes(offset: int, expected: tuple[int, int]) -> None:
    assert answered(a_node(), asking((0, offset))) == [(0, *expected)]


def test_nothing_is_answered_before_the_start_is_durable() -> None:
    node = a_node()
    parked = node.ask(asking((0, 5)), 2)
    assert isinstance(parked, Parked)
    assert not parked.pending.done
    assert not parked.before_effect


@pytest.mark.parametrize(("timeout_ms", "deadline_s"), [(5000, 5), (0, 1), (-1, 1)])
def test_a_slow_disk_is_answered_timed_out(timeout_ms: int, deadline_s: float) -> None:
    node = a_node()
    parked = node.ask(asking((0, 5), timeout_ms=timeout_ms), 2)
    assert parked.deadline_s == deadline_s
    (topic,) = node.as_sent(parked.resume(), 21, 2).topics
    (result,) = topic.partitions
    assert (result.low_watermark, result.error_code) == (-1, ErrorCode.REQUEST_TIMED_OUT)


def test_a_disk_that_refuses_is_told() -> None:
    node = a_node()
    parked = node.ask(asking((0, 5)), 2)
    node.table.deletions[0].fail(DiskError("replace", "x", OSError(EIO, "no")))
    (topic,) = node.as_sent(parked.resume(), 21, 2).topics
    assert topic.partitions[0].error_code == ErrorCode.KAFKA_STORAGE_ERROR


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("compact", (-1, ErrorCode.POLICY_VIOLATION)),
        ("compact,delete", (5, ErrorCode.NONE)),
        ("delete", (5, ErrorCode.NONE)),
        ("", (5, ErrorCode.NONE)),
    ],
)
def test_h79_a_topic_that_is_only_compacted_refuses(policy: str, expected: Any) -> None:
    assert answered(a_node(cleanup_policy=policy), asking((0, 5))) == [(0, *expected)]


def test_what_is_not_there_is_unknown_whatever_its_topic_allows() -> None:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    node = a_node(cleanup_policy="compact")
    assert answered(node, asking((7, 0), (-1, 0))) == [(7, -1, unknown), (-1, -1, unknown)]
    assert answered(node, asking((0, 0), topic="b")) == [(0, -1, unknown)]


def test_the_last_mention_of_a_partition_counts() -> None:
    node = a_node()
    assert answered(node, asking((0, 99), (0, 6))) == [(0, 6, ErrorCode.NONE)]
    assert answered(node, asking((0, 7), (0, 99))) == [(0, -1, ErrorCode.OFFSET_OUT_OF_RANGE)]


def test_a_request_that_names_too_many_partitions_deletes_nothing() -> None:
    node = FakeNode(topic_image("a", 1), **{"request_partitions_max": "1"})
    node.partition("a", 0, FakeLog(0, 10))
    invalid = ErrorCode.INVALID_REQUEST
    expected = [(0, -1, invalid), (1, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)]
    assert answered(node, asking((0, 5), (1, 5))) == expected
    assert node.table.deletions == []
