"""Uniform assignment where members subscribe to different topics.

Owns the balancing. What is free goes to the subscriber with least; then partitions move from the
subscriber of a topic that has most to the one that has least, as long as that makes them more
even. Deterministic. Must not be used where all subscribe alike: `assignors.py` does that faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Final

from ottla.core.model import TopicId

ROUNDS_MAX: Final = 16
"""Kafka's limit: each round goes over all topics, and stops earlier when nothing moves."""


def assign(
    topics_of: Mapping[str, frozenset[TopicId]],
    kept: dict[str, dict[TopicId, set[int]]],
    partitions: Mapping[TopicId, int],
) -> dict[str, Mapping[TopicId, frozenset[int]]]:
    """Targets by member. `kept` is what each has of its own topics; it is used up.

    Members are taken in the order of `topics_of`.
    """
    balancer = _Balancer(topics_of, kept, partitions)
    balancer.hand_out()
    balancer.balance()
    return {
        member: {topic: frozenset(numbers) for topic, numbers in mine.items() if numbers}
        for member, mine in kept.items()
    }


class _Balancer:
    def __init__(
        self,
        topics_of: Mapping[str, frozenset[TopicId]],
        kept: dict[str, dict[TopicId, set[int]]],
        partitions: Mapping[TopicId, int],
    ) -> None:
        self._members = list(topics_of)
        self._kept = kept
        self._partitions = partitions
        self._subscribers: dict[TopicId, list[int]] = {}
        for index, member in enumerate(self._members):
            for topic in topics_of[member]:
                if topic in partitions:
                    self._subscribers.setdefault(topic, []).append(index)
        self._sizes = [sum(map(len, kept[member].values())) for member in self._members]
        # The fewer choices a topic leaves, the earlier it is dealt out.
        self._topics = sorted(self._subscribers, key=self._order)

    def _order(self, topic: TopicId) -> tuple[float, int, TopicId]:
        subscribers = len(self._subscribers[topic])
        return -self._partitions[topic] / subscribers, subscribers, topic

    def hand_out(self) -> None:
        """Give what nobody has to the subscriber that has least."""
        for topic in self._topics:
            taken: set[int] = set()
            for index in self._subscribers[topic]:
                taken |= self._kept[self._members[index]].get(topic, set())
            least = [(self._sizes[index], index) for index in self._subscribers[topic]]
            heapify(least)
            for partition in range(self._partitions[topic]):
                if partition not in taken:
                    _, index = heappop(least)
                    self._give(index, topic, partition)
                    heappush(least, (self._sizes[index], index))

    def balance(self) -> None:
        shared = [topic for topic in self._topics if len(self._subscribers[topic]) > 1]
        for _ in range(ROUNDS_MAX):
            if not sum(self._balance_topic(topic) for topic in shared):
                return

    def _balance_topic(self, topic: TopicId) -> int:
        """How many partitions of the topic have moved."""
        subscribers = self._subscribers[topic]
        sizes = self._sizes
        least = [(sizes[index], index) for index in subscribers]
        most = [
            (-sizes[index], -index)
            for index in subscribers
            if self._kept[self._members[index]].get(topic)
        ]
        heapify(least)
        heapify(most)
        moved = 0
        while most:
            size, index = most[0][0], -most[0][1]
            mine = self._kept[self._members[index]].get(topic)
            if not mine:
                heappop(most)
                continue
            if -size != sizes[index]:  # it has got or given since it was put there
                heappop(most)
                heappush(most, (-sizes[index], -index))
                continue
            while least[0][0] != sizes[least[0][1]]:
                _, stale = heappop(least)
                heappush(least, (sizes[stale], stale))
            to = least[0][1]
            if sizes[index] - sizes[to] <= 1:
                break
            partition = max(mine)
            mine.discard(partition)
            sizes[index] -= 1
            self._give(to, topic, partition)
            moved += 1
        return moved

    def _give(self, index: int, topic: TopicId, partition: int) -> None:
        self._kept[self._members[index]].setdefault(topic, set()).add(partition)
        self._sizes[index] += 1
