"""ElectLeaders, key 43, versions 0 to 2.

With one replica for each partition there is nobody else to elect: a partition that is led needs
no election, and one that is not has no candidate.
v1 kinds of election (KIP-460) · v2 flexible
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.image import NO_NODE
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.handlers.context import Context, Request

PREFERRED, UNCLEAN = 0, 1


def handle(context: Context, request: Request[ElectLeadersRequest]) -> Reply:
    """One result for each partition named; where none is, every topic with nothing elected."""
    body = request.body
    image = context.image()
    asked = body.topic_partitions
    refused: str | None = None
    if body.election_type not in (PREFERRED, UNCLEAN):
        refused = f"Unknown election type {body.election_type}"
    elif too_many(context, request, sum(len(topic.partitions) for topic in asked or ())):
        refused = "The request names too many partitions."
    if refused is not None:
        error, message = ErrorCode.INVALID_REQUEST, refused
        results = [
            ReplicaElectionResult(
                topic=topic.topic,
                partition_result=[_result(number, error, message) for number in topic.partitions],
            )
            for topic in asked or ()
        ]
        return Reply(ElectLeadersResponse(error_code=error, replica_election_results=results))
    if asked is None:
        results = [ReplicaElectionResult(topic=name) for name in image.topics]
    else:
        results = [
            ReplicaElectionResult(
                topic=topic.topic,
                partition_result=[
                    _elect(image, topic.topic, number, body.election_type)
                    for number in topic.partitions
                ],
            )
            for topic in asked
        ]
    return Reply(ElectLeadersResponse(replica_election_results=results))


def _elect(image: ClusterImage, name: str, number: int, kind: int) -> PartitionResult:
    topic = image.topics.get(name)
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if topic is None:
        return _result(number, unknown, f"No such topic as {name}")
    if not 0 <= number < len(topic.partitions):
        return _result(number, unknown, f"No such partition as {name}-{number}")
    partition = topic.partitions[number]
    if partition.leader == partition.replicas[0] or (
        kind == UNCLEAN and partition.leader != NO_NODE
    ):
        message = "Leader election not needed for topic partition."
        return _result(number, ErrorCode.ELECTION_NOT_NEEDED, message)
    if kind == PREFERRED:
        message = "The preferred leader was not available."
        return _result(number, ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, message)
    message = "Eligible topic partition leaders are not available."
    return _result(number, ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, message)


def _result(number: int, error: ErrorCode, message: str) -> PartitionResult:
    return PartitionResult(partition_id=number, error_code=error, error_message=message)
