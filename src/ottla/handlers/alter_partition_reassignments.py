"""AlterPartitionReassignments, key 45, versions 0 to 1.

Replicas are where they are put when a partition is made. To name the same ones is fine and moves
nothing; no reassignment is ever under way, so none can be cancelled.
v1 the client may forbid another replication factor (KIP-860)
Not done: moving replicas to other nodes, which is refused with INVALID_REPLICA_ASSIGNMENT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.topics import Refused, assignment_fault
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[AlterPartitionReassignmentsRequest]) -> Reply:
    """One result for each partition, in order; INVALID_REQUEST for all of too many."""
    body = request.body
    image = context.image()
    may_resize = body.allow_replication_factor_change
    if too_many(context, request, sum(len(topic.partitions) for topic in body.topics)):
        return Reply(
            AlterPartitionReassignmentsResponse(
                allow_replication_factor_change=may_resize,
                error_code=ErrorCode.INVALID_REQUEST,
                error_message="The request names too many partitions.",
            )
        )
    responses = [
        ReassignableTopicResponse(
            name=topic.name,
            partitions=[
                _answer(partition, _refused(image, topic.name, partition, may_resize))
                for partition in topic.partitions
            ],
        )
        for topic in body.topics
    ]
    return Reply(
        AlterPartitionReassignmentsResponse(
            allow_replication_factor_change=may_resize,
            error_message=None if responses else "",  # as Kafka has it
            responses=responses,
        )
    )


def _refused(
    image: ClusterImage, name: str, wanted: ReassignablePartition, may_resize: bool
) -> Refused | None:
    number, replicas = wanted.partition_index, wanted.replicas
    topic = image.topics.get(name)
    if topic is None:
        message = f"Unable to find a topic named {name}."
        return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)
    if not 0 <= number < len(topic.partitions):
        message = f"Unable to find partition {name}:{number}."
        return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)
    if replicas is None:
        return Refused(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS)
    if fault := assignment_fault(replicas, image):
        return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, fault)
    now = topic.partitions[number].replicas
    if not may_resize and len(replicas) != len(now):
        message = f"The replication factor is changed from {len(now)} to {len(replicas)}"
        return Refused(ErrorCode.INVALID_REPLICATION_FACTOR, message)
    if tuple(replicas) != now:
        message = "Replicas can't be moved to other nodes yet."
        return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
    return None


def _answer(
    partition: ReassignablePartition, refused: Refused | None
) -> ReassignablePartitionResponse:
    return ReassignablePartitionResponse(
        partition_index=partition.partition_index,
        error_code=ErrorCode.NONE if refused is None else refused.error,
        error_message=None if refused is None else refused.message,
    )
