"""What groups have committed: by group, topic and partition.

Owns the shape of a committed offset and of what is pending in transactions. `replay` and
`end_transaction` alone change it. Must not know members: `shard.py` asks a group first.

Of two commits of one place the one that stands later in the log counts, and not the one whose
transaction ends later: a commit without a transaction may overtake one that is pending.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple, TypeAlias

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.offsets_topic import (
    BriefCommit,
    CommitPlace,
    OffsetCommitKey,
    OffsetCommitValue,
)
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


PLACE_BYTES = 200
"""About what a committed offset takes in memory, without the text beside it."""

NOTHING = Committed(NO_OFFSET, -1, "", -1, NO_EXPIRY, NO_TOPIC_ID)
"""What is told of a partition that nothing was committed of (I35: never a zero)."""

Plain: TypeAlias = BriefCommit
"""A Committed as it is kept: what holds nothing but a plain tuple's numbers and texts, the
collector looks at once. A million objects of a class it would look at again and again."""

Topics: TypeAlias = dict[str, dict[int, Plain]]
_Place: TypeAlias = tuple[str, str, int]

_NO_TOPICS: Topics = {}


class _Unstable:
    """A place that open transactions may still change."""

    __slots__ = ("counts_since", "producers")

    def __init__(self) -> None:
        self.producers: set[int] = set()
        self.counts_since = -1
        """The turn of the commit that counts now: what is pending from before it never will."""


class Offsets:
    """Committed offsets of all groups of a shard. A group stays, empty, when its last one goes:
    it is known until it is deleted or expires."""

    def __init__(self) -> None:
        self.groups: dict[str, Topics] = {}
        self._pending: dict[int, dict[_Place, tuple[int, Plain]]] = {}
        """By producer: what its open transaction will have committed, and in which turn."""
        self._unstable: dict[str, dict[tuple[str, int], _Unstable]] = {}
        """By group, what is pending; a group without is not in it."""
        self._turns = count()
        self.bytes_count = 0
        """What all that is committed and pending takes, in memory,"""
        self._bytes: dict[str, int] = {}
        """and what of it is each group's."""

    # --- how much it is --------------------------------------------------------------------

    def bytes_of(self, group: str) -> int:
        """What a group's offsets take, those included that are pending."""
        return self._bytes.get(group, 0)

    def growth(
        self, group: str, topic: str, partition: int, metadata: str, producer_id: int = -1
    ) -> int:
        """How much more a commit would make it; negative for less. What a producer commits in
        its transaction stands beside what counts until then."""
        if producer_id < 0:
            partitions = self.of_group(group).get(topic)
            now = None if partitions is None else partitions.get(partition)
        else:
            _, now = self._pending.get(producer_id, {}).get((group, topic, partition), (0, None))
        return _bytes(metadata) - (0 if now is None else _bytes(now[2]))

    def _grow(self, group: str, bytes_count: int) -> None:
        self.bytes_count += bytes_count
        left = self._bytes.get(group, 0) + bytes_count
        if left:
            self._bytes[group] = left
        else:
            self._bytes.pop(group, None)

    # --- reading ---------------------------------------------------------------------------

    def of_group(self, group: str) -> Topics:
        """What a group has committed; empty for one that is not known. Not to be changed."""
        return self.groups.get(group, _NO_TOPICS)

    def find(self, group: str, topic: str, partition: int) -> Committed | None:
        partitions = self.of_group(group).get(topic)
        plain = None if partitions is None else partitions.get(partition)
        return None if plain is None else Committed(*plain)

    def has(self, place: CommitPlace) -> bool:
        """Whether something is committed there."""
        topics = self.groups.get(place.group)
        return topics is not None and place.partition in topics.get(place.topic, ())

    def is_pending(self, group: str, topic: str, partition: int) -> bool:
        """Whether an open transaction may still change it."""
        places = self._unstable.get(group)
        return places is not None and (topic, partition) in places

    def has_pending(self, group: str) -> bool:
        """Whether an open transaction may still change any of a group's."""
        return group in self._unstable

    def pending_places(self, group: str) -> Iterator[tuple[str, int]]:
        """Each of a group's that an open transaction may still change: topic and partition."""
        yield from self._unstable.get(group, ())

    def every_pending_place(self) -> Iterator[tuple[str, str, int]]:
        """Group, topic and partition of all that open transactions may still change."""
        for group, places in self._unstable.items():
            for topic, partition in places:
                yield group, topic, partition

    def places(self, group: str) -> Iterator[tuple[str, int, Committed]]:
        """Each of a group's: topic, partition and what was committed."""
        for topic, partitions in self.of_group(group).items():
            for partition, plain in partitions.items():
                yield topic, partition, Committed(*plain)

    # --- changing --------------------------------------------------------------------------

    def replay(
        self, key: OffsetCommitKey, value: OffsetCommitValue | None, producer_id: int
    ) -> None:
        place = key.group, key.topic, key.partition
        if value is None:
            self._set(*place, None)
            self._drop_pending(place)
        elif producer_id < 0:
            self._set(*place, _plain(value))
            self._supersede(place)
        else:
            # The group is known from now on, even if the transaction is aborted: as in Kafka.
            self.groups.setdefault(key.group, {})
            self._add_pending(place, _plain(value), producer_id)

    def replay_again(self, place: CommitPlace, committed: Plain) -> None:
        """As `replay`, of a place that has a commit already, by no producer and without a text."""
        partitions = self.groups[place.group][place.topic]
        if partitions[place.partition][2]:
            self._set(place.group, place.topic, place.partition, committed)
        else:
            partitions[place.partition] = committed
        if self._unstable:
            self._supersede((place.group, place.topic, place.partition))

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        for place, (turn, value) in self._pending.pop(producer_id, {}).items():
            group, topic, partition = place
            self._grow(group, -_bytes(value[2]))
            unstable = self._unstable[group][topic, partition]
            unstable.producers.discard(producer_id)
            if committed and turn > unstable.counts_since:
                unstable.counts_since = turn
                self._set(*place, value)
            if not unstable.producers:
                self._stable(place)

    def _add_pending(self, place: _Place, value: Plain, producer_id: int) -> None:
        group, topic, partition = place
        places = self._unstable.get(group)
        if places is None:
            places = self._unstable[group] = {}
        unstable = places.get((topic, partition))
        if unstable is None:
            unstable = places[topic, partition] = _Unstable()
        unstable.producers.add(producer_id)
        pending = self._pending.setdefault(producer_id, {})
        former = pending.get(place)
        self._grow(group, _bytes(value[2]) - (0 if former is None else _bytes(former[1][2])))
        pending[place] = next(self._turns), value

    def _supersede(self, place: _Place) -> None:
        """A commit without a transaction counts at once, and more than what is pending."""
        places = self._unstable.get(place[0])
        unstable = None if places is None else places.get(place[1:])
        if unstable is not None:
            unstable.counts_since = next(self._turns)

    def _drop_pending(self, place: _Place) -> None:
        """The place was taken back, and with it what is pending there."""
        places = self._unstable.get(place[0])
        unstable = None if places is None else places.get(place[1:])
        if unstable is not None:
            for producer_id in unstable.producers:
                _, value = self._pending[producer_id].pop(place)
                self._grow(place[0], -_bytes(value[2]))
            self._stable(place)

    def _stable(self, place: _Place) -> None:
        group, topic, partition = place
        places = self._unstable[group]
        del places[topic, partition]
        if not places:
            del self._unstable[group]

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
            former = partitions.get(partition)
            partitions[partition] = committed
            # Most commits change neither, and there are thousands a second.
            if former is None or former[2] != committed[2]:
                less = 0 if former is None else _bytes(former[2])
                self._grow(group, _bytes(committed[2]) - less)
        elif topics is not None and topic in topics:
            former = topics[topic].pop(partition, None)
            if former is not None:
                self._grow(group, -_bytes(former[2]))
            if not topics[topic]:
                del topics[topic]


def _bytes(metadata: str) -> int:
    """About what an offset takes with this text beside it."""
    return PLACE_BYTES + len(metadata) * (1 if metadata.isascii() else 4)


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
