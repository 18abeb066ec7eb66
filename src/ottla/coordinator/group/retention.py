"""Retention: what groups have committed and is to be taken back, by time or with its topic.

Owns the looks through a whole shard, each in pieces that schedule the next, so that a large shard
stalls nobody. Must not change any state: what is taken back is entries, as everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from ottla.coordinator.decision import Decision, Entry, Schedule
from ottla.coordinator.group.offsets import NO_EXPIRY, Committed, Offsets, tombstone
from ottla.core import group_options
from ottla.core.model import NO_TOPIC_ID, TopicId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ottla.cluster.image import ClusterImage, TopicImage
    from ottla.core.config import Config
    from ottla.core.ports import Clock

EXPIRE = "expire offsets"
"""The key of the timer that looks for what has expired."""
SWEEP = "sweep offsets of deleted topics"
"""The key of the look for them that follows a load."""
LOOKED_AT_ONCE = 2000
"""Offsets that one decision looks at, or a group's if it has more."""


class Expiring(Protocol):
    """What is asked of a group: see `shard.Group`."""

    def is_subscribed(self, topic: str) -> bool: ...

    def expiry_base_ms(self, committed_ms: int) -> int | None: ...

    def tombstones(self) -> Sequence[Entry] | None: ...


class Retention:
    """Decisions over all groups of a shard. `group_ids` tells those there are."""

    def __init__(
        self,
        offsets: Offsets,
        group: Callable[[str], Expiring | None],
        group_ids: Callable[[], Iterable[str]],
        config: Config,
        image: Callable[[], ClusterImage],
        clock: Clock,
    ) -> None:
        self._offsets = offsets
        self._group = group
        self._group_ids = group_ids
        self._config = config
        self._image = image
        self._clock = clock

    def begin(self) -> list[Schedule]:
        """What a shard schedules when it is loaded."""
        return [self._look_again(), Schedule(SWEEP, 0.0, lambda: self.sweep(self._all()))]

    def _all(self) -> list[str]:
        return list(self._group_ids())

    # --- time (KIP-211) --------------------------------------------------------------------

    def _look_again(self) -> Schedule:
        delay_s = self._config[group_options.OFFSETS_RETENTION_CHECK_MS] / 1000
        return Schedule(EXPIRE, delay_s, lambda: self.expire(self._all()))

    def expire(self, group_ids: list[str]) -> Decision[None]:
        """Take back what retention no longer covers, and groups that have nothing left.

        Looks at some of the groups and schedules itself for the others.
        """
        entries: list[Entry] = []
        looked_at = 0
        while group_ids and looked_at < LOOKED_AT_ONCE:
            group_id = group_ids.pop()
            group = self._group(group_id)
            if group is None:
                continue
            expired, kept = self._expired(group_id, group)
            looked_at += 1 + len(expired) + kept
            entries += expired
            if not kept and not self._offsets.has_pending(group_id):
                entries += group.tombstones() or ()
        again = Schedule(EXPIRE, 0.0, lambda: self.expire(group_ids))
        return Decision(None, entries, [again if group_ids else self._look_again()], atomic=False)

    def _expired(self, group_id: str, group: Expiring) -> tuple[list[Entry], int]:
        """A group's offsets that expire now, and how many it keeps."""
        now_ms = self._clock.wall_ms()
        retention_ms = self._config[group_options.OFFSETS_RETENTION_MINUTES] * 60_000
        expired: list[Entry] = []
        kept = 0
        for topic, partition, committed in self._offsets.places(group_id):
            until_ms = committed.expires_ms
            base_ms = group.expiry_base_ms(committed.committed_ms)
            if base_ms is None or group.is_subscribed(topic):
                kept += 1
                continue
            if until_ms == NO_EXPIRY:
                until_ms = base_ms + retention_ms
            if now_ms < until_ms or self._offsets.is_pending(group_id, topic, partition):
                kept += 1
            else:
                expired.append(tombstone(group_id, topic, partition))
        return expired, kept

    # --- topics that are gone --------------------------------------------------------------

    def forget_topic(self, topic: TopicImage) -> Decision[None]:
        """The topic was deleted: take back what groups have committed of it."""
        entries = [
            tombstone(group_id, topic.name, partition)
            for group_id, topics in self._offsets.groups.items()
            for partition, plain in topics.get(topic.name, {}).items()
            if Committed(*plain).topic_id in (topic.id, NO_TOPIC_ID)
        ]
        entries += [
            tombstone(*place)
            for place in self._offsets.every_pending_place()
            if place[1] == topic.name and self._offsets.find(*place) is None
        ]
        return Decision(None, entries, atomic=False)

    def is_gone(self, committed: Committed) -> bool:
        """Whether it is of a topic that was deleted, and only waits to be taken back."""
        topic_id = TopicId(committed.topic_id)
        return topic_id != NO_TOPIC_ID and topic_id not in self._image().by_id

    def sweep(self, group_ids: list[str]) -> Decision[None]:
        """Take back what a crash has left of topics that were deleted just before it."""
        entries: list[Entry] = []
        looked_at = 0
        while group_ids and looked_at < LOOKED_AT_ONCE:
            group_id = group_ids.pop()
            for topic, partition, committed in self._offsets.places(group_id):
                looked_at += 1
                if self.is_gone(committed):
                    entries.append(tombstone(group_id, topic, partition))
            looked_at += 1
        rest = [Schedule(SWEEP, 0.0, lambda: self.sweep(group_ids))] if group_ids else []
        return Decision(None, entries, rest, atomic=False)
