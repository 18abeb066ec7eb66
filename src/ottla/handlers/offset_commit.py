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

from collections import deque
from functools import lru_cache, partial
from struct import Struct
from typing import TYPE_CHECKING, Any

from ottla.coordinator.entries.offsets_topic import CommitPlace
from ottla.coordinator.group.shard import Commit, Member
from ottla.core import options
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
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from ottla.cluster.image import TopicImage
    from ottla.core.pending import Soon
    from ottla.handlers.context import Context, Request

    _GoOn: TypeAlias = partial[Reply | Parked]
    _Replied: TypeAlias = list[ErrorCode] | ErrorCode
    _UsualBody: TypeAlias = "tuple[Usual, Sequence[int], Sequence[int]]"
    """Who commits where, the offsets, and the leader epoch of each."""

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
    elif not any(replied):
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


# --- the usual request: one topic, texts that are empty ------------------------------------------


class Usual:
    """All that such a request says but for the offsets: who commits, and where.

    `done` is the answer that all is committed, encoded; `hint` what the topic is known by;
    `numbers` and `highest` tell of its partitions, and `place` is the first of the `places`.
    """

    __slots__ = ("done", "highest", "hint", "member", "numbers", "place", "places")

    def __init__(self, body: OffsetCommitRequest, topic: str, done: bytes) -> None:
        [wanted] = body.topics
        self.member = _member(body)
        self.hint = wanted.name, wanted.topic_id
        self.numbers = tuple([part.partition_index for part in wanted.partitions])
        self.highest = max(self.numbers)
        self.places = tuple([CommitPlace(body.group_id, topic, one) for one in self.numbers])
        self.place = self.places[0]
        self.done = done

    def body(self, offsets: Sequence[int], leader_epochs: Sequence[int]) -> OffsetCommitRequest:
        """The request in full."""
        parts = [
            OffsetCommitRequestPartition(
                partition_index=number,
                committed_offset=offset,
                committed_leader_epoch=leader_epoch,
                committed_metadata="",
            )
            for number, offset, leader_epoch in zip(
                self.numbers, offsets, leader_epochs, strict=True
            )
        ]
        name, topic_id = self.hint
        topic = OffsetCommitRequestTopic(name=name, topic_id=topic_id, partitions=parts)
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


class _Known:
    """The requests of one version that are known, by how they begin: of one partition up to its
    offset; of several, up to how many they are."""

    __slots__ = ("one", "several")

    def __init__(self) -> None:
        self.one: dict[bytes, Usual] = {}
        self.several: dict[bytes, Usual] = {}


class _Memory:
    """All that is known: what came first is forgotten first, when it is too much."""

    __slots__ = ("_order", "_versions", "places_count")

    def __init__(self) -> None:
        self._versions: dict[int, _Known] = {}
        self._order: deque[tuple[dict[bytes, Usual], bytes]] = deque()
        self.places_count = 0

    def of(self, version: int) -> _Known:
        """The same one each time: the version's reader has its dicts."""
        return self._versions.setdefault(version, _Known())

    def add(self, version: int, head: bytes, usual: Usual) -> None:
        known = self.of(version)
        by_head = known.one if len(usual.places) == 1 else known.several
        if head in by_head:
            self.places_count -= len(by_head[head].places)
        else:
            self._order.append((by_head, head))
        by_head[head] = usual
        self.places_count += len(usual.places)
        while self.places_count > _KNOWN_MAX and len(self._order) > 1:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        by_head, head = self._order.popleft()
        self.places_count -= len(by_head.pop(head).places)


_KNOWN_MAX, _SEVERAL_MAX, _HEAD_MAX = 8192, 100, 512
"""Places that are remembered, how many of one request, and how long it may be up to there: a
group's id may have 32,767 characters."""
_memory = _Memory()
_EMPTY, _NULL = 1 << 8, 0
"""A text and the number of its tagged fields, which are none."""


def _rest(version: int) -> tuple[Struct, tuple[int, ...]]:
    """How a request for one partition ends: offset, leader epoch, a text that is null or empty, no
    tags. What that last part may be."""
    if version >= FLEXIBLE_SINCE:
        return Struct(">qiI"), (1 << 24, 0)
    return (Struct(">qih") if version >= EPOCHS_SINCE else Struct(">qh")), (0, -1)


@lru_cache(maxsize=_SEVERAL_MAX)
def _parts(count: int) -> Struct:
    """So many partitions: number, offset, leader epoch, text and tags of each; tags twice."""
    return Struct(f">{'iqiH' * count}H")


def reader(version: int) -> Callable[[memoryview, int], tuple[Any, int]]:
    """As the decoder of the version; but what is known to be usual it leaves at that."""
    known = _memory.of(version).one
    struct, no_text = _rest(version)
    size, unpack, has_epoch = struct.size, struct.unpack_from, version >= EPOCHS_SINCE
    decode = decoder(OffsetCommitRequest, version)
    if version >= FLEXIBLE_SINCE:
        decode = _reader_of_several(version, decode)

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
        return (usual, (offset,), (leader_epoch,)), length

    return read


def _reader_of_several(
    version: int, decode: Callable[[memoryview, int], tuple[Any, int]]
) -> Callable[[memoryview, int], tuple[Any, int]]:
    known = _memory.of(version).several
    has_name = version < TOPIC_IDS_SINCE

    def read(view: memoryview, at: int) -> tuple[Any, int]:
        # Only where to look: whatever the bytes are, nothing is known by them that they don't say.
        try:
            member_at = at + view[at] + 4
            instance_at = member_at + view[member_at]
            topic_at = instance_at + (view[instance_at] or 1) + 1
            end = topic_at + (view[topic_at] if has_name else 16) + 1
        except IndexError:
            return decode(view, at)
        usual = known.get(bytes(view[at:end])) if end - at <= _HEAD_MAX else None
        if usual is None:
            return decode(view, at)
        struct = _parts(len(usual.places))
        if end + struct.size != len(view):
            return decode(view, at)
        *parts, tags = struct.unpack_from(view, end)
        texts = parts[3::4]
        if tags or texts.count(_EMPTY) + texts.count(_NULL) != len(texts):
            return decode(view, at)
        if tuple(parts[::4]) != usual.numbers:
            return decode(view, at)
        return (usual, parts[1::4], parts[2::4]), len(view)

    return read


def _remember(version: int, body: OffsetCommitRequest, topic: str) -> None:
    """What was committed will be again. Only what was: so that nobody can fill this with names."""
    if len(body.topics) != 1 or body.retention_time_ms >= 0:
        return
    parts = body.topics[0].partitions
    count, is_flexible = len(parts), version >= FLEXIBLE_SINCE
    if count > (_SEVERAL_MAX if is_flexible else 1) or any(one.committed_metadata for one in parts):
        return
    (whole,) = encoder(OffsetCommitRequest, version)(body)
    assert type(whole) is bytes, "there are no slices of files in it"
    rest = _rest(version)[0] if count == 1 else _parts(count)
    head = whole[: -rest.size]
    if len(head) > _HEAD_MAX:
        return
    answer = OffsetCommitResponse()
    _outcome_of(body.topics[0], answer)
    (done,) = encoder(OffsetCommitResponse, version)(answer)
    assert type(done) is bytes, "there are no slices of files in it"
    _memory.add(version, head, Usual(body, topic, done))


def _outcome_of(
    wanted: OffsetCommitRequestTopic, answer: OffsetCommitResponse
) -> list[OffsetCommitResponsePartition]:
    """Put a topic into the answer; its partitions, to be given their errors."""
    responses = [
        OffsetCommitResponsePartition(partition_index=one.partition_index)
        for one in wanted.partitions
    ]
    answer.topics.append(
        OffsetCommitResponseTopic(name=wanted.name, topic_id=wanted.topic_id, partitions=responses)
    )
    return responses


def quick(
    context: Context, version: int, body: OffsetCommitRequest | _UsualBody
) -> bytes | _GoOn | None:
    """As `handle`, of what `reader` knows; whatever is not committed at once is left to that."""
    if type(body) is not tuple:
        return None
    usual, offsets, leader_epochs = body
    name, topic_id = usual.hint
    image = context.image()
    topic: TopicImage | None
    if version >= TOPIC_IDS_SINCE:
        topic = image.by_id.get(TopicId(topic_id))
    else:
        topic = image.topics.get(name)
    place = usual.place
    # By its id another node of this process may know a topic of another name.
    if topic is None or topic.name != place.topic or usual.highest >= len(topic.partitions):
        return partial(_in_full, body)
    asked: Soon[_Replied]
    if len(offsets) == 1:
        committed = offsets[0], leader_epochs[0], topic.id
        asked = context.groups.ask(
            place.group, lambda shard: shard.commit_again(place, usual.member, committed, version)
        )
    elif len(offsets) > context.config[options.REQUEST_PARTITIONS_MAX]:
        return partial(_in_full, body)
    else:
        several = zip(usual.places, offsets, leader_epochs, strict=True)
        asked = context.groups.ask(
            place.group,
            lambda shard: shard.commit_several_again(several, usual.member, topic.id, version),
        )
    if asked is _NO_ERROR:
        return usual.done
    return partial(_go_on, body, asked)


def _in_full(
    body: _UsualBody, context: Context, request: Request[OffsetCommitRequest]
) -> Reply | Parked:
    """As `handle`: nothing has been done."""
    usual, offsets, leader_epochs = body
    request.body = usual.body(offsets, leader_epochs)
    return handle(context, request)


def _go_on(
    body: _UsualBody,
    asked: Soon[_Replied],
    context: Context,
    request: Request[OffsetCommitRequest],
) -> Reply | Parked:
    """As `handle`, where `quick` has asked the shard already."""
    return when_replied(asked, partial(_told, body, context, request), write_deadline_s(context))


def _told(
    body: _UsualBody, context: Context, request: Request[OffsetCommitRequest], replied: _Replied
) -> Reply:
    usual, offsets, leader_epochs = body
    if replied is _NO_ERROR:
        return Reply(usual.done)
    request.body = usual.body(offsets, leader_epochs)
    answer = OffsetCommitResponse()
    responses = _outcome_of(request.body.topics[0], answer)
    return _committed(context, request, answer, responses, usual.place.topic, replied)
