"""Draft: a consumer group as it will be once a decision's entries are in.

Owns the entries of one decision, in the order in which Apache Kafka writes them, and the view of
the group that they make. Must not change the group: replay does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ottla.cluster.image import ClusterImage
from ottla.coordinator.decision import Effect, Entry
from ottla.coordinator.entries.offsets_topic import (
    ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupMemberMetadataKey,
    ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey,
    ConsumerGroupRegularExpressionKey,
    ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey,
    ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey,
    ConsumerGroupTargetAssignmentMetadataValue,
    TargetTopicPartition,
)
from ottla.coordinator.group.assignors import (
    ASSIGNORS,
    NO_ASSIGNMENT,
    Assignment,
    Subscriber,
)
from ottla.coordinator.group.consumer_group import ConsumerGroup, Resolved, preferred_assignor
from ottla.coordinator.group.consumer_member import Member
from ottla.core.model import TopicId

Note: TypeAlias = tuple[str, str, str]
"""Who did what, for the timeline: kind, member, and what else there is to say of it."""


class Draft:
    """Begun for each request; it copies of the group what it changes, when it first does."""

    __slots__ = (
        "_members",
        "_regexes",
        "_targets",
        "effects",
        "entries",
        "epoch",
        "group",
        "image",
        "is_whole",
        "notes",
        "why",
    )

    def __init__(self, group: ConsumerGroup, image: ClusterImage) -> None:
        self.group = group
        self.image = image
        self.epoch = group.epoch
        self.entries: list[Entry] = []
        self.effects: list[Effect] = []
        self.is_whole = False
        """Whether a crash must keep all of the entries or none: else what follows mends it."""
        self.notes: list[Note] = []
        self.why = ""
        """Why there is a new epoch."""
        self._members: dict[str, Member] | None = None
        self._targets: dict[str, Assignment] | None = None
        self._regexes: dict[str, Resolved] | None = None

    @property
    def members(self) -> Mapping[str, Member]:
        return self.group.members if self._members is None else self._members

    @property
    def targets(self) -> Mapping[str, Assignment]:
        return self.group.targets if self._targets is None else self._targets

    @property
    def regexes(self) -> Mapping[str, Resolved]:
        return self.group.regexes if self._regexes is None else self._regexes

    # --- what changes ----------------------------------------------------------------------

    def _set_member(self, member_id: str, member: Member | None) -> None:
        if self._members is None:
            self._members = dict(self.group.members)
        if member is None:
            self._members.pop(member_id, None)
        else:
            self._members[member_id] = member

    def _set_target(self, member_id: str, target: Assignment | None) -> None:
        if self._targets is None:
            self._targets = dict(self.group.targets)
        if target is None:
            self._targets.pop(member_id, None)
        else:
            self._targets[member_id] = target

    def put_subscription(self, member: Member) -> None:
        self._set_member(member.id, member)
        self.entries.append(self._subscription(member))

    def _subscription(self, member: Member) -> Entry:
        key = ConsumerGroupMemberMetadataKey(group_id=self.group.id, member_id=member.id)
        return Entry(key, member.subscription_value())

    def put_current(self, member: Member) -> None:
        self._set_member(member.id, member)
        key = ConsumerGroupCurrentMemberAssignmentKey(group_id=self.group.id, member_id=member.id)
        self.entries.append(Entry(key, member.assignment_value()))

    def put_target(self, member_id: str, target: Assignment) -> None:
        self._set_target(member_id, target)
        key = ConsumerGroupTargetAssignmentMemberKey(group_id=self.group.id, member_id=member_id)
        value = ConsumerGroupTargetAssignmentMemberValue(
            topic_partitions=[
                TargetTopicPartition(topic_id=topic, partitions=sorted(numbers))
                for topic, numbers in target.items()
            ]
        )
        self.entries.append(Entry(key, value))

    def put_assigned(self, epoch: int, now_ms: int) -> None:
        key = ConsumerGroupTargetAssignmentMetadataKey(group_id=self.group.id)
        value = ConsumerGroupTargetAssignmentMetadataValue(
            assignment_epoch=epoch, assignment_timestamp=now_ms
        )
        self.entries.append(Entry(key, value))

    def remove(self, member_id: str) -> None:
        """Take a member out, and its target with it."""
        self._set_member(member_id, None)
        self._set_target(member_id, None)
        of = {"group_id": self.group.id, "member_id": member_id}
        self.entries += (
            Entry(ConsumerGroupCurrentMemberAssignmentKey(**of), None),
            Entry(ConsumerGroupTargetAssignmentMemberKey(**of), None),
            Entry(ConsumerGroupMemberMetadataKey(**of), None),
        )

    def replace(self, old: Member, new: Member) -> None:
        """Let a member take the place of another, with its target and its partitions."""
        self.is_whole = True
        target = self.targets.get(old.id, NO_ASSIGNMENT)
        self.remove(old.id)
        self.put_subscription(new)
        self.put_target(new.id, target)
        self.put_current(new)

    def put_regex(self, regex: str, resolved: Resolved) -> None:
        self._set_regex(regex, resolved)
        value = ConsumerGroupRegularExpressionValue(
            topics=sorted(resolved.topics), version=resolved.version, timestamp=resolved.at_ms
        )
        self.entries.append(Entry(self._regex_key(regex), value))

    def drop_regex(self, regex: str) -> None:
        self._set_regex(regex, None)
        self.entries.append(Entry(self._regex_key(regex), None))

    def _regex_key(self, regex: str) -> ConsumerGroupRegularExpressionKey:
        return ConsumerGroupRegularExpressionKey(group_id=self.group.id, regular_expression=regex)

    def _set_regex(self, regex: str, resolved: Resolved | None) -> None:
        if self._regexes is None:
            self._regexes = dict(self.group.regexes)
        if resolved is None:
            self._regexes.pop(regex, None)
        else:
            self._regexes[regex] = resolved

    def bump(self, metadata_hash: int) -> None:
        """Begin a new epoch: the targets are to be computed anew."""
        self.epoch += 1
        self._put_epoch(metadata_hash)

    def _put_epoch(self, metadata_hash: int) -> None:
        key = ConsumerGroupMetadataKey(group_id=self.group.id)
        value = ConsumerGroupMetadataValue(epoch=self.epoch, metadata_hash=metadata_hash)
        self.entries.append(Entry(key, value))

    def write_all(self) -> None:
        """Write down the whole group: it was of another kind before."""
        group = self.group
        self.is_whole = True
        group.metadata_hash = self.metadata_hash()
        self.entries += (self._subscription(member) for member in group.members.values())
        self._put_epoch(group.metadata_hash)
        for member_id, target in group.targets.items():
            self.put_target(member_id, target)
        self.put_assigned(group.assignment_epoch, 0)
        for member in group.members.values():
            self.put_current(member)

    def clean(self) -> None:
        """Take back what Kafka 4.0 wrote and nobody needs any more."""
        if self.group.has_partition_metadata:
            key = ConsumerGroupPartitionMetadataKey(group_id=self.group.id)
            self.entries.append(Entry(key, None))

    # --- what it is about ------------------------------------------------------------------

    def subscribes(self, regex: str) -> bool:
        """Whether any member subscribes to the expression."""
        return any(member.regex == regex for member in self.members.values())

    def wanted_regexes(self) -> set[str]:
        return {member.regex for member in self.members.values() if member.regex}

    def topic_ids(self, member: Member) -> frozenset[TopicId]:
        """Of the topics that a member subscribes to, those that are there."""
        names: Iterable[str] = member.topics
        if member.regex and (resolved := self.regexes.get(member.regex)):
            names = {*names, *resolved.topics}
        topics = self.image.topics
        return frozenset(topics[name].id for name in names if name in topics)

    def metadata_hash(self) -> int:
        """A number that changes when a topic that somebody subscribes to does; 0 for none.

        Kafka's is another function; whoever finds the other's only computes the targets once more.
        """
        names: set[str] = set()
        for topics in {member.topics for member in self.members.values()}:
            names.update(topics)
        for resolved in self.regexes.values():
            names |= resolved.topics
        found = [self.image.topics[name] for name in sorted(names) if name in self.image.topics]
        if not found:
            return 0
        digest = hashlib.blake2b(digest_size=8)
        for topic in found:
            digest.update(b"%s%d %s " % (topic.id, len(topic.partitions), topic.name.encode()))
        return int.from_bytes(digest.digest(), "big", signed=True)

    def assign(self, default: str, now_ms: int) -> None:
        """Compute the targets of this epoch, and write down those that change."""
        known: dict[tuple[tuple[str, ...], str], frozenset[TopicId]] = {}
        subscribers = {}
        for member_id, member in self.members.items():
            subscription = member.topics, member.regex
            topics = known.get(subscription)
            if topics is None:
                topics = known[subscription] = self.topic_ids(member)
            target = self.targets.get(member_id, NO_ASSIGNMENT)
            subscribers[member_id] = Subscriber(topics, target, member.instance_id)
        wanted = set().union(*known.values())
        found = [self.image.by_id[topic] for topic in wanted]
        partitions = {
            topic.id: len(topic.partitions) for topic in sorted(found, key=lambda each: each.name)
        }
        name = preferred_assignor(self.members, default)
        assignor = ASSIGNORS.get(name) or ASSIGNORS[default]
        for member_id, target in assignor(subscribers, partitions).items():
            if target != self.targets.get(member_id):
                self.put_target(member_id, target)
        self.put_assigned(self.epoch, now_ms)
