"""A shard that only counts: what the runtime's tests ask."""

from __future__ import annotations

from ottla.coordinator.decision import Decision, Effect, Entry
from ottla.coordinator.entries.offsets_topic import OffsetCommitKey, OffsetCommitValue


class CountingShard:
    """Holds the last offset of each topic."""

    def __init__(self, partition: int = 0) -> None:
        self.partition = partition
        self.values: dict[str, int] = {}
        self.pending: dict[int, list[Entry]] = {}
        self.ended: list[tuple[int, bool]] = []
        self.effects_when_loaded: list[Effect] = []
        self.loaded_count = 0

    def replay(self, entry: Entry, producer_id: int = -1) -> None:
        if producer_id >= 0:
            self.pending.setdefault(producer_id, []).append(entry)
            return
        key, value = entry
        assert isinstance(key, OffsetCommitKey)
        if value is None:
            self.values.pop(key.topic, None)
        else:
            assert isinstance(value, OffsetCommitValue)
            self.values[key.topic] = value.offset

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        self.ended.append((producer_id, committed))

    def loaded(self) -> Decision[None]:
        self.loaded_count += 1
        return Decision(None, effects=self.effects_when_loaded)


def put(topic: str, number: int) -> Entry:
    """The entry that sets a topic's number."""
    key = OffsetCommitKey(group="g", topic=topic, partition=0)
    return Entry(key, OffsetCommitValue(offset=number, metadata="", commit_timestamp=1))


def add(topic: str, number: int = 1, *effects: Effect):
    """An operation that adds to a topic's number, and replies what it is then."""

    def decide(shard: CountingShard) -> Decision[int]:
        now = shard.values.get(topic, 0) + number
        return Decision(now, [put(topic, now)], effects)

    return decide


def look(topic: str):
    """An operation that replies a topic's number."""
    return lambda shard: Decision(shard.values.get(topic, 0))
