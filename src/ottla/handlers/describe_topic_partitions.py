"""DescribeTopicPartitions, key 75, versions 0 to 0.

Topics in the order of their names, page by page: where an answer is full, its cursor names the
partition that the next one begins with (KIP-966).
Not done: eligible leader replicas, of which there are none; the lists are empty.
Not as Kafka: the empty name is INVALID_TOPIC_EXCEPTION for itself, not UNKNOWN_SERVER_ERROR for
all topics of the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.names import is_internal, name_fault
from ottla.core import options
from ottla.handlers.limits import too_many
from ottla.handlers.nodes import TOPIC_OPERATIONS, tell_partition
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
    ResponseCursor,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage, PartitionImage
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[DescribeTopicPartitionsRequest]) -> Reply:
    """INVALID_REQUEST for each topic where the cursor is none of this request's, or of too many."""
    body = request.body
    if too_many(context, request, len(body.topics)):
        return Reply(DescribeTopicPartitionsResponse(topics=_refused(body)))
    image = context.image()
    cursor = body.cursor
    at_topic, at_partition = "", 0
    if cursor is not None:
        at_topic, at_partition = cursor.topic_name, cursor.partition_index
    asked = {topic.name for topic in body.topics}
    names = sorted(name for name in (asked or image.topics) if name >= at_topic)
    # A topic may be deleted between two pages of all; not so one that was asked for by name.
    lost = cursor is not None and bool(asked) and names[:1] != [at_topic]
    if lost or at_partition < 0:
        return Reply(DescribeTopicPartitionsResponse(topics=_refused(body)))
    most = context.config[options.DESCRIBED_PARTITIONS_MAX]
    left = max(1, min(body.response_partition_limit, most))
    response = DescribeTopicPartitionsResponse()
    for name in names:
        begin = at_partition if name == at_topic else 0
        if left == 0:
            response.next_cursor = ResponseCursor(topic_name=name, partition_index=0)
            break
        answer, count = _topic(image, name, begin, left)
        response.topics.append(answer)
        end = begin + len(answer.partitions)
        left -= len(answer.partitions)
        if end < count:
            response.next_cursor = ResponseCursor(topic_name=name, partition_index=end)
            break
    return Reply(response)


def _refused(body: DescribeTopicPartitionsRequest) -> list[DescribeTopicPartitionsResponseTopic]:
    return [
        DescribeTopicPartitionsResponseTopic(error_code=ErrorCode.INVALID_REQUEST, name=topic.name)
        for topic in body.topics
    ]


def _topic(
    image: ClusterImage, name: str, begin: int, most: int
) -> tuple[DescribeTopicPartitionsResponseTopic, int]:
    """What is told of a topic, from a partition on, and how many partitions it has."""
    answer = DescribeTopicPartitionsResponseTopic(
        name=name, is_internal=is_internal(name), topic_authorized_operations=TOPIC_OPERATIONS
    )
    topic = image.topics.get(name)
    if topic is None:
        answer.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if name_fault(name) is not None:
            answer.error_code = ErrorCode.INVALID_TOPIC_EXCEPTION
        return answer, 0
    answer.topic_id = topic.id
    end = min(begin + most, len(topic.partitions))
    answer.partitions = [
        _partition(image, number, topic.partitions[number]) for number in range(begin, end)
    ]
    return answer, len(topic.partitions)


def _partition(
    image: ClusterImage, number: int, partition: PartitionImage
) -> DescribeTopicPartitionsResponsePartition:
    answer = DescribeTopicPartitionsResponsePartition(
        eligible_leader_replicas=[], last_known_elr=[]
    )
    return tell_partition(answer, image, number, partition)
