"""GroupShard: the groups of one partition of __consumer_offsets, and what they have committed.

Owns the durable state, which `replay` and `end_transaction` alone change, and the decisions about
offsets. What a group itself decides is its own (`classic.py`, `consumer.py`). A pure state
machine: the clock is injected, timers are effects. Must not append, wait or answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from ottla.coordinator.decision import Decision, Effect, Entry
from ottla.coordinator.entries.offsets_topic import (
    CommitPlace,
    GroupMetadataKey,
    GroupMetadataValue,
    LegacyOffsetCommitKey,
    OffsetCommitKey,
    OffsetCommitValue,
)
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.classic_protocol import ClassicProtocol, Node
from ottla.coordinator.group.classic_rounds import Rounds, classic_settings
from ottla.coordinator.group.consumer import ConsumerProtocol
from ottla.coordinator.group.consumer_group import KEYS, ConsumerGroup
from ottla.coordinator.group.consumer_group import replay as replay_consumer
from ottla.coordinator.group.consumer_settings import ConsumerSettings
from ottla.coordinator.group.mixed import MixedGroups
from ottla.coordinator.group.offsets import NO_EXPIRY, NOTHING, Committed, Offsets, tombstone
from ottla.coordinator.group.retention import Retention
from ottla.coordinator.group.turn import Turn
from ottla.core import group_options
from ottla.core.model import NO_TOPIC_ID
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupResponse
from ottla.protocol.messages.list_groups import ListedGroup

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.coordinator.group.caller import Caller
    from ottla.core.config import Config
    from ottla.core.ports import Clock
    from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
    from ottla.protocol.messages.join_group import JoinGroupRequest
    from ottla.protocol.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse
    from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
    from ottla.records.builder import Producer

_JOINING = (ErrorCode.NONE, ErrorCode.MEMBER_ID_REQUIRED)
_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time

CommitCheck: TypeAlias = Callable[[str, bytes, int], ErrorCode]
"""Judges one partition of a commit: topic, topic id, partition."""


class Member(NamedTuple):
    """Who commits or asks, as the request says. `epoch` is the generation in a classic group."""

    id: str = ""
    instance_id: str | None = None
    epoch: int = -1


class Group(Protocol):
    """What the shard asks of a group, whatever its protocol."""

    def check_commit(
        self, member: Member, version: int, *, transactional: bool
    ) -> ErrorCode | CommitCheck:
        """Whether the member may commit; or how to judge each partition by itself."""

    def committing(self, member: Member) -> Sequence[Effect]:
        """What an accepted commit brings about: a classic member's session begins anew."""

    def check_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:
        """Whether the member may read (v9 and later name one; None: nobody in particular)."""

    def check_delete_offsets(self) -> ErrorCode:
        """Whether single offsets may be deleted at all."""

    def is_subscribed(self, topic: str) -> bool:
        """Whether a member reads the topic: its offsets neither expire nor may be deleted."""

    def expiry_base_ms(self, committed_ms: int) -> int | None:
        """From when on retention counts for an offset committed then; None: not at all now."""

    def tombstones(self) -> Sequence[Entry] | None:
        """What ends the group if it may end, all its offsets being gone; else None."""

    def listed(self) -> ListedGroup:
        """As ListGroups tells it: protocol type, state and type."""


class SimpleGroup:
    """A group that only ever committed, with partitions of its own choosing."""

    __slots__ = ("_id",)

    def __init__(self, group_id: str) -> None:
        self._id = group_id

    def check_commit(self, member: Member, version: int, *, transactional: bool) -> ErrorCode:  # noqa: ARG002  # as the port has it
        if member.epoch < 0:
            return ErrorCode.NONE
        return ErrorCode.UNKNOWN_MEMBER_ID

    def committing(self, member: Member) -> Sequence[Effect]:  # noqa: ARG002  # as the port has it
        return ()

    def check_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:  # noqa: ARG002  # as the port has it
        return ErrorCode.NONE

    def check_delete_offsets(self) -> ErrorCode:
        return ErrorCode.NONE

    def is_subscribed(self, topic: str) -> bool:  # noqa: ARG002  # as the port has it
        return False

    def expiry_base_ms(self, committed_ms: int) -> int:
        return committed_ms

    def tombstones(self) -> Sequence[Entry]:
        return (Entry(GroupMetadataKey(group=self._id), None),)

    def listed(self) -> ListedGroup:
        return ListedGroup(group_id=self._id, group_state="Empty", group_type="classic")


class Commit(NamedTuple):
    """One partition of a commit."""

    topic: str
    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int
    metadata: str


class Told(NamedTuple):
    """What is told of one partition."""

    committed: Committed
    error: ErrorCode = ErrorCode.NONE


class GroupShard:
    """Groups and offsets. Methods named by an API decide; they read and change nothing."""

    def __init__(
        self,
        partition: int,
        config: Config,
        image: Callable[[], ClusterImage],
        clock: Clock,
        node: Node | None = None,
    ) -> None:
        self.partition = partition
        self.config = config
        self.image = image
        self.clock = clock
        self.groups: dict[str, Group] = {}
        self.offsets = Offsets()
        node = node or Node(
            partial(_serial, count()),
            lambda: len(self.groups),
            lambda: len(self.offsets.groups),
            lambda: self.offsets.bytes_count,
        )
        self._node = node
        settings = classic_settings(config)
        self._rounds = Rounds(self.groups, settings, clock, self.offsets.groups.__contains__)
        self.classic = ClassicProtocol(self._rounds, node)
        """Decides what members of classic groups ask for."""
        of_group = ConsumerSettings(config)
        self.consumer = ConsumerProtocol(
            self.groups, lambda group_id: of_group.of(image(), group_id), image, clock, node.unique
        )
        """Decides what members of consumer groups ask for."""
        self.consumer.has_room = lambda: node.groups_count() < settings.groups_max
        self.mixed = MixedGroups(self.consumer, self._rounds)
        self.retention = Retention(self.offsets, self.group, self.group_ids, config, image, clock)
        """Decides what is taken back by itself."""

    def group_ids(self) -> dict[str, object]:
        """Every group that is known, in a fixed order."""
        return {**self.groups, **self.offsets.groups}

    def group(self, group_id: str) -> Group | None:
        """The group, also one that only ever committed; None if nothing is known of it."""
        found = self.groups.get(group_id)
        if found is None and group_id in self.offsets.groups:
            return SimpleGroup(group_id)
        return found

    # --- durable state ---------------------------------------------------------------------

    def replay(self, entry: Entry, producer_id: int = -1) -> None:
        """Take an entry in. The only code that changes durable state; loading calls it too."""
        key, value = entry
        if isinstance(key, CommitPlace):
            assert isinstance(value, tuple), entry
            self.offsets.replay_again(key, value)
        elif isinstance(key, OffsetCommitKey):
            assert value is None or isinstance(value, OffsetCommitValue), entry
            self.offsets.replay(key, value, producer_id)
        elif isinstance(key, LegacyOffsetCommitKey):
            assert value is None or isinstance(value, OffsetCommitValue), entry
            now = OffsetCommitKey(group=key.group, topic=key.topic, partition=key.partition)
            self.offsets.replay(now, value, producer_id)
        elif isinstance(key, GroupMetadataKey):
            assert value is None or isinstance(value, GroupMetadataValue), entry
            self._replay_classic(key.group, value)
        elif isinstance(key, KEYS):
            replay_consumer(entry, self._open_consumer, self._forget_consumer)

    def _open_consumer(self, group_id: str, make: bool) -> ConsumerGroup | None:
        group = self.groups.get(group_id)
        if isinstance(group, ConsumerGroup):
            return group
        if not make:
            return None
        made = self.groups[group_id] = ConsumerGroup(group_id)
        return made

    def _forget_consumer(self, group_id: str) -> None:
        self.groups.pop(group_id, None)
        self.offsets.forget_group(group_id)

    def _replay_classic(self, group_id: str, value: GroupMetadataValue | None) -> None:
        group = self.groups.get(group_id)
        if value is None:
            if group is None or isinstance(group, ClassicGroup):
                self.groups.pop(group_id, None)
                self.offsets.forget_group(group_id)
            return
        if not isinstance(group, ClassicGroup):
            group = self.groups[group_id] = ClassicGroup(group_id, self.clock)
        group.adopt(value)

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        """What a transaction committed counts from now on, or never will."""
        self.offsets.end_transaction(producer_id, committed)

    def loaded(self) -> Decision[None]:
        """Begin members' sessions, and the looks for what expires or was left of topics."""
        turn: Turn[None] = Turn()
        for group in self.groups.values():
            if isinstance(group, ClassicGroup):
                self._rounds.start(turn, group)
        return Decision(
            None, effects=[*self.retention.begin(), *turn.effects, *self.consumer.loaded()]
        )

    # --- members that speak the classic protocol -------------------------------------------

    def join_group(self, request: JoinGroupRequest, caller: Caller) -> Decision[JoinGroupResponse]:
        group = self.groups.get(request.group_id)
        if not isinstance(group, ConsumerGroup):
            return self.classic.join(request, caller)
        if not group.is_empty:
            return self.mixed.join(group, request, caller)
        # Nobody is in, so it can be either.
        decision = self.classic.join(request, caller, group)
        reply = decision.reply
        if isinstance(reply, JoinGroupResponse) and reply.error_code not in _JOINING:
            return decision
        entries = [*group.end(), *decision.entries]
        return Decision(decision.reply, entries, decision.effects, atomic=decision.atomic)

    def sync_group(self, request: SyncGroupRequest, caller: Caller) -> Decision[SyncGroupResponse]:
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            return self.mixed.sync(group, request, caller)
        return self.classic.sync(request, caller)

    def heartbeat(self, request: HeartbeatRequest, _caller: Caller) -> Decision[HeartbeatResponse]:
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            return self.mixed.heartbeat(group, request)
        return self.classic.heartbeat(request)

    def leave_group(
        self, request: LeaveGroupRequest, caller: Caller
    ) -> Decision[LeaveGroupResponse]:
        group = self.groups.get(request.group_id)
        if isinstance(group, ConsumerGroup):
            return self.mixed.leave(group, request, caller)
        return self.classic.leave(request, caller)

    # --- committing and reading ------------------------------------------------------------

    def commit_offsets(
        self,
        group_id: str,
        member: Member,
        commits: Sequence[Commit],
        *,
        version: int,
        retention_ms: int = -1,
    ) -> Decision[list[ErrorCode] | ErrorCode]:
        """Commit each; a code for each, in order, or one that holds for all.

        A group that is not known is made by a commit without a generation (I35, H102), unless
        there are too many (H101).
        """
        group = self.group(group_id)
        judged: ErrorCode | CommitCheck = ErrorCode.NONE
        effects: Sequence[Effect] = ()
        if group is not None:
            judged = group.check_commit(member, version, transactional=False)
            if judged is ErrorCode.NONE:
                effects = group.committing(member)
        elif member.epoch >= 0:
            unknown = ErrorCode.GROUP_ID_NOT_FOUND if version >= 9 else ErrorCode.ILLEGAL_GENERATION
            return Decision(unknown)
        elif self._node.committed_count() >= self.config[group_options.GROUPS_MAX]:
            return Decision(ErrorCode.GROUP_MAX_SIZE_REACHED)
        expires_ms = NO_EXPIRY
        if retention_ms >= 0:
            expires_ms = self.clock.wall_ms() + retention_ms
        committed = self._commit(group_id, commits, judged, expires_ms)
        if isinstance(committed, ErrorCode):
            return Decision(committed)
        errors, entries = committed
        return Decision(errors, entries, effects)

    def commit_again(
        self, place: CommitPlace, member: Member, committed: tuple[int, int, bytes], version: int
    ) -> Decision[list[ErrorCode] | ErrorCode]:
        """As `commit_offsets`, of one place without a text: `committed` is its offset, the offset's
        leader epoch and the topic's id. NONE where it is the place's next commit, as it mostly is.
        """
        offset, leader_epoch, topic_id = committed
        effects = self._of_usual(place.group, member, version)
        if effects is None or topic_id == NO_TOPIC_ID or not self.offsets.has(place):
            one = Commit(place.topic, topic_id, place.partition, offset, leader_epoch, "")
            return self.commit_offsets(place.group, member, (one,), version=version)
        value = offset, leader_epoch, "", self.clock.wall_ms(), NO_EXPIRY, topic_id
        return Decision(_NO_ERROR, (Entry(place, value),), effects)

    def commit_several_again(
        self,
        committed: Iterable[tuple[CommitPlace, int, int]],
        member: Member,
        topic_id: bytes,
        version: int,
    ) -> Decision[list[ErrorCode] | ErrorCode]:
        """As `commit_again`, of several places of one group and topic: each with its offset and the
        offset's leader epoch."""
        several = list(committed)
        group_id = several[0][0].group
        effects = self._of_usual(group_id, member, version)
        has = self.offsets.has
        if effects is None or topic_id == NO_TOPIC_ID or not all(has(one[0]) for one in several):
            commits = [
                Commit(place.topic, topic_id, place.partition, offset, leader_epoch, "")
                for place, offset, leader_epoch in several
            ]
            return self.commit_offsets(group_id, member, commits, version=version)
        now_ms = self.clock.wall_ms()
        entries = [
            Entry(place, (offset, leader_epoch, "", now_ms, NO_EXPIRY, topic_id))
            for place, offset, leader_epoch in several
        ]
        return Decision(_NO_ERROR, entries, effects)

    def _of_usual(self, group_id: str, member: Member, version: int) -> Sequence[Effect] | None:
        """What a commit brings about, where all that the member commits is accepted; None where
        more must be asked than that."""
        group = self.groups.get(group_id)
        if group is None:
            return () if member.epoch < 0 else None
        if group.check_commit(member, version, transactional=False) is not _NO_ERROR:
            return None
        return group.committing(member)

    def commit_in_transaction(
        self,
        group_id: str,
        member: Member,
        commits: Sequence[Commit],
        producer: Producer,
        *,
        version: int,
    ) -> Decision[list[ErrorCode] | ErrorCode]:
        """Commit each once the producer's transaction is; a code for each, or one for all.

        A member is told of as a producer's group metadata tells (KIP-447), or not at all. It says
        nothing about the member's being alive.
        """
        group = self.group(group_id)
        judged: ErrorCode | CommitCheck = ErrorCode.NONE
        if group is not None:
            judged = group.check_commit(member, version, transactional=True)
        elif member.epoch >= 0:
            judged = ErrorCode.ILLEGAL_GENERATION
        elif self._node.committed_count() >= self.config[group_options.GROUPS_MAX]:
            judged = ErrorCode.GROUP_MAX_SIZE_REACHED
        committed = self._commit(group_id, commits, judged, NO_EXPIRY, producer.id)
        if isinstance(committed, ErrorCode):
            return Decision(committed)
        errors, entries = committed
        return Decision(errors, entries, producer=producer)

    def _commit(
        self,
        group_id: str,
        commits: Sequence[Commit],
        judged: ErrorCode | CommitCheck,
        expires_ms: int,
        producer_id: int = -1,
    ) -> tuple[list[ErrorCode], list[Entry]] | ErrorCode:
        """A code for each, and the entries of those that are NONE; or why none is committed."""
        if isinstance(judged, ErrorCode):
            if judged:
                return judged
            judged = _anything
        now_ms = self.clock.wall_ms()
        metadata_max = self.config[group_options.OFFSET_METADATA_BYTES_MAX]
        room: int | None = None
        grows = partial(self.offsets.growth, group_id, producer_id=producer_id)
        errors: list[ErrorCode] = []
        entries: list[Entry] = []
        for topic, topic_id, partition, offset, leader_epoch, metadata in commits:
            if error := judged(topic, topic_id, partition):
                return error  # a member that is behind commits all or nothing
            if _is_longer(metadata, metadata_max):
                error = ErrorCode.OFFSET_METADATA_TOO_LARGE
            elif (growth := grows(topic, partition, metadata)) > 0:
                if room is None:
                    room = self._room(group_id)
                if growth > room:
                    error = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
                else:
                    room -= growth
            errors.append(error)
            if not error:
                value = OffsetCommitValue(
                    offset=offset,
                    leader_epoch=leader_epoch,
                    metadata=metadata,
                    commit_timestamp=now_ms,
                    expire_timestamp=expires_ms,
                    topic_id=topic_id,
                )
                key = OffsetCommitKey(group=group_id, topic=topic, partition=partition)
                entries.append(Entry(key, value))
        return errors, entries

    def _room(self, group_id: str) -> int:
        """How many bytes more the group may commit; a partition that it has already is free."""
        of_group = self.config[group_options.GROUP_OFFSETS_BYTES_MAX]
        of_node = self.config[group_options.OFFSETS_BYTES_MAX]
        return min(
            of_group - self.offsets.bytes_of(group_id), of_node - self._node.committed_bytes()
        )

    def fetch_offsets(
        self,
        group_id: str,
        places: Sequence[tuple[str, int]],
        *,
        member_id: str | None = None,
        member_epoch: int = -1,
        require_stable: bool = False,
    ) -> Decision[list[Told] | ErrorCode]:
        """What is committed of each (topic, partition), in order; or one error for the group."""
        group = self.group(group_id)
        if group is not None and (error := group.check_fetch(member_id, member_epoch)):
            return Decision(error)
        return Decision(
            [self._tell(group_id, topic, number, require_stable) for topic, number in places]
        )

    def fetch_all_offsets(
        self,
        group_id: str,
        *,
        member_id: str | None = None,
        member_epoch: int = -1,
        require_stable: bool = False,
    ) -> Decision[dict[str, dict[int, Told]] | ErrorCode]:
        """All that the group has committed, by topic and partition."""
        group = self.group(group_id)
        if group is not None and (error := group.check_fetch(member_id, member_epoch)):
            return Decision(error)
        told: dict[str, dict[int, Told]] = {}
        for topic, number, committed in self.offsets.places(group_id):
            if not self.retention.is_gone(committed):
                one = self._tell(group_id, topic, number, require_stable)
                told.setdefault(topic, {})[number] = one
        return Decision(told)

    def _tell(self, group_id: str, topic: str, partition: int, require_stable: bool) -> Told:
        offsets = self.offsets
        if require_stable and offsets.is_pending(group_id, topic, partition):
            return Told(NOTHING, ErrorCode.UNSTABLE_OFFSET_COMMIT)
        found = offsets.find(group_id, topic, partition)
        return Told(NOTHING if found is None or self.retention.is_gone(found) else found)

    # --- taking back -----------------------------------------------------------------------

    def delete_offsets(
        self, group_id: str, places: Sequence[tuple[str, int]]
    ) -> Decision[list[ErrorCode] | ErrorCode]:
        """Take back what was committed of each (topic, partition); a code for each."""
        group = self.group(group_id)
        if group is None:
            return Decision(ErrorCode.GROUP_ID_NOT_FOUND)
        if error := group.check_delete_offsets():
            return Decision(error)
        errors: list[ErrorCode] = []
        entries: list[Entry] = []
        for topic, partition in places:
            if group.is_subscribed(topic):
                errors.append(ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC)
                continue
            errors.append(ErrorCode.NONE)
            place = group_id, topic, partition
            if self.offsets.find(*place) is not None or self.offsets.is_pending(*place):
                entries.append(tombstone(*place))
        return Decision(errors, entries, atomic=False)

    def offset_tombstones(self, group_id: str) -> list[Entry]:
        """What takes back all that a group has committed, and all that is pending: for its
        deletion, which nothing pending holds up (as in Kafka)."""
        places = dict.fromkeys(
            (topic, number) for topic, number, _ in self.offsets.places(group_id)
        )
        places |= dict.fromkeys(self.offsets.pending_places(group_id))
        return [tombstone(group_id, topic, number) for topic, number in places]


def _serial(numbers: Iterator[int]) -> str:
    return f"{next(numbers):08x}"


def _is_longer(text: str, most: int) -> bool:
    """Whether it has more UTF-16 units than that, which is what Kafka counts."""
    if len(text) * 2 <= most:
        return False
    return len(text) + sum(char > "\uffff" for char in text) > most


def _anything(_topic: str, _topic_id: bytes, _partition: int) -> ErrorCode:
    return ErrorCode.NONE
