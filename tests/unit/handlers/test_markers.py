"""Markers on their way into this node's partitions: in turns, and whatever becomes of one of them."""

from __future__ import annotations

import pytest

from ottla.coordinator.decision import Ending
from ottla.core.model import TopicPartition
from ottla.handlers.markers import AT_ONCE, PartitionMarkers
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer
from ottla.replication.partition import Appended
from ottla.testing.simnode import SimNode
from tests.asking import batch

ENDING = Ending(producer_id=7, producer_epoch=1, committed=True, coordinator_epoch=0, version=2)
P0, P1 = TopicPartition("t", 0), TopicPartition("u", 0)
E = ErrorCode


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t")
    node.create_topic("u")
    for place in (P0, P1):
        begin(node, place)
    return node


def begin(node: SimNode, place: TopicPartition) -> None:
    """A transaction is open there."""
    partition = node.partition(*place)
    raw = batch(b"v", producer=Producer(7, 0, 0), attributes=TRANSACTIONAL_BIT)
    view = BatchView(memoryview(bytearray(raw)))
    verification = partition.verify(7, 0, 0, bumps=True)
    while partition.prepare(view) is not None:
        node.settle()
    assert isinstance(partition.append_as_leader(view, verification), Appended)
    node.settle()


def test_a_topic_that_is_deleted_under_its_marker_holds_the_others_up_no_longer(
    node: SimNode,
) -> None:
    written = PartitionMarkers(node.context).write(ENDING, [P0, P1])
    assert not written.done
    node.delete_topic("u")
    node.settle()
    assert written.result() == {P0: E.NONE, P1: E.UNKNOWN_TOPIC_OR_PARTITION}
    assert not list(node.partition(*P0).open_transactions())


def test_a_topic_that_is_gone_before_its_marker_comes_is_told_as_gone(node: SimNode) -> None:
    node.delete_topic("u")
    written = PartitionMarkers(node.context).write(ENDING, [P0, P1])
    node.settle()
    assert written.result() == {P0: E.NONE, P1: E.UNKNOWN_TOPIC_OR_PARTITION}


def test_a_topic_that_was_made_again_takes_the_marker_and_has_nothing_to_end(
    node: SimNode,
) -> None:
    node.delete_topic("u")
    node.settle()
    node.create_topic("u")
    written = PartitionMarkers(node.context).write(ENDING, [P0, P1])
    node.settle()
    assert written.result() == {P0: E.NONE, P1: E.NONE}
    assert node.partition(*P1).last_stable == node.partition(*P1).high_watermark == 1


def test_a_log_that_fails_under_its_marker_is_one_to_come_back_to(node: SimNode) -> None:
    written = PartitionMarkers(node.context).write(ENDING, [P0, P1])
    node.partition(*P1).fail()
    node.settle()
    assert written.result() == {P0: E.NONE, P1: E.KAFKA_STORAGE_ERROR}


def test_thousands_of_partitions_are_written_to_in_turns() -> None:
    node = SimNode(flush_policy="os")
    node.create_topic("many", 2 * AT_ONCE + 1)
    places = [TopicPartition("many", number) for number in range(2 * AT_ONCE + 1)]
    for place in places[:: AT_ONCE // 2]:
        begin(node, place)
    written = PartitionMarkers(node.context).write(ENDING, places)
    assert list(node.partition(*places[-1]).open_transactions())
    assert not written.done
    node.settle()
    assert written.result() == dict.fromkeys(places, E.NONE)
    assert not [one for place in places for one in node.partition(*place).open_transactions()]
