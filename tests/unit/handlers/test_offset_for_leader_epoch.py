"""OffsetForLeaderEpoch. Expectations are what Apache Kafka 4.3.1 answers."""

from __future__ import annotations

import pytest

from ottla.core.model import LeaderEpoch, Offset
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from tests.unit.handlers.node import FakeLog, FakeNode

VERSIONS = [2, 3, 4]
UNDEFINED = (-1, -1)


def written_in_epochs_1_and_2() -> FakeNode:
    """A log of ten records, now led in epoch 3, in which nothing was written yet."""
    node = FakeNode()
    log = FakeLog(start=0, end=10)
    log.epochs.assign(LeaderEpoch(1), Offset(0))
    log.epochs.assign(LeaderEpoch(2), Offset(4))
    node.partition("t", 0, log)
    return node


def ask(
    node: FakeNode, epoch: int, *, current: int = -1, topic: str = "t", version: int = 4
) -> EpochEndOffset:
    asked = OffsetForLeaderPartition(partition=0, current_leader_epoch=current, leader_epoch=epoch)
    request = OffsetForLeaderEpochRequest(
        topics=[OffsetForLeaderTopic(topic=topic, partitions=[asked])]
    )
    (answered,) = node.ask(request, version).topics
    assert answered.topic == topic
    (answer,) = answered.partitions
    assert isinstance(answer, EpochEndOffset)
    assert answer.partition == 0
    return answer


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("epoch", "answer"),
    [
        (0, (0, 0)),
        (1, (1, 4)),
        (2, (2, 10)),
        (3, (3, 10)),
        (4, UNDEFINED),
        (-1, UNDEFINED),
        (-2, (-2, 0)),
    ],
)
def test_an_epoch_ends_where_the_next_begins(
    version: int, epoch: int, answer: tuple[int, int]
) -> None:
    told = ask(written_in_epochs_1_and_2(), epoch, version=version)
    assert told.error_code == ErrorCode.NONE
    assert (told.leader_epoch, told.end_offset) == answer


def test_an_epoch_that_wrote_nothing_gives_the_one_before() -> None:
    node = FakeNode()
    log = FakeLog(end=10)
    log.epochs.assign(LeaderEpoch(0), Offset(0))
    log.epochs.assign(LeaderEpoch(2), Offset(4))
    node.partition("t", 0, log)
    told = ask(node, 1)
    assert (told.leader_epoch, told.end_offset) == (0, 4)


@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_an_empty_log_ends_where_it_begins(epoch: int) -> None:
    node = FakeNode()
    node.partition("t", 0, FakeLog())
    told = ask(node, epoch)
    assert (told.leader_epoch, told.end_offset) == (epoch, 0)


@pytest.mark.parametrize(
    ("current", "error"),
    [
        (3, ErrorCode.NONE),
        (2, ErrorCode.FENCED_LEADER_EPOCH),
        (4, ErrorCode.UNKNOWN_LEADER_EPOCH),
        (-2, ErrorCode.FENCED_LEADER_EPOCH),
    ],
)
def test_h72_the_epoch_a_client_believes_in_is_checked(current: int, error: ErrorCode) -> None:
    told = ask(written_in_epochs_1_and_2(), 1, current=current)
    assert told.error_code == error
    assert (told.leader_epoch, told.end_offset) == (UNDEFINED if error else (1, 4))


@pytest.mark.parametrize("topic", ["nope", "a/b", ""])
def test_a_partition_that_is_not_there_says_so(topic: str) -> None:
    told = ask(written_in_epochs_1_and_2(), 1, topic=topic)
    assert told.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert (told.leader_epoch, told.end_offset) == UNDEFINED


def test_h28_a_request_that_names_too_many_partitions_is_invalid() -> None:
    node = FakeNode(request_partitions_max="2")
    asked = [OffsetForLeaderPartition(partition=number, leader_epoch=0) for number in range(3)]
    request = OffsetForLeaderEpochRequest(
        topics=[OffsetForLeaderTopic(topic="t", partitions=asked)]
    )
    (answered,) = node.ask(request, 4).topics
    assert [one.error_code for one in answered.partitions] == [ErrorCode.INVALID_REQUEST] * 3
