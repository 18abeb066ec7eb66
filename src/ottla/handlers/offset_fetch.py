"""OffsetFetch, key 9, versions 1 to 10.

Answers from committed state: -1 where nothing was committed, also for groups and topics that
nobody knows. With require_stable, an offset that an open transaction may still change is answered
UNSTABLE_OFFSET_COMMIT.
v2 null topics mean all · v5 leader epoch · v6 flexible · v7 require_stable (KIP-447)
v8 several groups (KIP-709) · v9 member epochs (KIP-848) · v10 topic ids (KIP-848)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ottla.coordinator.group.offsets import NOTHING
from ottla.coordinator.group.shard import Told
from ottla.core.model import NO_TOPIC_ID, TopicId
from ottla.core.pending import Pending
from ottla.handlers.asking import when_all_replied, write_deadline_s
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

ERROR_SINCE, GROUPS_SINCE, TOPIC_IDS_SINCE = 2, 8, 10

Replied: TypeAlias = Sequence[Told] | Mapping[str, Mapping[int, Told]] | ErrorCode


def handle(context: Context, request: Request[OffsetFetchRequest]) -> Reply | Parked:
    """What each group has committed, of the partitions that are named or of all."""
    body = request.body
    groups = body.groups
    if request.api_version < GROUPS_SINCE:
        topics = body.topics
        named = (
            None
            if topics is None
            else [
                OffsetFetchRequestTopics(name=one.name, partition_indexes=one.partition_indexes)
                for one in topics
            ]
        )
        groups = [OffsetFetchRequestGroup(group_id=body.group_id, topics=named)]
    count = sum(len(topic.partition_indexes) for one in groups for topic in one.topics or ())
    refused = too_many(context, request, max(count, len(groups)))
    lookups = [Lookup(context, request.api_version, group) for group in groups]
    if refused:
        for lookup in lookups:
            lookup.fail(ErrorCode.INVALID_REQUEST)
    else:
        for lookup in lookups:
            lookup.ask(body.require_stable)

    def answer() -> Reply:
        answers = [lookup.answer() for lookup in lookups]
        if request.api_version >= GROUPS_SINCE:
            return Reply(OffsetFetchResponse(groups=answers))
        return Reply(_for_one_group(answers[0], request))

    asked = [lookup.asked for lookup in lookups if lookup.asked]
    return when_all_replied(asked, answer, write_deadline_s(context))


class Lookup:
    """One group of the request."""

    __slots__ = ("_context", "_found", "_group", "_version", "asked", "error")

    def __init__(self, context: Context, version: int, group: OffsetFetchRequestGroup) -> None:
        self._context = context
        self._version = version
        self._group = group
        self._found: list[tuple[OffsetFetchRequestTopics, str | None]] = []
        """Each topic that was named, and its name if it is known."""
        self.asked: Pending[Any] | None = None
        """What the shard replies: a Replied."""
        self.error = ErrorCode.NONE

    def fail(self, error: ErrorCode) -> None:
        self.error = error

    def ask(self, require_stable: bool) -> None:
        """Ask the group's shard for what was named, or for all."""
        group = self._group
        group_id, member_id, epoch = group.group_id, group.member_id, group.member_epoch
        if group.topics is None:
            self.asked = self._context.groups.submit(
                group_id,
                lambda shard: shard.fetch_all_offsets(
                    group_id,
                    member_id=member_id,
                    member_epoch=epoch,
                    require_stable=require_stable,
                ),
            )
            return
        self._found = [(topic, self._name(topic)) for topic in group.topics]
        places = [
            (name, partition)
            for topic, name in self._found
            if name is not None
            for partition in topic.partition_indexes
        ]
        self.asked = self._context.groups.submit(
            group_id,
            lambda shard: shard.fetch_offsets(
                group_id,
                places,
                member_id=member_id,
                member_epoch=epoch,
                require_stable=require_stable,
            ),
        )

    def _name(self, topic: OffsetFetchRequestTopics) -> str | None:
        if self._version < TOPIC_IDS_SINCE:
            return topic.name
        known = self._context.image().by_id.get(TopicId(topic.topic_id))
        return None if known is None else known.name

    def answer(self) -> OffsetFetchResponseGroup:
        """What the shard has replied by now."""
        asked, group_id = self.asked, self._group.group_id
        replied: Replied = self.error
        if asked is not None:
            replied = asked.result() if asked.done else ErrorCode.COORDINATOR_NOT_AVAILABLE
        if isinstance(replied, ErrorCode):
            return OffsetFetchResponseGroup(group_id=group_id, error_code=replied)
        topics = self._all(replied) if isinstance(replied, Mapping) else self._named(replied)
        return OffsetFetchResponseGroup(group_id=group_id, topics=topics)

    def _all(self, replied: Mapping[str, Mapping[int, Told]]) -> list[OffsetFetchResponseTopics]:
        topics = self._context.image().topics
        found: list[OffsetFetchResponseTopics] = []
        for name, partitions in replied.items():
            topic = topics.get(name)
            if topic is None and self._version >= TOPIC_IDS_SINCE:
                continue  # without an id there is no way to name it
            found.append(
                OffsetFetchResponseTopics(
                    name=name,
                    topic_id=NO_TOPIC_ID if topic is None else topic.id,
                    partitions=[_part(number, told) for number, told in partitions.items()],
                )
            )
        return found

    def _named(self, replied: Sequence[Told]) -> list[OffsetFetchResponseTopics]:
        found: list[OffsetFetchResponseTopics] = []
        at = 0
        for topic, name in self._found:
            count = len(topic.partition_indexes)
            told: Sequence[Told] = [_UNKNOWN_ID] * count
            if name is not None:
                told = replied[at : at + count]
                at += count
            found.append(
                OffsetFetchResponseTopics(
                    name=topic.name,
                    topic_id=topic.topic_id,
                    partitions=list(map(_part, topic.partition_indexes, told)),
                )
            )
        return found


_UNKNOWN_ID = Told(NOTHING, ErrorCode.UNKNOWN_TOPIC_ID)


def _part(number: int, told: Told) -> OffsetFetchResponsePartitions:
    committed = told.committed
    return OffsetFetchResponsePartitions(
        partition_index=number,
        committed_offset=committed.offset,
        committed_leader_epoch=committed.leader_epoch,
        metadata=committed.metadata,
        error_code=told.error,
    )


def _for_one_group(
    group: OffsetFetchResponseGroup, request: Request[OffsetFetchRequest]
) -> OffsetFetchResponse:
    """The answer before v8; where there is no place for the group's error (v1), each partition
    that was named has it."""
    topics = [
        OffsetFetchResponseTopic(
            name=topic.name,
            partitions=[
                OffsetFetchResponsePartition(
                    partition_index=part.partition_index,
                    committed_offset=part.committed_offset,
                    committed_leader_epoch=part.committed_leader_epoch,
                    metadata=part.metadata,
                    error_code=part.error_code,
                )
                for part in topic.partitions
            ],
        )
        for topic in group.topics
    ]
    if group.error_code and request.api_version < ERROR_SINCE:
        topics = [
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=number,
                        committed_offset=NOTHING.offset,
                        metadata=NOTHING.metadata,
                        error_code=group.error_code,
                    )
                    for number in topic.partition_indexes
                ],
            )
            for topic in request.body.topics or ()
        ]
    return OffsetFetchResponse(topics=topics, error_code=group.error_code)
