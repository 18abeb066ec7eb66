"""Consumer groups without a log or a loop: decisions are carried out on the spot.

Owns the entries in order, as bytes, so that a restart is what loading them makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ottla.cluster.image import ClusterImage, PartitionImage, TopicImage
from ottla.coordinator.decision import Cancel, Complete, Decision, Do, Effect, Follow, Schedule
from ottla.coordinator.entries.offsets_topic import decode_entry, encode_entry
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic_protocol import Node
from ottla.coordinator.group.consumer_group import ConsumerGroup
from ottla.coordinator.group.shard import GroupShard
from ottla.core import options
from ottla.core.config import Config
from ottla.core.model import LeaderEpoch, NodeId, TopicId
from ottla.protocol.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    RequestTopicPartitions,
)

GROUP = "g"
_PARTITION = PartitionImage(NodeId(0), LeaderEpoch(0), (NodeId(0),), (NodeId(0),))


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def wall_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def topic_id(name: str) -> TopicId:
    return TopicId(name.encode().ljust(16, b"\0"))


class World:
    """One shard. Unless `options` say otherwise targets are computed whenever they are behind."""

    def __init__(self, topics: dict[str, int] | None = None, **given: str) -> None:
        self.clock = Clock()
        given = {"group_consumer_assignment_interval_ms": "0", **given}
        self.config = Config(options.ALL, {k.replace("_", "."): v for k, v in given.items()})
        self.image = ClusterImage("c")
        self.log: list[tuple[bytes, bytes | None]] = []
        self.names = count()
        self.set_topics(topics or {})
        self.restart()

    def set_topics(self, topics: dict[str, int]) -> None:
        made = {
            name: TopicImage(name, topic_id(name), (_PARTITION,) * partitions)
            for name, partitions in topics.items()
        }
        self.image = ClusterImage(
            "c",
            topics=made,
            by_id={topic.id: topic for topic in made.values()},
            revision=self.image.revision + 1,
        )

    def restart(self) -> None:
        """The coordinator is gone, and another one loads what is in the log."""
        self.timers: dict[Any, tuple[int, Callable[[], Decision[Any]]]] = {}
        node = Node(
            lambda: f"made-{next(self.names)}",
            lambda: len(self.shard.groups),
            lambda: len(self.shard.offsets.groups),
            lambda: self.shard.offsets.bytes_count,
        )
        self.shard = GroupShard(0, self.config, lambda: self.image, self.clock, node)
        for written in self.log:
            self._replay(*written)
        self.do(self.shard.loaded())

    def _replay(self, key: bytes, value: bytes | None) -> None:
        entry = decode_entry(key, value)
        assert entry is not None
        self.shard.replay(entry)

    def do(self, decision: Decision[Any]) -> Any:
        for entry in decision.entries:
            written = encode_entry(entry)
            self.log.append(written)
            self._replay(*written)
        self._carry_out(decision.effects)
        return decision.reply

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Schedule(key, delay_s, decide):
                    self.timers[key] = (self.clock.ms + int(delay_s * 1000), decide)
                case Cancel(key):
                    self.timers.pop(key, None)
                case Do():
                    effect()
                case Complete(pending, value):
                    pending.complete(value)
                case Follow(tell):
                    self._carry_out(tell())

    def pass_ms(self, ms: int) -> None:
        """Let time go by, timer by timer."""
        until = self.clock.ms + ms
        while due := [(at, str(key), key) for key, (at, _) in self.timers.items() if at <= until]:
            at, _, key = min(due)
            self.clock.ms = max(self.clock.ms, at)
            _, decide = self.timers.pop(key)
            self.do(decide())
        self.clock.ms = until

    @property
    def group(self) -> ConsumerGroup:
        found = self.shard.groups[GROUP]
        assert isinstance(found, ConsumerGroup)
        return found

    def beat(self, member_id: str, epoch: int, **fields: Any) -> ConsumerGroupHeartbeatResponse:
        """One heartbeat, as it is sent; `owned` by topic name."""
        version = fields.pop("version", 1)
        owned = fields.pop("owned", None)
        if owned is not None:
            fields["topic_partitions"] = [
                RequestTopicPartitions(topic_id=topic_id(name), partitions=list(numbers))
                for name, numbers in owned.items()
            ]
        request = ConsumerGroupHeartbeatRequest(
            **{"group_id": GROUP, "member_id": member_id, "member_epoch": epoch, **fields}
        )
        reply = self.do(
            self.shard.consumer.heartbeat(request, Caller("client", "/127.0.0.1", version))
        )
        assert isinstance(reply, ConsumerGroupHeartbeatResponse)
        return reply

    def join(self, member_id: str, *topics: str, **fields: Any) -> ConsumerGroupHeartbeatResponse:
        told = {"rebalance_timeout_ms": 60_000, "owned": {}, **fields}
        if "subscribed_topic_regex" not in told:
            told["subscribed_topic_names"] = list(topics)
        return self.beat(member_id, 0, **told)


def given(response: ConsumerGroupHeartbeatResponse) -> dict[str, list[int]] | None:
    """The assignment in an answer, by topic name; None where there is none."""
    if response.assignment is None:
        return None
    return {
        each.topic_id.rstrip(b"\0").decode(): each.partitions
        for each in response.assignment.topic_partitions
    }
