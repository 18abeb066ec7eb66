"""The classic group protocol: joining, syncing, staying and leaving, as decisions.

Owns the rules of JoinGroup, SyncGroup, Heartbeat and LeaveGroup and of their timeouts
(KIP-134, 345, 394, 559, 800, 814). Must not know a log, a loop or a connection: it reads its
groups, changes what of them is soft, and returns Decisions. The rules are those of Apache Kafka
4.3.1; where they differ a comment says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ottla.coordinator.decision import Decision
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.classic_members import ClassicMember, Protocols
from ottla.coordinator.group.classic_rounds import NEW_MEMBER_JOIN_MS, Rounds, refused_join
from ottla.coordinator.group.states import GroupState
from ottla.coordinator.group.turn import Turn
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from ottla.protocol.messages.join_group import JoinGroupRequest, JoinGroupResponse
from ottla.protocol.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from ottla.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse

ID_REQUIRED_SINCE = 4
"""JoinGroup: a new member is given its id first, and joins with that (KIP-394)."""
SKIP_ASSIGNMENT_SINCE = 9
"""JoinGroup: a static leader that is back may be told to keep the assignment (KIP-814)."""
_PREPARING, _COMPLETING, _STABLE = GroupState.PREPARING, GroupState.COMPLETING, GroupState.STABLE


class Node(NamedTuple):
    """What a shard needs of the node that it is on."""

    unique: Callable[[], str]
    """Gives a text that was never given before and that nobody can guess."""
    groups_count: Callable[[], int]
    """Groups of all shards."""
    committed_count: Callable[[], int]
    """Groups of all shards that have committed offsets."""
    committed_bytes: Callable[[], int]
    """What the committed offsets of all shards take."""


class ClassicProtocol:
    """What members may ask of a group."""

    def __init__(self, rounds: Rounds, node: Node) -> None:
        self._rounds = rounds
        self._groups = rounds.groups
        self._settings = rounds.settings
        self._clock = rounds.clock
        self._node = node

    # --- JoinGroup -----------------------------------------------------------------------

    def join(
        self, request: JoinGroupRequest, caller: Caller, former: object = None
    ) -> Decision[JoinGroupResponse]:
        """Become a member, or one of the next generation. Answered once that has begun.

        `former` is a group of another kind that nobody is in: this one takes its place.
        """
        turn: Turn[JoinGroupResponse] = Turn()
        return turn.decision(self._join(turn, request, caller, former))

    def _join(
        self, turn: Turn[Any], request: JoinGroupRequest, caller: Caller, former: object
    ) -> JoinGroupResponse | Pending[JoinGroupResponse]:
        settings, member_id = self._settings, request.member_id
        if not request.group_id:
            return refused_join(ErrorCode.INVALID_GROUP_ID, member_id)
        session_ms = request.session_timeout_ms
        if not settings.session_min_ms <= session_ms <= settings.session_max_ms:
            return refused_join(ErrorCode.INVALID_SESSION_TIMEOUT, member_id)
        group = self._groups.get(request.group_id)
        if group is former:
            if member_id:
                return refused_join(ErrorCode.UNKNOWN_MEMBER_ID, member_id)
            if former is None and self._node.groups_count() >= settings.groups_max:
                return refused_join(ErrorCode.GROUP_MAX_SIZE_REACHED)
            group = ClassicGroup(request.group_id, self._clock)
        elif not isinstance(group, ClassicGroup):
            return refused_join(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if not group.is_live:
            self._rounds.start(turn, group)
        joining = _Joining(request, caller)
        if not self._has_room(group, member_id, joining.bytes_count):
            if group.members.get(member_id) is not None:
                self._rounds.let_go(turn, group, member_id)
                self._rounds.after_departure(turn, group, "a member did not fit in")
            return refused_join(ErrorCode.GROUP_MAX_SIZE_REACHED)
        if not group.supports(request.protocol_type, joining.protocols):
            return refused_join(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id)
        if member_id:
            return self._join_known(turn, group, joining)
        # Only once the entries are in: what takes the former group away is among them.
        turn.do(partial(self._groups.__setitem__, group.id, group))
        return self._join_unknown(turn, group, joining)

    def _has_room(self, group: ClassicGroup, member_id: str, bytes_count: int) -> bool:
        size_max, members = self._settings.size_max, group.members
        member = members.get(member_id)
        if members.bytes_count + bytes_count > self._settings.bytes_max and (
            member is None or bytes_count > member.bytes_count()
        ):
            return False
        if not member_id and len(members.promised) >= size_max:
            return False  # Kafka promises without end
        if group.state is GroupState.EMPTY:
            return True
        if group.state is _PREPARING:
            # Those who have joined count, not those who were in: so the last to come is out.
            waiting = member is not None and member.joining is not None
            return waiting or members.joining_count < size_max
        return member is not None or len(members) < size_max

    def _join_unknown(
        self, turn: Turn[Any], group: ClassicGroup, joining: _Joining
    ) -> JoinGroupResponse | Pending[JoinGroupResponse]:
        instance_id = joining.request.group_instance_id
        client_id = joining.caller.client_id
        new_id = f"{client_id if instance_id is None else instance_id}-{self._node.unique()}"
        if instance_id is not None:
            former = group.members.instances.get(instance_id)
            if former is not None:
                member = group.members.get(former)
                assert member is not None, "an instance is a member"
                return self._replace(turn, group, member, new_id, joining)
        elif joining.caller.version >= ID_REQUIRED_SINCE:
            group.members.promised.add(new_id)
            self._rounds.expect(turn, group.id, new_id, joining.request.session_timeout_ms)
            return refused_join(ErrorCode.MEMBER_ID_REQUIRED, new_id)
        return self._admit(turn, group, new_id, joining)

    def _join_known(
        self, turn: Turn[Any], group: ClassicGroup, joining: _Joining
    ) -> JoinGroupResponse | Pending[JoinGroupResponse]:
        request = joining.request
        member_id, instance_id = request.member_id, request.group_instance_id
        if member_id in group.members.promised and instance_id is None:
            return self._admit(turn, group, member_id, joining)
        if error := group.fence(member_id, instance_id):
            return refused_join(error, member_id)
        member = group.members.get(member_id)
        assert member is not None, "a member that is not fenced is there"
        if group.state is GroupState.EMPTY:
            return refused_join(ErrorCode.UNKNOWN_MEMBER_ID, member_id)
        same = member.protocols == joining.protocols
        leads = group.leader == member_id
        if same and (group.state is _COMPLETING or (group.state is _STABLE and not leads)):
            # It didn't get the answer, or only wants to sync again: nothing has changed.
            return self._rounds.joined(group, member)
        if group.state is _STABLE and same:
            # What it knows of the topics may have changed, so that a leader may always ask.
            reason = f"the leader {member_id} joined again"
        elif same:
            reason = f"{member_id} joined again"
        else:
            reason = f"{member_id} has changed its metadata"
        pending = self._wait(turn, group, member, joining)
        self._rounds.rebalance_or_go_on(turn, group, reason + joining.reason)
        return pending

    def _admit(
        self, turn: Turn[Any], group: ClassicGroup, member_id: str, joining: _Joining
    ) -> Pending[JoinGroupResponse]:
        request = joining.request
        member = ClassicMember(
            member_id,
            request.group_instance_id,
            (joining.caller.client_id, joining.caller.host),
            joining.timeouts_ms,
            joining.protocols,
        )
        member.is_new = True
        pending = member.joining = Pending()
        if group.state is _PREPARING and group.was_empty:
            group.newcomer = True
        group.add(member, request.protocol_type)
        self._rounds.watch(turn, group, member, NEW_MEMBER_JOIN_MS)
        text = f"{member.client_id} at {member.client_host}{joining.reason}"
        self._rounds.note(group, "joined", member_id, text)
        self._rounds.rebalance_or_go_on(turn, group, f"{member_id} is new{joining.reason}")
        return pending

    def _replace(
        self,
        turn: Turn[Any],
        group: ClassicGroup,
        member: ClassicMember,
        new_id: str,
        joining: _Joining,
    ) -> JoinGroupResponse | Pending[JoinGroupResponse]:
        """A static member is back, under a new id; whoever has the old one is fenced (H105)."""
        old_id, old_leader = member.id, group.leader
        fenced = ErrorCode.FENCED_INSTANCE_ID
        if member.joining is not None:
            turn.complete(member.joining, refused_join(fenced, old_id))
            group.members.set_joining(member, None)
        if member.syncing is not None:
            turn.complete(member.syncing, SyncGroupResponse(error_code=fenced))
            member.syncing = None
        turn.cancel("session", group.id, old_id)
        group.rename(member, new_id)
        text = f"{joining.caller.client_id} at {joining.caller.host}, was {old_id}{joining.reason}"
        self._rounds.note(group, "replaced", new_id, text)
        self._rounds.watch(turn, group, member, joining.request.session_timeout_ms)
        group.members.update(member, joining.protocols, joining.timeouts_ms)
        if group.state is _STABLE and group.members.choose() == group.protocol:
            turn.entries.append(group.entry())
            if joining.caller.version >= SKIP_ASSIGNMENT_SINCE:
                reply = self._rounds.joined(group, member)
                reply.skip_assignment = group.leader == new_id
                return reply
            # Naming the old leader keeps the new one from assigning.
            reply = self._rounds.joined(group, member, leader=old_leader)
            reply.members = []
            return reply
        pending: Pending[JoinGroupResponse] = Pending()
        group.members.set_joining(member, pending)
        reason = f"static member {member.instance_id} is back as {new_id}{joining.reason}"
        if group.state is _PREPARING:
            self._rounds.maybe_complete(turn, group)
        else:
            # While the leader assigns it would do so to the old id.
            self._rounds.prepare(turn, group, reason)
        return pending

    def _wait(
        self, turn: Turn[Any], group: ClassicGroup, member: ClassicMember, joining: _Joining
    ) -> Pending[JoinGroupResponse]:
        """Let a member that is in already wait for the next generation."""
        if member.joining is not None:
            # The same request twice. Kafka never answers the first; here nothing waits for ever.
            again = refused_join(ErrorCode.REBALANCE_IN_PROGRESS, member.id)
            turn.complete(member.joining, again)
        group.members.update(member, joining.protocols, joining.timeouts_ms)
        pending: Pending[JoinGroupResponse] = Pending()
        group.members.set_joining(member, pending)
        return pending

    # --- SyncGroup -----------------------------------------------------------------------

    def sync(self, request: SyncGroupRequest, caller: Caller) -> Decision[SyncGroupResponse]:
        """Hand in the assignment, if it leads, and get one's own. Others wait for the leader."""
        turn: Turn[SyncGroupResponse] = Turn()
        return turn.decision(self._sync(turn, request, caller))

    def _sync(
        self, turn: Turn[Any], request: SyncGroupRequest, caller: Caller
    ) -> SyncGroupResponse | Pending[SyncGroupResponse]:
        if error := self._sync_fault(request, caller):
            return SyncGroupResponse(error_code=error)
        group = self._rounds.classic(request.group_id)
        if group is None or group.is_empty:
            return SyncGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID)
        error = group.fence(request.member_id, request.group_instance_id)
        if not error and request.generation_id != group.generation:
            error = ErrorCode.ILLEGAL_GENERATION
        if not error and _differs(group, request.protocol_type, request.protocol_name):
            error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if not error and group.state is _PREPARING:
            error = ErrorCode.REBALANCE_IN_PROGRESS
        if error:
            return SyncGroupResponse(error_code=error)
        member = group.members.get(request.member_id)
        assert member is not None, "a member that is not fenced is there"
        if group.state is _STABLE:
            self._rounds.synced(turn, group, member)
            return _assigned(group, member.assignment)
        if group.leader == member.id:
            return self._assign(turn, group, member, request)
        self._rounds.synced(turn, group, member)
        if member.syncing is not None:
            again = SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)
            turn.complete(member.syncing, again)
        member.syncing = Pending()
        return member.syncing

    def _sync_fault(self, request: SyncGroupRequest, caller: Caller) -> ErrorCode:
        if caller.version >= 5 and (request.protocol_type is None or request.protocol_name is None):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL  # both are mandatory since KIP-559
        return ErrorCode.NONE if request.group_id else ErrorCode.INVALID_GROUP_ID

    def _assign(
        self, turn: Turn[Any], group: ClassicGroup, leader: ClassicMember, request: SyncGroupRequest
    ) -> SyncGroupResponse:
        """Write down the leader's assignment; what it says of strangers counts for nothing."""
        given = {one.member_id: one.assignment for one in request.assignments}
        assignments = {member.id: given.get(member.id, b"") for member in group.members}
        if group.record_bytes(assignments) > self._settings.record_bytes_max:
            error = ErrorCode.UNKNOWN_SERVER_ERROR  # what Kafka says of too large a record
            self._rounds.give_up_assigning(turn, group, error)
            self._rounds.prepare(turn, group, f"the assignment of {leader.id} is too large")
            return SyncGroupResponse(error_code=error)
        turn.entries.append(group.entry(assignments))
        # Effects run only once the record is in the log: else all of this has not happened.
        for member in group.members:
            if member.syncing is not None:
                turn.complete(member.syncing, _assigned(group, assignments[member.id]))
                turn.do(partial(setattr, member, "syncing", None))
                self._rounds.watch(turn, group, member, member.session_timeout_ms)
        self._rounds.watch(turn, group, leader, leader.session_timeout_ms)
        turn.do(partial(self._rounds.stable, group, leader.id))
        if group.members.unsynced <= {leader.id}:
            turn.cancel("sync", group.id)
        return _assigned(group, assignments[leader.id])

    # --- Heartbeat -----------------------------------------------------------------------

    def heartbeat(self, request: HeartbeatRequest) -> Decision[HeartbeatResponse]:
        """Say that a member is alive; REBALANCE_IN_PROGRESS tells it to join again (H103)."""
        return Decision(HeartbeatResponse(error_code=self._heartbeat(request)))

    def _heartbeat(self, request: HeartbeatRequest) -> ErrorCode:
        if not request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        group = self._rounds.classic(request.group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if error := group.fence(request.member_id, request.group_instance_id):
            return error
        if request.generation_id != group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        member = group.members.get(request.member_id)
        assert member is not None, "a member that is not fenced is there"
        group.heard_of(member)
        rebalances = group.state is _PREPARING
        return ErrorCode.REBALANCE_IN_PROGRESS if rebalances else ErrorCode.NONE

    # --- LeaveGroup ----------------------------------------------------------------------

    def leave(self, request: LeaveGroupRequest, caller: Caller) -> Decision[LeaveGroupResponse]:
        """Let members go, one by one; below version 3 only the one that asks."""
        turn: Turn[LeaveGroupResponse] = Turn()
        if not request.group_id:
            return turn.decision(LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID))
        members = request.members
        if caller.version < 3:
            members = [MemberIdentity(member_id=request.member_id)]
        group = self._rounds.classic(request.group_id)
        results = [
            MemberResponse(
                member_id=one.member_id,
                group_instance_id=one.group_instance_id,
                error_code=self._leave(turn, group, one),
            )
            for one in members
        ]
        if group is not None and any(not result.error_code for result in results):
            gone = ", ".join(one.member_id for one in results if not one.error_code)
            self._rounds.after_departure(turn, group, f"{gone} left")
        elif group is not None:
            self._rounds.mend(turn, group)
        reply = LeaveGroupResponse(members=results)
        if caller.version < 3:
            reply.error_code = results[0].error_code
        return turn.decision(reply)

    def _leave(
        self, turn: Turn[Any], group: ClassicGroup | None, identity: MemberIdentity
    ) -> ErrorCode:
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        member_id, instance_id = identity.member_id, identity.group_instance_id
        if not member_id:
            # An admin removes static members without knowing their ids (KIP-345).
            if instance_id is None or instance_id not in group.members.instances:
                return ErrorCode.UNKNOWN_MEMBER_ID
            member_id = group.members.instances[instance_id]
        elif member_id not in group.members.promised and (
            error := group.fence(member_id, instance_id)
        ):
            return error
        self._rounds.note(group, "left", member_id, identity.reason or "")
        self._rounds.let_go(turn, group, member_id)
        return ErrorCode.NONE


class _Joining:
    """A JoinGroup request with what is made of it."""

    __slots__ = ("bytes_count", "caller", "protocols", "reason", "request", "timeouts_ms")

    def __init__(self, request: JoinGroupRequest, caller: Caller) -> None:
        self.request = request
        self.caller = caller
        self.protocols: Protocols = tuple((one.name, one.metadata) for one in request.protocols)
        self.bytes_count = sum(len(name) + len(data) for name, data in self.protocols)
        # Version 0 has none on the wire; Kafka 4.3.1 takes the -1 and expels such a member.
        session_ms, rebalance_ms = request.session_timeout_ms, request.rebalance_timeout_ms
        self.timeouts_ms = (session_ms, session_ms if rebalance_ms < 0 else rebalance_ms)
        self.reason = f" ({request.reason})" if request.reason else ""


def _assigned(group: ClassicGroup, assignment: bytes) -> SyncGroupResponse:
    return SyncGroupResponse(
        protocol_type=group.protocol_type,
        protocol_name=group.protocol,
        assignment=assignment,
    )


def _differs(group: ClassicGroup, protocol_type: str | None, protocol: str | None) -> bool:
    """Whether a SyncGroup names another type or protocol than the group's (KIP-559)."""
    return (protocol_type is not None and protocol_type != group.protocol_type) or (
        protocol is not None and protocol != group.protocol
    )
