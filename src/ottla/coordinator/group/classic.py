"""ClassicGroup: one group of the classic protocol, between the log and its members.

Owns what is known of the group, the moves of its state, and the way to and from its record in
the log. Must not answer requests: `classic_protocol` does. `adopt` is the only way a record gets
in. Between two records a generation is soft state, lost with the process, as in Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ottla.coordinator.decision import Do, Effect, Entry
from ottla.coordinator.entries.offsets_topic import (
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
)
from ottla.coordinator.group.classic_members import ClassicMember, ClassicMembers, Protocols
from ottla.coordinator.group.states import MOVES, GroupState
from ottla.coordinator.group.timeline import Timeline
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_groups import DescribedGroup, DescribedGroupMember
from ottla.protocol.messages.list_groups import ListedGroup

if TYPE_CHECKING:
    from ottla.coordinator.group.shard import Member as Committer
    from ottla.core.ports import Clock

_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time
_STABLE = GroupState.STABLE
CONSUMER = "consumer"
"""The protocol type of consumers; Kafka Connect's is "connect"."""

_TOPICS_MAX = 100_000


class ClassicGroup:
    """One group. With neither members nor protocol type it is known by its offsets alone."""

    __slots__ = (
        "_clock",
        "_topics",
        "generation",
        "id",
        "is_live",
        "is_stored",
        "leader",
        "members",
        "newcomer",
        "protocol",
        "protocol_type",
        "rounds_due",
        "since_ms",
        "state",
        "timeline",
        "was_empty",
    )

    type_name = "classic"

    def __init__(self, group_id: str, clock: Clock) -> None:
        self.id = group_id
        self._clock = clock
        self.state = GroupState.EMPTY
        self.since_ms = clock.wall_ms()
        """When the state began, by the wall clock; -1 where that is not known."""
        self.was_empty = True
        """Whether the state before this one was EMPTY: then the first rebalance runs."""
        self.newcomer = False
        """Whether somebody new came during the initial delay, which extends it (KIP-134)."""
        self.rounds_due = float("-inf")
        """When, on the monotonic clock, the rounds that it has begun are all due (H108)."""
        self.generation = 0
        self.protocol_type = ""
        self.protocol: str | None = None
        self.leader: str | None = None
        self.members = ClassicMembers()
        self.timeline = Timeline()
        self._topics: tuple[set[str] | None] | None = None
        """What its members subscribe to, once it was asked for in this state."""
        self.is_live = False
        """It takes part: its members have timers. False while the log is still being read."""
        self.is_stored = False
        """The log has a record of it."""

    # --- moves ---------------------------------------------------------------------------

    def move(self, to: GroupState, now_ms: int) -> None:
        assert to in MOVES[self.state], f"{self.id}: {self.state.name} -> {to.name}"
        self.was_empty = self.state is GroupState.EMPTY
        self.state = to
        self.since_ms = now_ms
        self._topics = None

    def add(self, member: ClassicMember, protocol_type: str) -> None:
        """Let a member in. The first one leads and says what kind of group it is."""
        if not len(self.members):
            self.protocol_type = protocol_type
        assert self.protocol_type == protocol_type, self.id
        self.members.add(member)
        if self.leader is None:
            self.leader = member.id

    def remove(self, member_id: str) -> ClassicMember | None:
        """Let a member go. The oldest leads on where it led."""
        member = self.members.remove(member_id)
        if self.leader == member_id:
            oldest = self.members.first()
            self.leader = None if oldest is None else oldest.id
        return member

    def rename(self, member: ClassicMember, member_id: str) -> None:
        """A static member came back under a new id, and leads on if it led (KIP-345)."""
        if self.leader == member.id:
            self.leader = member_id
        self.members.rename(member, member_id)

    def elect(self) -> bool:
        """See that the leader is one of those that have joined; False if nobody has."""
        leader = self.members.get(self.leader or "")
        if leader is None or leader.joining is None:
            joined = next((one for one in self.members if one.joining is not None), None)
            if joined is None:
                return False
            self.leader = joined.id
        return True

    # --- questions -----------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return self.state is GroupState.EMPTY

    @property
    def is_forgettable(self) -> bool:
        """Nobody is in or on the way, and the log knows nothing of it either."""
        return not (self.is_stored or len(self.members) or self.members.promised)

    def supports(self, protocol_type: str, protocols: Protocols) -> bool:
        """Whether somebody with these may join (H104)."""
        if self.state is GroupState.EMPTY:
            return bool(protocol_type and protocols)
        return self.protocol_type == protocol_type and self.members.support(protocols)

    def fence(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """NONE for a member that is who it says; UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID."""
        if instance_id is not None:
            current = self.members.instances.get(instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        if self.members.get(member_id) is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE

    # --- offsets: what the shard asks ----------------------------------------------------

    def check_commit(self, member: Committer, version: int, *, transactional: bool) -> ErrorCode:  # noqa: ARG002  # as the port has it
        """Whether it may commit (I35). Without a generation only where nobody is in."""
        if (
            member.epoch == self.generation
            and self.state is _STABLE
            and member.instance_id is None
            and self.members.get(member.id) is not None
        ):
            return _NO_ERROR  # nearly all, and without what only tells why not
        if self.state is GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if member.epoch < 0 and self.state is GroupState.EMPTY:
            return ErrorCode.NONE
        if member.epoch >= 0 or member.id or member.instance_id is not None:
            if error := self.fence(member.id, member.instance_id):
                return error
            if member.epoch != self.generation:
                return ErrorCode.ILLEGAL_GENERATION
        elif not transactional:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if self.state is GroupState.COMPLETING and not transactional:
            # Member and generation are right, so it knows of the rebalance and is to finish it.
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def committing(self, member: Committer) -> Sequence[Effect]:
        """A commit is as good as a heartbeat."""
        found = self.members.get(member.id)
        return () if found is None else (Do(self.heard_of, found),)

    def heard_of(self, member: ClassicMember) -> None:
        """A member is alive: its session begins anew. The timer finds the new deadline."""
        member.deadline = self._clock.monotonic() + member.session_timeout_ms / 1000

    def check_fetch(self, member_id: str | None, member_epoch: int) -> ErrorCode:  # noqa: ARG002  # as the port has it
        return ErrorCode.NONE

    def check_delete_offsets(self) -> ErrorCode:
        """Consumers say what they read, so that the rest may go; of others nothing is known."""
        if self.is_empty or self.protocol_type == CONSUMER:
            return ErrorCode.NONE
        return ErrorCode.NON_EMPTY_GROUP

    def is_subscribed(self, topic: str) -> bool:
        """Whether it reads a topic, as far as can be told: where not, any consumers may."""
        topics = self.subscribed_topics()
        return self.protocol_type == CONSUMER if topics is None else topic in topics

    def expiry_base_ms(self, committed_ms: int) -> int | None:
        """Retention counts from when the group became empty, or from the commit where its
        members, all told, read something else (KIP-211)."""
        if not self.protocol_type:
            return committed_ms
        if self.is_empty:
            return committed_ms if self.since_ms < 0 else self.since_ms
        knows = self.state is GroupState.STABLE and self.subscribed_topics() is not None
        return committed_ms if knows else None

    def tombstones(self) -> Sequence[Entry] | None:
        """What ends the group, if nobody is in. As in Kafka who was promised a place does not
        count, and is told that it is not known."""
        if not self.is_empty:
            return None
        return (Entry(GroupMetadataKey(group=self.id), None),)

    def subscribed_topics(self) -> set[str] | None:
        """Topics of all members; None where that can't be known (other protocol types)."""
        if self._topics is None:
            self._topics = (self._find_topics(),)
        return self._topics[0]

    def _find_topics(self) -> set[str] | None:
        if self.protocol_type != CONSUMER or (len(self.members) and self.protocol is None):
            return None
        topics: set[str] = set()
        for member in self.members:
            subscribed = topics_of(member.metadata(self.protocol))
            if subscribed is None:
                return None
            topics.update(subscribed)
        return topics

    # --- the log -------------------------------------------------------------------------

    def entry(self, assignments: dict[str, bytes] | None = None) -> Entry:
        """The record of this generation, with these assignments instead of those in force."""
        protocol = self.protocol
        value = GroupMetadataValue(
            protocol_type=self.protocol_type,
            generation=self.generation,
            protocol=protocol,
            leader=self.leader,
            current_state_timestamp=self.since_ms,
            members=[
                MemberMetadata(
                    member_id=member.id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout=member.rebalance_timeout_ms,
                    session_timeout=member.session_timeout_ms,
                    subscription=member.metadata(protocol),
                    assignment=(
                        member.assignment
                        if assignments is None
                        else assignments.get(member.id, b"")
                    ),
                )
                for member in self.members
            ],
        )
        return Entry(GroupMetadataKey(group=self.id), value)

    def record_bytes(self, assignments: dict[str, bytes]) -> int:
        """About how long the record would be, and never longer."""
        size = 200 + 4 * len(self.id)
        for member in self.members:
            texts = (member.id, member.instance_id or "", member.client_id, member.client_host)
            size += 32 + sum(len(text.encode()) for text in texts)
            size += len(member.metadata(self.protocol)) + len(assignments.get(member.id, b""))
        return size

    def emptied_entry(self, now_ms: int) -> Entry:
        """The record of a next generation in which nobody is."""
        value = GroupMetadataValue(
            protocol_type=self.protocol_type,
            generation=self.generation + 1,
            protocol=None,
            leader=None,
            current_state_timestamp=now_ms,
            members=[],
        )
        return Entry(GroupMetadataKey(group=self.id), value)

    def adopt(self, value: GroupMetadataValue) -> None:
        """Make the group what its record says: the only change of what is durable.

        Members that are here already stay the same objects, with what they wait for.
        """
        self.is_stored = True
        self.protocol_type = value.protocol_type
        self.generation = value.generation
        self.protocol = value.protocol
        gone = {member.id for member in self.members}
        for stored in value.members:
            self._adopt_member(stored)
            gone.discard(stored.member_id)
        for member_id in gone:
            self.remove(member_id)
        self.leader = value.leader if value.members else None
        to = GroupState.STABLE if value.members else GroupState.EMPTY
        if self.is_live and to is not self.state:
            self.move(to, value.current_state_timestamp)
        self.state = to
        self.since_ms = value.current_state_timestamp
        self._topics = None

    def _adopt_member(self, stored: MemberMetadata) -> None:
        session_ms, rebalance_ms = stored.session_timeout, stored.rebalance_timeout
        # Version 0 of the record has no rebalance timeout.
        timeouts_ms = (session_ms, session_ms if rebalance_ms < 0 else rebalance_ms)
        protocols = ((self.protocol or "", stored.subscription),)
        member = self.members.get(stored.member_id)
        if member is None:
            if stored.group_instance_id is not None:
                former = self.members.instances.get(stored.group_instance_id)
                if former is not None:
                    self.remove(former)
            member = ClassicMember(
                stored.member_id,
                stored.group_instance_id,
                (stored.client_id, stored.client_host),
                timeouts_ms,
                protocols,
            )
            self.members.add(member)
        elif not self.is_live:
            self.members.update(member, protocols, timeouts_ms)
        self.members.assign(member, stored.assignment)

    # --- what is told of it --------------------------------------------------------------

    def listed(self) -> ListedGroup:
        return ListedGroup(
            group_id=self.id,
            protocol_type=self.protocol_type,
            group_state=self.state.value,
            group_type=self.type_name,
        )

    def described(self) -> DescribedGroup:
        """As DescribeGroups tells it: protocol and metadata only of a stable group."""
        stable = self.state is GroupState.STABLE
        return DescribedGroup(
            group_id=self.id,
            group_state=self.state.value,
            protocol_type=self.protocol_type,
            protocol_data=(self.protocol or "") if stable else "",
            members=[
                DescribedGroupMember(
                    member_id=member.id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    member_metadata=member.metadata(self.protocol) if stable else b"",
                    member_assignment=member.assignment,
                )
                for member in self.members
            ],
        )


def topics_of(subscription: bytes) -> set[str] | None:
    """Topics of a consumer's metadata (ConsumerProtocolSubscription, any version: all begin as
    v0 does); None where it is something else."""
    at, topics = 6, set()
    count = int.from_bytes(subscription[2:6], "big", signed=True)
    if len(subscription) < at or not 0 <= count <= _TOPICS_MAX:
        return None
    for _ in range(count):
        end = at + 2 + int.from_bytes(subscription[at : at + 2], "big")
        if end > len(subscription):
            return None
        try:
            topics.add(subscription[at + 2 : end].decode())
        except UnicodeDecodeError:
            return None
        at = end
    return topics
