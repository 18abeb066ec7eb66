"""What groups have committed: by group, topic and partition.

Owns the shape of a committed offset and of what is pending in transactions. `replay` and
`end_transaction` alone change it. Must not know members: `shard.py` asks a group first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.offsets_topic import OffsetCommitKey, OffsetCommitValue
from ottla.core.model import NO_TOPIC_ID

NO_OFFSET = -1
NO_EXPIRY = -1


class Committed(NamedTuple):
    """An offset as it was committed. Times in ms since 1970; `expires_ms` -1: by retention."""

    offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    expires_ms: int
    topic_id: bytes


NOTHING = Committed(NO_OFFSET, -1, "", -1, NO_EXPIRY, NO_TOPIC_ID)
"""What is told of a partition that nothing was committed of (I35: never a zero)."""

Plain: TypeAlias = tuple[int, int, str, int, int, bytes]
"""A Committed as it is kept: what holds nothing but a plain tuple's numbers and texts, the
collector looks at once. A million objects of a class it would look at again and again."""

Topics: TypeAlias = dict[str, dict[int, Plain]]
_Place: TypeAlias = tuple[str, str, int]

_NO_TOPICS: Topics = {}


class Offsets:
    """Committed offsets of all groups of a shard. A group stays, empty, when its last one goes:
    it is known until it is deleted or expires."""

    def __init__(self) -> None:
        self.groups: dict[str, Topics] = {}
        self._pending: dict[int, dict[_Place, Plain | None]] = {}
        """By producer: what its open transaction will have committed."""
        self._pending_count: dict[_Place, int] = {}

    # --- reading ---------------------------------------------------------------------------

    def of_group(self, group: str) -> Topics:
        """What a group has committed; empty for one that is not known. Not to be changed."""
        return self.groups.get(group, _NO_TOPICS)

    def find(self, group: str, topic: str, partition: int) -> Committed | None:
        partitions = self.of_group(group).get(topic)
        plain = None if partitions is None else partitions.get(partition)
        return None if plain is None else Committed(*plain)

    def is_pending(self, group: str, topic: str, partition: int) -> bool:
        """Whether an open transaction may still change it."""
        return (group, topic, partition) in self._pending_count

    def places(self, group: str) -> Iterator[tuple[str, int, Committed]]:
        """Each of a group's: topic, partition and what was committed."""
        for topic, partitions in self.of_group(group).items():
            for partition, plain in partitions.items():
                yield topic, partition, Committed(*plain)

    # --- changing --------------------------------------------------------------------------

    def replay(
        self, key: OffsetCommitKey, value: OffsetCommitValue | None, producer_id: int
    ) -> None:
        committed = None if value is None else _plain(value)
        if producer_id < 0:
            self._set(key.group, key.topic, key.partition, committed)
            return
        place = (key.group, key.topic, key.partition)
        pending = self._pending.setdefault(producer_id, {})
        if place not in pending:
            self._pending_count[place] = self._pending_count.get(place, 0) + 1
        pending[place] = committed

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        for place, value in self._pending.pop(producer_id, {}).items():
            left = self._pending_count[place] - 1
            if left:
                self._pending_count[place] = left
            else:
                del self._pending_count[place]
            if committed:
                self._set(*place, value)

    def forget_group(self, group: str) -> None:
        """The group is gone; what it still has committed stays until its tombstones come."""
        if group in self.groups and not self.groups[group]:
            del self.groups[group]

    def _set(self, group: str, topic: str, partition: int, committed: Plain | None) -> None:
        topics = self.groups.get(group)
        if committed is not None:
            if topics is None:
                topics = self.groups[group] = {}
            partitions = topics.get(topic)
            if partitions is None:
                partitions = topics[topic] = {}
            partitions[partition] = committed
        elif topics is not None and topic in topics:
            topics[topic].pop(partition, None)
            if not topics[topic]:
                del topics[topic]


def _plain(value: OffsetCommitValue) -> Plain:
    return (
        value.offset,
        value.leader_epoch,
        value.metadata,
        value.commit_timestamp,
        value.expire_timestamp,
        value.topic_id,
    )


def tombstone(group: str, topic: str, partition: int) -> Entry:
    """The entry that takes a committed offset back."""
    return Entry(OffsetCommitKey(group=group, topic=topic, partition=partition), None)
