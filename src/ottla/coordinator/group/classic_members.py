"""The members of a classic group, with the counts that keep every question cheap.

Owns who is in, who was promised a place (KIP-394), which instance is which member (KIP-345) and
which protocols all of them know. Must not know the group's state or reply to anybody. With a
thousand members each join asks several of these questions, so none of them walks the members.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ottla.core.pending import Pending
    from ottla.protocol.messages.join_group import JoinGroupResponse
    from ottla.protocol.messages.sync_group import SyncGroupResponse

Protocols: TypeAlias = tuple[tuple[str, bytes], ...]
"""Names with the member's metadata for each, best first. The metadata is opaque: Kafka Connect
speaks the same protocol with bytes of its own."""


class ClassicMember:
    """One member. Its identity, timeouts, metadata and assignment are what the log keeps of it."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "deadline",
        "id",
        "instance_id",
        "is_new",
        "joining",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "syncing",
    )

    def __init__(
        self,
        member_id: str,
        instance_id: str | None,
        client: tuple[str, str],
        timeouts_ms: tuple[int, int],
        protocols: Protocols,
    ) -> None:
        """`client` is its id and host; the timeouts are those of session and rebalance."""
        self.id = member_id
        self.instance_id = instance_id
        self.client_id, self.client_host = client
        self.session_timeout_ms, self.rebalance_timeout_ms = timeouts_ms
        self.protocols = protocols
        self.assignment = b""
        self.is_new = False
        """It has never been told its id by an answered JoinGroup, so it can't send heartbeats."""
        self.joining: Pending[JoinGroupResponse] | None = None
        self.syncing: Pending[SyncGroupResponse] | None = None
        self.deadline = 0.0
        """When it is out unless it was heard of. A heartbeat only moves this; the timer, when it
        goes off, looks here."""

    def metadata(self, protocol: str | None) -> bytes:
        """What it said for a protocol; empty where it said nothing."""
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        return b""

    def bytes_count(self) -> int:
        """What a client can make large."""
        protocols = sum(len(name) + len(metadata) for name, metadata in self.protocols)
        return protocols + len(self.assignment)


class ClassicMembers:
    """All members of one group, those on their way included."""

    __slots__ = (
        "_by_id",
        "_supported",
        "bytes_count",
        "instances",
        "joining_count",
        "promised",
        "unsynced",
    )

    def __init__(self) -> None:
        self._by_id: dict[str, ClassicMember] = {}
        self._supported: dict[str, int] = {}
        self.instances: dict[str, str] = {}
        """Instance id to member id."""
        self.promised: set[str] = set()
        """Ids that were given out with MEMBER_ID_REQUIRED and have not joined yet."""
        self.unsynced: set[str] = set()
        """Members of this generation that have not sent SyncGroup yet."""
        self.joining_count = 0
        self.bytes_count = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ClassicMember]:
        return iter(self._by_id.values())

    def get(self, member_id: str) -> ClassicMember | None:
        return self._by_id.get(member_id)

    def first(self) -> ClassicMember | None:
        """Whoever has been in for longest."""
        return next(iter(self._by_id.values()), None)

    @property
    def all_joined(self) -> bool:
        return self.joining_count == len(self._by_id) and not self.promised

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest that any of them asks for."""
        return max((member.rebalance_timeout_ms for member in self), default=0)

    def add(self, member: ClassicMember) -> None:
        assert member.id not in self._by_id, member.id
        if member.instance_id is not None:
            assert member.instance_id not in self.instances, member.instance_id
            self.instances[member.instance_id] = member.id
        self._by_id[member.id] = member
        self.promised.discard(member.id)
        self._count(member, 1)
        if member.joining is not None:
            self.joining_count += 1

    def remove(self, member_id: str) -> ClassicMember | None:
        """Take a member or a promise away. What it waits for is the caller's to answer first."""
        self.promised.discard(member_id)
        self.unsynced.discard(member_id)
        member = self._by_id.pop(member_id, None)
        if member is None:
            return None
        self._count(member, -1)
        if member.instance_id is not None:
            del self.instances[member.instance_id]
        if member.joining is not None:
            self.joining_count -= 1
        return member

    def rename(self, member: ClassicMember, member_id: str) -> None:
        """Give a static member a new id and its place at the end, as joining anew does."""
        del self._by_id[member.id]
        if member.id in self.unsynced:
            self.unsynced.remove(member.id)
            self.unsynced.add(member_id)
        member.id = member_id
        self._by_id[member_id] = member
        if member.instance_id is not None:
            self.instances[member.instance_id] = member_id

    def update(
        self, member: ClassicMember, protocols: Protocols, timeouts_ms: tuple[int, int]
    ) -> None:
        """Take over what a member said in another JoinGroup."""
        self._count(member, -1)
        member.protocols = protocols
        self._count(member, 1)
        member.session_timeout_ms, member.rebalance_timeout_ms = timeouts_ms

    def assign(self, member: ClassicMember, assignment: bytes) -> None:
        self.bytes_count += len(assignment) - len(member.assignment)
        member.assignment = assignment

    def set_joining(
        self, member: ClassicMember, pending: Pending[JoinGroupResponse] | None
    ) -> None:
        """Let a member wait for the next generation, or wait no longer."""
        self.joining_count += (pending is not None) - (member.joining is not None)
        member.joining = pending

    def support(self, protocols: Protocols) -> bool:
        """Whether all members know at least one of these. True for any where nobody is in."""
        count = len(self._by_id)
        return any(self._supported.get(name, 0) == count for name, _ in protocols)

    def choose(self) -> str:
        """The protocol with the most votes: each member's is the first it has that all know."""
        count = len(self._by_id)
        known = {name for name, members in self._supported.items() if members == count}
        votes: dict[str, int] = {}
        for member in self:
            for name, _ in member.protocols:
                if name in known:
                    votes[name] = votes.get(name, 0) + 1
                    break
        return max(votes, key=lambda name: votes[name], default="")

    def _count(self, member: ClassicMember, step: int) -> None:
        self.bytes_count += step * member.bytes_count()
        # A name twice in one list counts once, or it would pass for one that two members know.
        for name in {name for name, _ in member.protocols}:
            left = self._supported.get(name, 0) + step
            if left:
                self._supported[name] = left
            else:
                del self._supported[name]
