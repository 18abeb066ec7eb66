"""A coordinator of groups without a broker: a runtime over a journal in memory, in simulated time.

Owns what unit and property tests of groups share. Must not know what is right.
"""

from __future__ import annotations

from typing import Any

from ottla.cluster.image import ClusterImage
from ottla.coordinator.decision import Decision
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.classic_protocol import Node
from ottla.coordinator.group.shard import GroupShard
from ottla.coordinator.runtime import Runtime
from ottla.core.options import broker_config
from ottla.core.pending import Pending
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from ottla.protocol.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
)
from ottla.protocol.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from ottla.testing.simloop import SimLoop
from tests.journals import Codec, MemoryJournals

GROUP = "g"
SESSION_S, REBALANCE_S = 6, 10
RANGE = (("range", b"mine"),)


class World:
    """One shard, its journal and its clients' way to it."""

    def __init__(self, **options: str) -> None:
        self.loop = SimLoop()
        self.config = broker_config({name.replace("_", "."): v for name, v in options.items()})
        self.image = ClusterImage("c")
        self.journals = MemoryJournals(1)
        self.journal = self.journals.journals[0]
        self.ids = 0
        self.start()

    def start(self) -> None:
        def shard(number: int) -> GroupShard:
            return GroupShard(number, self.config, lambda: self.image, self.loop, node)

        node = Node(
            self._unique,
            lambda: len(self.shard.groups),
            lambda: len(self.shard.offsets.groups),
            lambda: self.shard.offsets.bytes_count,
        )
        self.runtime: Runtime[GroupShard] = Runtime(
            self.journals, shard, Codec(), self.loop, self.loop
        )
        self.runtime.submit(GROUP, lambda _shard: Decision(None))
        self.loop.run()

    def crash(self) -> None:
        """The node is gone and back, without what was not committed yet."""
        self.loop.forget()
        journal = self.journal
        while journal.end > journal.high_watermark:
            journal.batches.pop()
        journal._committing.clear()
        self.start()

    def _unique(self) -> str:
        self.ids += 1
        return f"{self.ids:04}"

    @property
    def shard(self) -> GroupShard:
        return self.runtime.loaded_shards()[0]

    @property
    def group(self) -> ClassicGroup:
        group = self.shard.groups[GROUP]
        assert isinstance(group, ClassicGroup)
        return group

    @property
    def state(self) -> str:
        return self.group.state.value

    # --- requests --------------------------------------------------------------------------

    def join(
        self,
        member_id: str = "",
        protocols: tuple[tuple[str, bytes], ...] = RANGE,
        version: int = 9,
        client: str = "c",
        **more: Any,
    ) -> Pending[JoinGroupResponse]:
        given: dict[str, Any] = {
            "group_id": GROUP,
            "session_timeout_ms": SESSION_S * 1000,
            "rebalance_timeout_ms": REBALANCE_S * 1000,
            "protocol_type": "consumer",
        }
        request = JoinGroupRequest(
            member_id=member_id,
            protocols=[JoinGroupRequestProtocol(name=n, metadata=data) for n, data in protocols],
            **(given | more),
        )
        caller = Caller(client, "/host", version)
        return self.runtime.submit(GROUP, lambda shard: shard.join_group(request, caller))

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: dict[str, bytes] | None = None,
        version: int = 5,
        **more: Any,
    ) -> Pending[SyncGroupResponse]:
        given: dict[str, Any] = {"protocol_type": "consumer", "protocol_name": "range"}
        request = SyncGroupRequest(
            group_id=GROUP,
            member_id=member_id,
            generation_id=generation,
            assignments=[
                SyncGroupRequestAssignment(member_id=one, assignment=data)
                for one, data in (assignments or {}).items()
            ],
            **(given | more),
        )
        caller = Caller("c", "/host", version)
        return self.runtime.submit(GROUP, lambda shard: shard.sync_group(request, caller))

    def heartbeat(
        self, member_id: str, generation: int, instance: str | None = None
    ) -> Pending[HeartbeatResponse]:
        request = HeartbeatRequest(
            group_id=GROUP,
            member_id=member_id,
            generation_id=generation,
            group_instance_id=instance,
        )
        caller = Caller("c", "/host", 4)
        return self.runtime.submit(GROUP, lambda shard: shard.heartbeat(request, caller))

    def leave(self, *member_ids: str, **more: Any) -> Pending[LeaveGroupResponse]:
        members = [MemberIdentity(member_id=one, **more) for one in member_ids]
        request = LeaveGroupRequest(group_id=GROUP, members=members)
        caller = Caller("c", "/host", 5)
        return self.runtime.submit(GROUP, lambda shard: shard.leave_group(request, caller))

    # --- what most tests begin with ----------------------------------------------------------

    def promised(self, **more: Any) -> str:
        """The id of a member that has not joined yet."""
        return self.join(**more).result().member_id

    def stable(self, count: int = 1, **more: Any) -> list[str]:
        """A stable group with this many members; the first one leads."""
        ids = [self.promised(**more) for _ in range(count)]
        joined = [self.join(one, **more) for one in ids]
        if count > 1:
            joined[0] = self.join(ids[0], **more)
        generation = joined[0].result().generation_id
        given = {one: f"of {one}".encode() for one in ids}
        for one in reversed(ids):
            self.sync(one, generation, given)
        assert self.state == "Stable"
        return ids
