"""The assignors of consumer groups: who shall own which partitions (KIP-848).

Owns `uniform` and `range`, as Apache Kafka 4.3.1 has them: uniform balances all partitions over
all members and moves as few as it can; range gives each member the same stretch of every topic.
Pure and deterministic: members in the order of their ids, topics in the order they are given.
Must not know groups, epochs or who owns what right now: it gives the target, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from ottla.coordinator.group import uneven
from ottla.core.model import TopicId

Assignment: TypeAlias = Mapping[TopicId, frozenset[int]]
"""Partitions by topic; no topic without a partition. Never change one: it is shared."""

Partitions: TypeAlias = Mapping[TopicId, int]
"""How many partitions each topic has that is there."""

NO_ASSIGNMENT: Final[Assignment] = {}


class Subscriber(NamedTuple):
    """A member, as assignors see it. `topics` are there; `target` is what it was given last."""

    topics: frozenset[TopicId]
    target: Assignment = NO_ASSIGNMENT
    instance_id: str | None = None


Assignor: TypeAlias = Callable[[Mapping[str, Subscriber], Partitions], dict[str, Assignment]]
"""Subscribers by member id to targets: one for each of them."""


def uniform(subscribers: Mapping[str, Subscriber], partitions: Partitions) -> dict[str, Assignment]:
    """Each member as many partitions as any other, give or take one; what it has it keeps.

    Where members subscribe to different topics, as even as their topics allow.
    """
    members = sorted(subscribers)
    if _all_alike(subscribers):
        topics = subscribers[members[0]].topics if members else frozenset()
        return _Even(members, subscribers, _only(partitions, topics)).assign()
    return uneven.assign(
        {member: subscribers[member].topics for member in members},
        {member: _still_there(subscribers[member], partitions) for member in members},
        partitions,
    )


def range_(subscribers: Mapping[str, Subscriber], partitions: Partitions) -> dict[str, Assignment]:
    """Of each topic a stretch in the order of the members, those with an instance id first.

    Topics with as many partitions and the same subscribers are cut at the same places.
    """
    members = sorted(subscribers, key=lambda member: _range_order(member, subscribers[member]))
    targets: dict[str, dict[TopicId, frozenset[int]]] = {member: {} for member in members}
    for topic, count in partitions.items():
        takers = [member for member in members if topic in subscribers[member].topics]
        if not takers:
            continue
        quota, extra = divmod(count, len(takers))
        start = 0
        for index, member in enumerate(takers):
            end = start + quota + (index < extra)
            if end > start:
                targets[member][topic] = frozenset(range(start, end))
            start = end
    return dict(targets)


ASSIGNORS: Final[dict[str, Assignor]] = {"uniform": uniform, "range": range_}


def _range_order(member: str, subscriber: Subscriber) -> tuple[bool, str]:
    instance = subscriber.instance_id
    return (instance is None, member if instance is None else instance)


def _all_alike(subscribers: Mapping[str, Subscriber]) -> bool:
    first: frozenset[TopicId] | None = None
    for subscriber in subscribers.values():
        if first is None:
            first = subscriber.topics
        elif subscriber.topics is not first and subscriber.topics != first:
            return False
    return True


def _only(partitions: Partitions, topics: frozenset[TopicId]) -> Partitions:
    return {topic: count for topic, count in partitions.items() if topic in topics}


def _still_there(subscriber: Subscriber, partitions: Partitions) -> dict[TopicId, set[int]]:
    """What a member has and may keep."""
    kept = {}
    for topic, owned in subscriber.target.items():
        if topic in subscriber.topics:
            of_topic = {partition for partition in owned if partition < partitions.get(topic, 0)}
            if of_topic:
                kept[topic] = of_topic
    return kept


class _Even:
    """Uniform where all members subscribe to the same topics. Used once.

    Each member may have `quota` partitions, and `extra` members one more. In turn, each keeps
    what it has up to that; what is left over goes to those below, in order.
    """

    def __init__(
        self,
        members: list[str],
        subscribers: Mapping[str, Subscriber],
        partitions: Partitions,
    ) -> None:
        self._members = members
        self._subscribers = subscribers
        self._partitions = partitions

    def assign(self) -> dict[str, Assignment]:
        if not self._members:
            return {}
        total = sum(self._partitions.values())
        quota, extra = divmod(total, len(self._members))
        kept: dict[str, dict[TopicId, set[int]]] = {}
        room: list[tuple[str, int]] = []
        owned: set[tuple[TopicId, int]] = set()
        for index, member in enumerate(self._members):
            most = quota + (extra > 0)
            mine = self._keep(member, most, owned)
            kept[member] = mine
            left = most - sum(map(len, mine.values()))
            takes_extra = extra > 0
            if left > 0 and takes_extra and len(self._members) - index > extra:
                # Somebody behind may have it already: only the last ones must take it.
                left -= 1
                takes_extra = False
            extra -= takes_extra
            if left > 0:
                room.append((member, left))
        self._hand_out(kept, room, owned)
        return {
            member: {topic: frozenset(numbers) for topic, numbers in mine.items()}
            for member, mine in kept.items()
        }

    def _keep(
        self, member: str, most: int, owned: set[tuple[TopicId, int]]
    ) -> dict[TopicId, set[int]]:
        kept: dict[TopicId, set[int]] = {}
        for topic, numbers in self._subscribers[member].target.items():
            count = self._partitions.get(topic, 0)
            for partition in sorted(numbers):
                if most and partition < count and (topic, partition) not in owned:
                    kept.setdefault(topic, set()).add(partition)
                    owned.add((topic, partition))
                    most -= 1
        return kept

    def _hand_out(
        self,
        kept: dict[str, dict[TopicId, set[int]]],
        room: list[tuple[str, int]],
        owned: set[tuple[TopicId, int]],
    ) -> None:
        free = iter(
            (topic, partition)
            for topic, count in self._partitions.items()
            for partition in range(count)
            if (topic, partition) not in owned
        )
        for member, left in room:
            for _ in range(left):
                topic, partition = next(free)
                kept[member].setdefault(topic, set()).add(partition)
        assert next(free, None) is None, "the quotas add up to all partitions"
