"""OffsetCommit, key 8, versions 2 to 10.

Each partition that there is goes to the group's shard, which judges the member and commits; the
answer leaves once the commit can't be lost (I35). Any offset is taken, negative ones too: clients
commit -1 and -2 to mean something (H109). The empty group id is a group, as in Kafka.
v5 no retention time · v6 leader epoch · v7 group instance id (KIP-345) · v8 flexible
v9 member epochs (KIP-848): GROUP_ID_NOT_FOUND, STALE_MEMBER_EPOCH · v10 topic ids (KIP-848)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ottla.coordinator.group.shard import Commit, Member
from ottla.core.model import TopicId
from ottla.handlers.asking import when_replied, write_deadline_s
from ottla.handlers.limits import note_full, too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.cluster.image import TopicImage
    from ottla.handlers.context import Context, Request

TOPIC_IDS_SINCE = 10


def handle(context: Context, request: Request[OffsetCommitRequest]) -> Reply | Parked:
    """Commit each partition: a code for each (KIP-98, KIP-848)."""
    body = request.body
    answer = OffsetCommitResponse()
    commits: list[Commit] = []
    responses: list[OffsetCommitResponsePartition] = []
    for wanted in body.topics:
        topic = _find(context, request.api_version, wanted)
        parts: list[OffsetCommitResponsePartition] = []
        answer.topics.append(
            OffsetCommitResponseTopic(name=wanted.name, topic_id=wanted.topic_id, partitions=parts)
        )
        for one in wanted.partitions:
            part = OffsetCommitResponsePartition(partition_index=one.partition_index)
            parts.append(part)
            if isinstance(topic, ErrorCode):
                part.error_code = topic
            elif not 0 <= one.partition_index < len(topic.partitions):
                part.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                responses.append(part)
                commits.append(
                    Commit(
                        topic.name,
                        topic.id,
                        one.partition_index,
                        one.committed_offset,
                        one.committed_leader_epoch,
                        one.committed_metadata or "",
                    )
                )
    if too_many(context, request, sum(len(topic.partitions) for topic in body.topics)):
        return _answer(answer, responses, ErrorCode.INVALID_REQUEST)
    if not commits:
        return Reply(answer)
    member = Member(body.member_id, body.group_instance_id, body.generation_id_or_member_epoch)
    asked = context.groups.ask(
        body.group_id,
        lambda shard: shard.commit_offsets(
            body.group_id,
            member,
            commits,
            version=request.api_version,
            retention_ms=body.retention_time_ms,
        ),
    )
    note = partial(note_full, context, request.connection.peer, body.group_id)
    done = partial(_committed, note, answer, responses)
    return when_replied(asked, done, write_deadline_s(context))


def _find(
    context: Context, version: int, wanted: OffsetCommitRequestTopic
) -> TopicImage | ErrorCode:
    image = context.image()
    if version >= TOPIC_IDS_SINCE:
        return image.by_id.get(TopicId(wanted.topic_id)) or ErrorCode.UNKNOWN_TOPIC_ID
    return image.topics.get(wanted.name) or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def _committed(
    note: Callable[[int], None],
    answer: OffsetCommitResponse,
    responses: list[OffsetCommitResponsePartition],
    replied: list[ErrorCode] | ErrorCode,
) -> Reply:
    if isinstance(replied, ErrorCode):
        note(replied)
    elif ErrorCode.INVALID_COMMIT_OFFSET_SIZE in replied:
        note(ErrorCode.INVALID_COMMIT_OFFSET_SIZE)
    return _answer(answer, responses, replied)


def _answer(
    answer: OffsetCommitResponse,
    responses: list[OffsetCommitResponsePartition],
    replied: list[ErrorCode] | ErrorCode,
) -> Reply:
    if isinstance(replied, ErrorCode):
        replied = [replied] * len(responses)
    for response, error in zip(responses, replied, strict=True):
        response.error_code = error
    return Reply(answer)
