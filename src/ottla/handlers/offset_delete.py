"""OffsetDelete, key 47, versions 0 to 0 (KIP-496).

Takes back what a group has committed of partitions that none of its members reads. A classic
group of other clients than consumers must be empty: nobody knows what its members read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.handlers.asking import when_replied, write_deadline_s
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[OffsetDeleteRequest]) -> Reply | Parked:
    """A code for each partition, or one for the group: INVALID_GROUP_ID, GROUP_ID_NOT_FOUND,
    NON_EMPTY_GROUP."""
    body = request.body
    if not body.group_id:
        return Reply(OffsetDeleteResponse(error_code=ErrorCode.INVALID_GROUP_ID))
    if too_many(context, request, sum(len(topic.partitions) for topic in body.topics)):
        return Reply(OffsetDeleteResponse(error_code=ErrorCode.INVALID_REQUEST))
    answer = OffsetDeleteResponse()
    places: list[tuple[str, int]] = []
    responses: list[OffsetDeleteResponsePartition] = []
    topics = context.image().topics
    for wanted in body.topics:
        if not wanted.partitions:
            continue  # Kafka's answer leaves it out, too
        topic = topics.get(wanted.name)
        parts: list[OffsetDeleteResponsePartition] = []
        answer.topics.append(OffsetDeleteResponseTopic(name=wanted.name, partitions=parts))
        for one in wanted.partitions:
            part = OffsetDeleteResponsePartition(partition_index=one.partition_index)
            parts.append(part)
            if topic is None or not 0 <= one.partition_index < len(topic.partitions):
                part.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                responses.append(part)
                places.append((wanted.name, one.partition_index))
    asked = context.groups.submit(
        body.group_id, lambda shard: shard.delete_offsets(body.group_id, places)
    )
    return when_replied(asked, partial(_answer, answer, responses), write_deadline_s(context))


def _answer(
    answer: OffsetDeleteResponse,
    responses: list[OffsetDeleteResponsePartition],
    replied: list[ErrorCode] | ErrorCode,
) -> Reply:
    if isinstance(replied, ErrorCode):
        return Reply(OffsetDeleteResponse(error_code=replied))
    for response, error in zip(responses, replied, strict=True):
        response.error_code = error
    return Reply(answer)
