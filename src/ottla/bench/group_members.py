"""A large group that settles, in the classic protocol and in KIP-848's, and what its members cost.

Owns the members' programs and when they have settled. Must not rebalance cleverly: a leader gives
each member one partition.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ottla.bench import asking, contenders, pump, usage
from ottla.bench.contenders import Contender, Peer
from ottla.bench.group_crowd import Crowd, Program
from ottla.bench.group_figures import OURS, Figure, spreads
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import consumer_group_heartbeat as cgh
from ottla.protocol.messages import find_coordinator as fc
from ottla.protocol.messages import heartbeat as hb
from ottla.protocol.messages import join_group as jg
from ottla.protocol.messages import sync_group as sg

Say = Callable[[str], None]

BUDGET_CPU_S, BUDGET_KIB, BUDGET_MEMBERS = 2.0, 8.0, 1000
HEARTBEAT_S = 3.0
"""What the Java client and librdkafka have as their default."""
SESSION_MS, REBALANCE_MS = 300_000, 300_000
_SECONDS_MAX = 120.0
_SHARED_CONNECTIONS = 8
_QUIET_S = 0.5
_OPTIONS = (
    "max.connections=100000",
    "max.connections.per.ip=100000",
    "max.connection.creation.rate=1000000",
)


class Gathering:
    """Who has reached which generation with its part; settled when all are in the same."""

    def __init__(self, members_count: int) -> None:
        self._members_count = members_count
        self._at: dict[int, int] = {}
        self._counts: Counter[int] = Counter()

    def reached(self, who: int, generation: int) -> None:
        self.left(who)
        self._at[who] = generation
        self._counts[generation] += 1

    def left(self, who: int) -> None:
        """It has to take part in a rebalance, or has not got its part yet."""
        if (old := self._at.pop(who, None)) is not None:
            self._counts[old] -= 1

    @property
    def settled(self) -> bool:
        return any(count == self._members_count for count in self._counts.values())


def _expect(error_code: int, what: str) -> None:
    if error_code:
        raise pump.LoadFailed(f"{what} was answered with {ErrorCode(error_code).name}")


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def subscription(topic: str) -> bytes:
    """A member's metadata in the consumer protocol, version 0."""
    return struct.pack(">hi", 0, 1) + _string(topic) + struct.pack(">i", -1)


def assignment(topic: str, partition: int) -> bytes:
    """One partition, in the consumer protocol, version 0."""
    head = struct.pack(">hi", 0, 1) + _string(topic)
    return head + struct.pack(">iii", 1, partition, -1)


def join_request(group: str, topic: str) -> jg.JoinGroupRequest:
    return jg.JoinGroupRequest(
        group_id=group,
        session_timeout_ms=SESSION_MS,
        rebalance_timeout_ms=REBALANCE_MS,
        member_id="",
        protocol_type="consumer",
        protocols=[jg.JoinGroupRequestProtocol(name="range", metadata=subscription(topic))],
    )


def sync_request(group: str, topic: str, joined: jg.JoinGroupResponse) -> sg.SyncGroupRequest:
    """With everybody's part, if this is the leader."""
    parts = [
        sg.SyncGroupRequestAssignment(
            member_id=member.member_id, assignment=assignment(topic, place)
        )
        for place, member in enumerate(joined.members)
    ]
    return sg.SyncGroupRequest(
        group_id=group,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        protocol_type="consumer",
        protocol_name=joined.protocol_name,
        assignments=parts,
    )


def classic(group: str, topic: str, who: int, gathering: Gathering) -> Program:
    """JoinGroup, SyncGroup, heartbeats; again whenever the group rebalances."""
    join = join_request(group, topic)
    while True:
        joined: jg.JoinGroupResponse = yield join, 7, jg.JoinGroupResponse
        join.member_id = joined.member_id
        if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            continue
        _expect(joined.error_code, "JoinGroup")
        sync = sync_request(group, topic, joined)
        synced: sg.SyncGroupResponse = yield sync, 5, sg.SyncGroupResponse
        if synced.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
            continue
        _expect(synced.error_code, "SyncGroup")
        gathering.reached(who, joined.generation_id)
        beat = hb.HeartbeatRequest(
            group_id=group, generation_id=joined.generation_id, member_id=joined.member_id
        )
        while True:
            yield HEARTBEAT_S
            beaten: hb.HeartbeatResponse = yield beat, 4, hb.HeartbeatResponse
            if beaten.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
                break
            _expect(beaten.error_code, "Heartbeat")
        gathering.left(who)


def consumer(group: str, topic: str, who: int, gathering: Gathering) -> Program:
    """ConsumerGroupHeartbeat; at once after its part has changed, else when it is due."""
    member_id = f"{group}-{who}"
    request = cgh.ConsumerGroupHeartbeatRequest(
        group_id=group,
        member_id=member_id,
        member_epoch=0,
        rebalance_timeout_ms=REBALANCE_MS,
        subscribed_topic_names=[topic],
        server_assignor="uniform",
        topic_partitions=[],
    )
    owned_count = 0
    while True:
        answer: cgh.ConsumerGroupHeartbeatResponse
        answer = yield request, 1, cgh.ConsumerGroupHeartbeatResponse
        _expect(answer.error_code, "ConsumerGroupHeartbeat")
        request = cgh.ConsumerGroupHeartbeatRequest(
            group_id=group, member_id=member_id, member_epoch=answer.member_epoch
        )
        if answer.assignment is not None:
            owned = answer.assignment.topic_partitions
            owned_count = sum(len(one.partitions) for one in owned)
            request.topic_partitions = [
                cgh.RequestTopicPartitions(topic_id=one.topic_id, partitions=one.partitions)
                for one in owned
            ]
            gathering.left(who)
            continue
        if owned_count == 1:
            gathering.reached(who, answer.member_epoch)
        else:
            gathering.left(who)
        yield answer.heartbeat_interval_ms / 1e3


def later(seconds: float, program: Program) -> Program:
    """The same, beginning after a rest."""
    yield seconds
    yield from program


@dataclass(frozen=True, slots=True)
class Way:
    """A protocol, and over how many seconds the members arrive, evenly."""

    name: str
    program: Callable[[str, str, int, Gathering], Program]
    shared: bool = False
    """Whether its members may share connections: none of its requests is kept waiting."""
    arrival_s: float = 0.0

    def programs(self, group: str, topic: str, gathering: Gathering, count: int) -> list[Program]:
        return [
            later(self.arrival_s * who / count, self.program(group, topic, who, gathering))
            for who in range(count)
        ]


WAYS = (
    Way("classic, at once", classic),
    Way("classic, within 2 s", classic, arrival_s=2.0),
    Way("KIP-848, at once", consumer, shared=True),
    Way("KIP-848, within 2 s", consumer, shared=True, arrival_s=2.0),
)


@dataclass(frozen=True, slots=True)
class Settled:
    """What a group cost until it had settled; KiB for each member is the process's growth."""

    cpu_s: float | None
    wall_s: float
    member_kib: float | None


def settle(broker: Contender, way: Way, members_count: int) -> Settled:
    """One group. Raises LoadFailed, OSError, Unmeasurable."""
    # What a classic leader hands out is opaque to a broker: one partition is enough there.
    with asking.new_topic(broker.address, members_count if way.shared else 1) as topic:
        asking.until_ready(broker.address, topic, 1)
        connections_count = _SHARED_CONNECTIONS if way.shared else members_count
        crowd = Crowd(broker.address, min(connections_count, members_count))
        with contextlib.closing(crowd):
            group = f"group-{topic}"
            find = fc.FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
            crowd.ask_all((find, 4, fc.FindCoordinatorResponse))
            time.sleep(_QUIET_S)
            gathering = Gathering(members_count)
            programs = way.programs(group, topic, gathering, members_count)
            pid = broker.pid
            cpu, memory = (usage.cpu(pid), usage.resident_bytes(pid)) if pid else (usage.Cpu(), 0)
            wall_s = crowd.run(programs, lambda: gathering.settled, _SECONDS_MAX)
            if pid is None:
                return Settled(None, wall_s, None)
            cpu_s = (usage.cpu(pid) - cpu).total
            time.sleep(_QUIET_S)
            grown = usage.resident_bytes(pid) - memory
            return Settled(cpu_s, wall_s, grown / 1024 / members_count)


def measure(members_count: int, peers: Sequence[Peer], say: Say) -> list[Figure]:
    """Each protocol in a broker of its own, then in each peer. Failures are figures, too."""
    figures: list[Figure] = []
    for way in WAYS:
        found: dict[str, Settled] = {}
        say(f"groups: {members_count:,} members, {way.name}")
        failed = ""
        with (
            tempfile.TemporaryDirectory(prefix="ottla-groups-") as folder,
            contenders.own_broker(f"{folder}/data", _OPTIONS) as running,
        ):
            try:
                ours = Contender(OURS, running.address, running.pid)
                found[OURS] = settle(ours, way, members_count)
            except (pump.LoadFailed, OSError) as failure:
                failed = str(failure)
        for peer in peers:
            say(f"groups: {members_count:,} members, {way.name}, {peer.name}")
            # Its failure leaves a dash: what ottla needs is told all the same.
            with contextlib.suppress(pump.LoadFailed, OSError):
                found[peer.name] = settle(peer.contender(), way, members_count)
        figures += _figures(way, members_count, found, failed)
    return figures


def _figures(
    way: Way, members_count: int, found: Mapping[str, Settled], failed: str
) -> list[Figure]:
    whole = members_count == BUDGET_MEMBERS
    cpu = {who: [one.cpu_s] for who, one in found.items() if one.cpu_s is not None}
    wall = {who: [one.wall_s] for who, one in found.items()}
    ours = found.get(OURS)
    memory = {OURS: [ours.member_kib] if ours and ours.member_kib is not None else []}
    name = f"{members_count:,} members settle, {way.name}"
    budget = BUDGET_CPU_S if whole else None
    # Of a few, what the first of its kind loads and compiles weighs more than the members.
    member_budget = BUDGET_KIB if whole else None
    return [
        Figure(f"{name}: CPU", "s", spreads(cpu), budget, failed=failed),
        Figure(f"{name}: wall", "s", spreads(wall)),
        Figure(f"idle member, {way.name}", "KiB", spreads(memory), member_budget),
    ]
