"""TxnOffsetCommit on a node: what is asked first, of whom, and what is not asked again.

Expectations are what Apache Kafka 4.3.1 answers; field by field: tests/oracle.
"""

from __future__ import annotations

from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.testing.simnode import SimNode
from tests.asking import ask

ADDS = 5


@pytest.fixture
def node() -> SimNode:
    node = SimNode(7, transaction_state_log_num_partitions="3")
    node.create_topic("t", 3)
    return node


def begun(node: SimNode, times: int = 1) -> int:
    """A producer with that many epochs; the last is one less."""
    request = InitProducerIdRequest(transactional_id="x", transaction_timeout_ms=60_000)
    for _ in range(times):
        answer = ask(node, request, 4)
    return int(answer.producer_id)


def commit(node: SimNode, producer_id: int, epoch: int, version: int = ADDS, **more: Any) -> int:
    parts = [TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=5)]
    request = TxnOffsetCommitRequest(
        group_id="g",
        producer_id=producer_id,
        producer_epoch=epoch,
        topics=[TxnOffsetCommitRequestTopic(name="t", partitions=parts)],
        **({"transactional_id": "x"} | more),
    )
    [topic] = ask(node, request, version).topics
    [part] = topic.partitions
    return int(part.error_code)


@pytest.mark.parametrize("version", [3, 5])
def test_an_epoch_that_is_over_is_told_before_the_group_is_asked_about_the_member(
    node: SimNode, version: int
) -> None:
    producer_id = begun(node, times=2)
    assert commit(node, producer_id, 1) == ErrorCode.NONE
    late = commit(node, producer_id, 0, version, member_id="nobody", generation_id=3)
    assert late == ErrorCode.INVALID_PRODUCER_EPOCH


def test_who_is_in_a_transaction_of_the_group_is_not_asked_for_its_transactional_id(
    node: SimNode,
) -> None:
    producer_id = begun(node)
    assert commit(node, producer_id, 0, transactional_id="") == ErrorCode.INVALID_REQUEST
    assert commit(node, producer_id, 0) == ErrorCode.NONE
    assert commit(node, producer_id, 0, 0, transactional_id="") == ErrorCode.NONE
