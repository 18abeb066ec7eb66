"""DescribeProducers, key 61, versions 0 to 0.

Who has written to a partition of late: the producers that its log remembers (KIP-664). Where one
has a transaction open its start is told, else -1; the coordinator's epoch is its last marker's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.names import name_fault
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

NOT_HERE = "This server does not host this topic-partition."


def handle(context: Context, request: Request[DescribeProducersRequest]) -> Reply:
    """Each partition on its own; one that is named twice is answered once.

    Kafka answers it twice. It can have a hundred thousand producers, and four bytes name it.
    """
    asked = request.body.topics
    count = sum(len(topic.partition_indexes) for topic in asked)
    beyond = too_many(context, request, count)
    topics = []
    told: set[tuple[str, int]] = set()
    for topic in asked:
        error, message = _topic_fault(context, topic.name, beyond)
        named = dict.fromkeys(topic.partition_indexes)
        numbers = [number for number in named if (topic.name, number) not in told]
        told.update((topic.name, number) for number in numbers)
        topics.append(
            TopicResponse(
                name=topic.name,
                partitions=[
                    PartitionResponse(
                        partition_index=number, error_code=error, error_message=message
                    )
                    if error
                    else _producers(context, topic.name, number)
                    for number in numbers
                ],
            )
        )
    return Reply(DescribeProducersResponse(topics=topics))


def _topic_fault(context: Context, name: str, too_many: bool) -> tuple[ErrorCode, str | None]:
    if too_many:
        return ErrorCode.INVALID_REQUEST, "The request names too many partitions."
    if fault := name_fault(name):
        return ErrorCode.INVALID_TOPIC_EXCEPTION, fault
    if name not in context.image().topics:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NOT_HERE
    return ErrorCode.NONE, None


def _producers(context: Context, topic: str, number: int) -> PartitionResponse:
    partition = context.table.get(topic, number)
    if isinstance(partition, ErrorCode):
        # As Kafka: only an unknown topic is explained.
        return PartitionResponse(partition_index=number, error_code=partition)
    return PartitionResponse(
        partition_index=number,
        active_producers=[
            ProducerState(
                producer_id=producer_id,
                producer_epoch=epoch,
                last_sequence=sequence,
                last_timestamp=timestamp,
                coordinator_epoch=coordinator_epoch,
                current_txn_start_offset=transaction_start,
            )
            for (
                producer_id,
                epoch,
                sequence,
                _offset,
                _delta,
                timestamp,
                coordinator_epoch,
                transaction_start,
            ) in partition.log.producers.entries()
        ],
    )
