"""WriteTxnMarkers on a node: what an admin's marker means to the coordinator that knows better.

Expectations are what Apache Kafka 4.3.1 answers; field by field: tests/oracle.
"""

from __future__ import annotations

import pytest

from ottla.handlers.internal_topics import OFFSETS_TOPIC
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simnode import SimNode
from tests.asking import ask, batch, produce

TIMES = 3


class World:
    """A transactional producer, and the one partition that it writes to."""

    def __init__(self, topic: str, flush_policy: str) -> None:
        self.node = SimNode(
            7,
            flush_policy=flush_policy,
            transaction_state_log_num_partitions="1",
            offsets_topic_num_partitions="1",
        )
        self.node.create_topic("t")
        self.topic = topic
        request = InitProducerIdRequest(transactional_id="x", transaction_timeout_ms=60_000)
        answer = ask(self.node, request, 5)
        self.id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequence = 0

    def write(self) -> None:
        """By versions that add the partition to the transaction on the way."""
        if self.topic == OFFSETS_TOPIC:
            parts = [TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=5)]
            commit = TxnOffsetCommitRequest(
                transactional_id="x",
                group_id="g",
                producer_id=self.id,
                producer_epoch=self.epoch,
                topics=[TxnOffsetCommitRequestTopic(name="t", partitions=parts)],
            )
            [of_topic] = ask(self.node, commit, 5).topics
            assert of_topic.partitions[0].error_code == 0
            return
        who = Producer(self.id, self.epoch, self.sequence)
        body = produce({("t", 0): batch(b"v", producer=who, attributes=TRANSACTIONAL_BIT)})
        body.transactional_id = "x"
        [of_topic] = ask(self.node, body, 12).responses
        assert of_topic.partition_responses[0].error_code == 0
        self.sequence += 1

    def mark(self, coordinator_epoch: int) -> ErrorCode:
        """An admin aborts what is open there."""
        marker = WritableTxnMarker(
            producer_id=self.id,
            producer_epoch=self.epoch,
            topics=[WritableTxnMarkerTopic(name=self.topic, partition_indexes=[0])],
            coordinator_epoch=coordinator_epoch,
        )
        answer = ask(self.node, WriteTxnMarkersRequest(markers=[marker]), 1)
        return ErrorCode(answer.markers[0].topics[0].partitions[0].error_code)

    def end(self) -> str:
        """The state that it comes to, once all has been done that needs no time."""
        end = EndTxnRequest(
            transactional_id="x",
            producer_id=self.id,
            producer_epoch=self.epoch,
            committed=True,
        )
        answer = ask(self.node, end, 5)
        assert answer.error_code == 0
        self.id, self.epoch, self.sequence = answer.producer_id, answer.producer_epoch, 0
        self.node.settle()
        described = ask(self.node, DescribeTransactionsRequest(transactional_ids=["x"]), 0)
        return str(described.transaction_states[0].transaction_state)


@pytest.mark.parametrize("flush_policy", ["os", "commit"])
@pytest.mark.parametrize("topic", ["t", OFFSETS_TOPIC])
def test_i41_after_an_admins_marker_of_a_coordinator_there_never_was_transactions_end_as_before(
    topic: str, flush_policy: str
) -> None:
    """In Kafka they are prepared for ever, and readers of what is committed held back as long."""
    world = World(topic, flush_policy)
    world.write()
    assert world.mark(1000) is ErrorCode.NONE
    for _ in range(TIMES):
        world.write()
        partition = world.node.partition(topic, 0)
        assert list(partition.open_transactions())
        assert world.end() == "CompleteCommit"
        assert not list(partition.open_transactions())
        assert partition.last_stable == partition.high_watermark == partition.log.end


def test_i43_an_admin_who_names_an_earlier_coordinator_than_another_admin_did_is_refused() -> None:
    world = World("t", "os")
    world.write()
    assert world.mark(1000) is ErrorCode.NONE
    world.write()
    assert world.mark(999) is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert list(world.node.partition("t", 0).open_transactions())
