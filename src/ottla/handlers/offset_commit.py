"""OffsetCommit, key 8, versions 2 to 10.

Each partition that there is goes to the group's shard, which judges the member and commits; the
answer leaves once the commit can't be lost (I35). Any offset is taken, negative ones too: clients
commit -1 and -2 to mean something (H109). The empty group id is a group, as in Kafka.
v5 no retention time · v6 leader epoch · v7 group instance id (KIP-345) · v8 flexible
v9 member epochs (KIP-848): GROUP_ID_NOT_FOUND, STALE_MEMBER_EPOCH · v10 topic ids (KIP-848)

A consumer commits the same places over and over, and of its request nothing changes but the offset.
So what a request says up to there is known by its bytes, once it was committed (`Usual`).
"""

from __future__ import annotations

from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any

from ottla.coordinator.entries.offsets_topic import CommitPlace
from ottla.coordinator.group.shard import Commit, Member
from ottla.core.model import TopicId
from ottla.handlers.asking import when_replied, write_deadline_s
from ottla.handlers.limits import note_full, too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from ottla.cluster.image import TopicImage
    from ottla.core.pending import Soon
    from ottla.handlers.context import Context, Request

    _GoOn: TypeAlias = partial[Reply | Parked]
    _Replied: TypeAlias = list[ErrorCode] | ErrorCode
    _UsualBody: TypeAlias = "tuple[Usual, int, int]"
    """Who commits where, and the offset with its leader epoch."""

EPOCHS_SINCE, FLEXIBLE_SINCE, TOPIC_IDS_SINCE = 6, 8, 10
_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time


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
    member = _member(body)
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
    done = partial(_committed, context, request, answer, responses, commits[0].topic)
    return when_replied(asked, done, write_deadline_s(context))


def _find(
    context: Context, version: int, wanted: OffsetCommitRequestTopic
) -> TopicImage | ErrorCode:
    image = context.image()
    if version >= TOPIC_IDS_SINCE:
        return image.by_id.get(TopicId(wanted.topic_id)) or ErrorCode.UNKNOWN_TOPIC_ID
    return image.topics.get(wanted.name) or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def _committed(
    context: Context,
    request: Request[OffsetCommitRequest],
    answer: OffsetCommitResponse,
    responses: list[OffsetCommitResponsePartition],
    topic: str,
    replied: _Replied,
) -> Reply:
    note = partial(note_full, context, request.connection.peer, request.body.group_id)
    if isinstance(replied, ErrorCode):
        note(replied)
    elif ErrorCode.INVALID_COMMIT_OFFSET_SIZE in replied:
        note(ErrorCode.INVALID_COMMIT_OFFSET_SIZE)
    elif replied == [_NO_ERROR]:
        _remember(request.api_version, request.body, topic)
    return _answer(answer, responses, replied)


def _answer(
    answer: OffsetCommitResponse,
    responses: list[OffsetCommitResponsePartition],
    replied: _Replied,
) -> Reply:
    if isinstance(replied, ErrorCode):
        replied = [replied] * len(responses)
    for response, error in zip(responses, replied, strict=True):
        response.error_code = error
    return Reply(answer)


# --- the usual request: one partition, without a text -------------------------------------------


class Usual:
    """All that such a request says but for the offset: who commits, and where.

    `done` is the answer that it is committed, encoded; `hint` what the topic is known by.
    """

    __slots__ = ("done", "hint", "member", "place")

    def __init__(self, body: OffsetCommitRequest, topic: str, done: bytes) -> None:
        [wanted] = body.topics
        self.member = _member(body)
        self.hint = wanted.name, wanted.topic_id
        self.place = CommitPlace(body.group_id, topic, wanted.partitions[0].partition_index)
        self.done = done

    def body(self, offset: int, leader_epoch: int) -> OffsetCommitRequest:
        """The request in full."""
        part = OffsetCommitRequestPartition(
            partition_index=self.place.partition,
            committed_offset=offset,
            committed_leader_epoch=leader_epoch,
            committed_metadata="",
        )
        name, topic_id = self.hint
        topic = OffsetCommitRequestTopic(name=name, topic_id=topic_id, partitions=[part])
        member = self.member
        return OffsetCommitRequest(
            group_id=self.place.group,
            generation_id_or_member_epoch=member.epoch,
            member_id=member.id,
            group_instance_id=member.instance_id,
            topics=[topic],
        )


def _member(body: OffsetCommitRequest) -> Member:
    return Member(body.member_id, body.group_instance_id, body.generation_id_or_member_epoch)


_KNOWN_MAX, _HEAD_MAX = 4096, 512
"""How many are remembered, and up to which length: a group's id may have 32,767 characters."""
_known: dict[int, dict[bytes, Usual]] = {}
"""By version, then by how the request begins."""


def _rest(version: int) -> tuple[Struct, tuple[int, ...]]:
    """How the usual request ends: offset, leader epoch, a text that is null or empty, no tags.
    What that last part may be."""
    if version >= FLEXIBLE_SINCE:
        return Struct(">qiI"), (1 << 24, 0)
    return (Struct(">qih") if version >= EPOCHS_SINCE else Struct(">qh")), (0, -1)


def reader(version: int) -> Callable[[memoryview, int], tuple[Any, int]]:
    """As the decoder of the version; but what is known to be usual it leaves at that."""
    decode = decoder(OffsetCommitRequest, version)
    known = _known.setdefault(version, {})
    struct, no_text = _rest(version)
    size, unpack, has_epoch = struct.size, struct.unpack_from, version >= EPOCHS_SINCE

    def read(view: memoryview, at: int) -> tuple[Any, int]:
        length = len(view)
        end = length - size
        if end - at > _HEAD_MAX:
            return decode(view, at)
        # Bytes that are the beginning of one request are that of any other that begins so.
        usual = known.get(bytes(view[at:end]))
        if usual is None:
            return decode(view, at)
        if has_epoch:
            offset, leader_epoch, text = unpack(view, end)
        else:
            (offset, text), leader_epoch = unpack(view, end), -1
        if text not in no_text:
            return decode(view, at)
        return (usual, offset, leader_epoch), length

    return read


def _remember(version: int, body: OffsetCommitRequest, topic: str) -> None:
    """What was committed will be again. Only what was: so that nobody can fill this with names."""
    if len(body.topics) != 1 or len(body.topics[0].partitions) != 1:
        return
    [wanted] = body.topics
    [part] = wanted.partitions
    if part.committed_metadata or body.retention_time_ms >= 0:
        return
    (whole,) = encoder(OffsetCommitRequest, version)(body)
    assert type(whole) is bytes, "there are no slices of files in it"
    head = whole[: -_rest(version)[0].size]
    if len(head) > _HEAD_MAX:
        return
    if sum(map(len, _known.values())) >= _KNOWN_MAX:
        for one in _known.values():  # in place: each version's reader has its own
            one.clear()
    response = OffsetCommitResponsePartition(partition_index=part.partition_index)
    answer = OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=wanted.name, topic_id=wanted.topic_id, partitions=[response]
            )
        ]
    )
    (done,) = encoder(OffsetCommitResponse, version)(answer)
    assert type(done) is bytes, "there are no slices of files in it"
    _known.setdefault(version, {})[head] = Usual(body, topic, done)


def quick(
    context: Context, version: int, body: OffsetCommitRequest | _UsualBody
) -> bytes | _GoOn | None:
    """As `handle`, of what `reader` knows; whatever is not committed at once is left to that."""
    if type(body) is not tuple:
        return None
    usual, offset, leader_epoch = body
    name, topic_id = usual.hint
    image = context.image()
    topic: TopicImage | None
    if version >= TOPIC_IDS_SINCE:
        topic = image.by_id.get(TopicId(topic_id))
    else:
        topic = image.topics.get(name)
    place = usual.place
    if topic is None or place.partition >= len(topic.partitions):
        return partial(_in_full, body)
    asked: Soon[_Replied] = context.groups.ask(
        place.group,
        lambda shard: shard.commit_again(
            place, usual.member, (offset, leader_epoch, topic.id), version
        ),
    )
    if asked is _NO_ERROR:
        return usual.done
    return partial(_go_on, body, asked)


def _in_full(
    body: _UsualBody, context: Context, request: Request[OffsetCommitRequest]
) -> Reply | Parked:
    """As `handle`: nothing has been done."""
    usual, offset, leader_epoch = body
    request.body = usual.body(offset, leader_epoch)
    return handle(context, request)


def _go_on(
    body: _UsualBody,
    asked: Soon[_Replied],
    context: Context,
    request: Request[OffsetCommitRequest],
) -> Reply | Parked:
    """As `handle`, where `quick` has asked the shard already."""
    usual, offset, leader_epoch = body
    request.body = usual.body(offset, leader_epoch)
    return when_replied(asked, partial(_told, usual, context, request), write_deadline_s(context))


def _told(
    usual: Usual, context: Context, request: Request[OffsetCommitRequest], replied: _Replied
) -> Reply:
    if replied is _NO_ERROR:
        return Reply(usual.done)
    response = OffsetCommitResponsePartition(partition_index=usual.place.partition)
    name, topic_id = usual.hint
    topic = OffsetCommitResponseTopic(name=name, topic_id=topic_id, partitions=[response])
    answer = OffsetCommitResponse(topics=[topic])
    return _committed(context, request, answer, [response], usual.place.topic, replied)
