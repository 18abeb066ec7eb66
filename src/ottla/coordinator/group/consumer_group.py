"""A consumer group (KIP-848), as it is durable: its members, their targets, who owns what.

Owns the state and the replay of its records, which alone changes it; `refreshed` and `resolv…`
are soft, and only say when to look at the topics again. Must not decide: `consumer.py` does.

Replay takes entries in any order that compaction may leave, so it refuses none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.offsets_topic import (
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue,
    ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey,
    ConsumerGroupPartitionMetadataValue,
    ConsumerGroupRegularExpressionKey,
    ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
)
from ottla.coordinator.group.assignors import NO_ASSIGNMENT, Assignment
from ottla.coordinator.group.consumer_member import LEFT, NOTHING, Member, MemberState
from ottla.coordinator.group.regex import Resolution
from ottla.coordinator.group.timeline import Timeline, counted
from ottla.core.model import TopicId
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_groups import ListedGroup

if TYPE_CHECKING:
    from ottla.coordinator.group.shard import CommitCheck
    from ottla.coordinator.group.shard import Member as Committer

PROTOCOL_TYPE: Final = "consumer"
MEMBER_EPOCHS_SINCE: Final = 9
"""The version of OffsetCommit from which on it can name a member's epoch."""

EMPTY, ASSIGNING, RECONCILING, STABLE = "Empty", "Assigning", "Reconciling", "Stable"


class Resolved(Value):
    """What a regular expression matched. `version` is the metadata's, `at_ms` when it was."""

    topics: frozenset[str]
    version: int = 0
    at_ms: int = 0


class ConsumerGroup:
    """`owners` says which member has a partition, or is still giving it up.

    A new group is at epoch 1, as in Apache Kafka 4.3: 0 is what a member says that joins.
    """

    __slots__ = (
        "assigned_at_ms",
        "assignment_epoch",
        "epoch",
        "has_partition_metadata",
        "id",
        "members",
        "metadata_hash",
        "owners",
        "phase",
        "refreshed",
        "regexes",
        "resolved_at_s",
        "resolved_from",
        "resolving",
        "said_bytes",
        "statics",
        "targets",
        "timeline",
        "told_to_join",
    )

    def __init__(self, group_id: str) -> None:
        self.id = group_id
        self.epoch = 1
        self.metadata_hash = 0
        self.assignment_epoch = 1
        self.assigned_at_ms = 0
        self.members: dict[str, Member] = {}
        self.statics: dict[str, str] = {}
        """Member ids by instance id."""
        self.said_bytes = 0
        """How much the members have said of themselves, together."""
        self.targets: dict[str, Assignment] = {}
        self.regexes: dict[str, Resolved] = {}
        self.owners: dict[TopicId, dict[int, str]] = {}
        self.has_partition_metadata = False
        """There is a record of Kafka 4.0's in the log that should be removed."""
        self.refreshed: object = None
        """The topics, as they were when the group last looked at them."""
        self.resolved_from: object = None
        """The topics that its regular expressions were last held against,"""
        self.resolved_at_s = 0.0
        """and when that was, on the monotonic clock."""
        self.resolving: Resolution | None = None
        self.timeline = Timeline()
        """What happened lately. Soft, like `phase`: the one that was noted last, and its epoch."""
        self.phase: tuple[str, int] = ("", 0)
        self.told_to_join: dict[str, int] = {}
        """Classic members that have a timer to join again, and the epoch that they were in."""

    # --- asking ----------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self.members

    @property
    def state(self) -> str:
        if not self.members:
            return EMPTY
        if self.epoch > self.assignment_epoch:
            return ASSIGNING
        at_target = all(member.is_at(self.assignment_epoch) for member in self.members.values())
        return STABLE if at_target else RECONCILING

    def look(self, at_ms: int, now_s: float, why: str) -> None:
        """Note the phase that the group is in by now, if it is another than before.

        Kinds are those of classic groups: rebalancing, stable, empty.
        """
        kind = {EMPTY: "empty", STABLE: "stable"}.get(self.state, "rebalancing")
        if self.phase != (kind, self.epoch):
            self.phase = (kind, self.epoch)
            # A group that could do at once what it had to was never seen rebalancing: why it had
            # to is told all the same.
            told = (why,) if kind == "rebalancing" else (counted(len(self.members)), why)
            text = ": ".join(each for each in told if each)
            self.timeline.phase(at_ms, now_s, kind, self.epoch, text)

    def owner(self, topic: TopicId, partition: int) -> str | None:
        """The member that has the partition or is still giving it up."""
        return self.owners.get(topic, {}).get(partition)

    def is_free(self, topic: TopicId, partition: int) -> bool:
        return self.owner(topic, partition) is None

    def static_member(self, instance_id: str | None) -> Member | None:
        member_id = None if instance_id is None else self.statics.get(instance_id)
        return None if member_id is None else self.members.get(member_id)

    def target_of(self, member: Member) -> Assignment:
        """The member's target; that of whom it takes the place of, while it does."""
        if member.instance_id is not None:
            return self.targets.get(self.statics.get(member.instance_id, ""), NO_ASSIGNMENT)
        return self.targets.get(member.id, NO_ASSIGNMENT)

    def waits_for_release(self, member: Member) -> bool:
        """Whether all that the member still lacks of its target is in other hands."""
        if member.state is not MemberState.UNRELEASED:
            return False
        return any(
            partition not in member.assigned.get(topic, {}) and not self.is_free(topic, partition)
            for topic, numbers in self.targets.get(member.id, NO_ASSIGNMENT).items()
            for partition in numbers
        )

    # What a shard asks of any group.

    def check_commit(
        self, committer: Committer, version: int, *, transactional: bool
    ) -> ErrorCode | CommitCheck:
        """NONE, why the member may not commit, or how to judge each partition.

        A member that is an epoch behind may still commit what it has had since then (KIP-1251).
        """
        if committer.epoch < 0 and (
            not self.members
            or (transactional and not committer.id and committer.instance_id is None)
        ):
            return ErrorCode.NONE
        member = self.members.get(committer.id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if not transactional and member.classic is None and version < MEMBER_EPOCHS_SINCE:
            return ErrorCode.UNSUPPORTED_VERSION
        if committer.epoch == member.epoch:
            return ErrorCode.NONE
        stale = _stale(member)
        if transactional and stale is ErrorCode.STALE_MEMBER_EPOCH:
            stale = ErrorCode.ILLEGAL_GENERATION
        if committer.epoch > member.epoch:
            return stale

        def judge(_topic: str, topic_id: bytes, partition: int) -> ErrorCode:
            since = member.epoch_of(TopicId(topic_id), partition)
            return stale if since is None or committer.epoch < since else ErrorCode.NONE

        return judge

    def committing(self, committer: Committer) -> tuple[()]:  # noqa: ARG002  # as the port has it
        """Nothing: only heartbeats show that a member is alive."""
        return ()

    def check_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:
        if member_id is None and member_epoch < 0:
            return ErrorCode.NONE
        member = self.members.get(member_id or "")
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE if member_epoch == member.epoch else _stale(member)

    def check_delete_offsets(self) -> ErrorCode:
        return ErrorCode.NONE

    def is_subscribed(self, topic: str) -> bool:
        return any(topic in member.topics for member in self.members.values()) or any(
            topic in resolved.topics for resolved in self.regexes.values()
        )

    def expiry_base_ms(self, committed_ms: int) -> int:
        return committed_ms

    def tombstones(self) -> list[Entry] | None:
        return None if self.members else self.end()

    def listed(self) -> ListedGroup:
        return ListedGroup(
            group_id=self.id,
            protocol_type=PROTOCOL_TYPE,
            group_state=self.state,
            group_type="consumer",
        )

    def assignor(self, default: str) -> str:
        return preferred_assignor(self.members, default)

    def end(self, rename: Mapping[str, str] | None = None) -> list[Entry]:
        """What removes the group. `rename`: members that other entries have replaced by then."""
        members = [(rename or {}).get(member, member) for member in self.members]
        keys: list[Any] = []
        keys += (
            ConsumerGroupCurrentMemberAssignmentKey(group_id=self.id, member_id=m) for m in members
        )
        keys += (
            ConsumerGroupTargetAssignmentMemberKey(group_id=self.id, member_id=m) for m in members
        )
        keys.append(ConsumerGroupTargetAssignmentMetadataKey(group_id=self.id))
        keys += (ConsumerGroupMemberMetadataKey(group_id=self.id, member_id=m) for m in members)
        keys += (
            ConsumerGroupRegularExpressionKey(group_id=self.id, regular_expression=regex)
            for regex in self.regexes
        )
        if self.has_partition_metadata:
            keys.append(ConsumerGroupPartitionMetadataKey(group_id=self.id))
        keys.append(ConsumerGroupMetadataKey(group_id=self.id))
        return [Entry(key, None) for key in keys]

    # --- replay ----------------------------------------------------------------------------

    def admit(self, member: Member, target: Assignment) -> None:
        """Put a member into a group that is being made out of one of another kind."""
        self.targets[member.id] = target
        self.said_bytes += member.said_bytes()
        self._put(member)

    def _put(self, member: Member) -> None:
        self._drop_owned(self.members.get(member.id))
        self.members[member.id] = member
        for held in (member.assigned, member.revoking):
            for topic, numbers in held.items():
                owners = self.owners.setdefault(topic, {})
                for number in numbers:
                    owners[number] = member.id
        if member.instance_id is not None:
            self.statics[member.instance_id] = member.id

    def _drop_owned(self, member: Member | None) -> None:
        if member is None:
            return
        for held in (member.assigned, member.revoking):
            for topic, numbers in held.items():
                owners = self.owners.get(topic, {})
                for number in numbers:
                    # Another's by now, where compaction took the entries between.
                    if owners.get(number) == member.id:
                        del owners[number]
                if not owners:
                    self.owners.pop(topic, None)

    def _remove(self, member_id: str) -> None:
        member = self.members.pop(member_id, None)
        self.told_to_join.pop(member_id, None)
        if member is None:
            return
        self.said_bytes -= member.said_bytes()
        self._drop_owned(member)
        if member.instance_id is not None and self.statics.get(member.instance_id) == member_id:
            del self.statics[member.instance_id]

    def replay_member(self, member_id: str, value: ConsumerGroupMemberMetadataValue | None) -> None:
        if value is None:
            self._remove(member_id)
        else:
            member = self.members.get(member_id)
            self.said_bytes -= 0 if member is None else member.said_bytes()
            told = (member or Member(member_id)).with_subscription(value)
            self.said_bytes += told.said_bytes()
            self._put(told)

    def replay_current(
        self, member_id: str, value: ConsumerGroupCurrentMemberAssignmentValue | None
    ) -> None:
        member = self.members.get(member_id)
        if value is not None:
            if member is None:
                member = Member(member_id)
                self.said_bytes += member.said_bytes()
            self._put(member.with_assignment(value))
        elif member is not None:
            # The tombstone of the member itself follows.
            self._put(
                member.replace(epoch=LEFT, previous_epoch=LEFT, assigned=NOTHING, revoking=NOTHING)
            )

    def replay_target(
        self, member_id: str, value: ConsumerGroupTargetAssignmentMemberValue | None
    ) -> None:
        if value is None:
            self.targets.pop(member_id, None)
        else:
            self.targets[member_id] = {
                TopicId(each.topic_id): frozenset(each.partitions)
                for each in value.topic_partitions
            }

    def replay_target_metadata(
        self, value: ConsumerGroupTargetAssignmentMetadataValue | None
    ) -> None:
        self.assignment_epoch = -1 if value is None else value.assignment_epoch
        self.assigned_at_ms = 0 if value is None else value.assignment_timestamp

    def replay_regex(self, regex: str, value: ConsumerGroupRegularExpressionValue | None) -> None:
        if value is None:
            self.regexes.pop(regex, None)
        else:
            self.regexes[regex] = Resolved(frozenset(value.topics), value.version, value.timestamp)

    def replay_metadata(self, value: ConsumerGroupMetadataValue) -> None:
        self.epoch = value.epoch
        self.metadata_hash = value.metadata_hash

    def replay_partition_metadata(self, value: ConsumerGroupPartitionMetadataValue | None) -> None:
        self.has_partition_metadata = value is not None


def _stale(member: Member) -> ErrorCode:
    classic = member.classic is not None
    return ErrorCode.ILLEGAL_GENERATION if classic else ErrorCode.STALE_MEMBER_EPOCH


def preferred_assignor(members: Mapping[str, Member], default: str) -> str:
    """What most of the members that have a wish wish for; of both alike uniform, as in Kafka,
    where it is the hash of the names that decides."""
    wishes = Counter(member.assignor for member in members.values() if member.assignor)
    return max(wishes, key=lambda name: (wishes[name], name)) if wishes else default


Open = Callable[[str, bool], ConsumerGroup | None]
"""The group of that id; made, in place of what is there, if the second argument says so."""


def replay(entry: Entry, open_group: Open, remove: Callable[[str], None]) -> None:
    """Take in an entry of a consumer group: one whose key is in KEYS."""
    key, value = entry
    assert isinstance(key, KEYS), key
    group = open_group(key.group_id, value is not None)
    if group is None:
        return  # a tombstone of what is gone
    match key:
        case ConsumerGroupMemberMetadataKey():
            assert value is None or isinstance(value, ConsumerGroupMemberMetadataValue)
            group.replay_member(key.member_id, value)
        case ConsumerGroupCurrentMemberAssignmentKey():
            assert value is None or isinstance(value, ConsumerGroupCurrentMemberAssignmentValue)
            group.replay_current(key.member_id, value)
        case ConsumerGroupTargetAssignmentMemberKey():
            assert value is None or isinstance(value, ConsumerGroupTargetAssignmentMemberValue)
            group.replay_target(key.member_id, value)
        case ConsumerGroupTargetAssignmentMetadataKey():
            assert value is None or isinstance(value, ConsumerGroupTargetAssignmentMetadataValue)
            group.replay_target_metadata(value)
        case ConsumerGroupRegularExpressionKey():
            assert value is None or isinstance(value, ConsumerGroupRegularExpressionValue)
            group.replay_regex(key.regular_expression, value)
        case ConsumerGroupPartitionMetadataKey():
            assert value is None or isinstance(value, ConsumerGroupPartitionMetadataValue)
            group.replay_partition_metadata(value)
        case ConsumerGroupMetadataKey():
            if value is None:
                remove(key.group_id)
            else:
                assert isinstance(value, ConsumerGroupMetadataValue)
                group.replay_metadata(value)


KEYS: Final = (
    ConsumerGroupMetadataKey,
    ConsumerGroupPartitionMetadataKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupRegularExpressionKey,
)
