"""Rounds: how a classic group gets from one generation to the next.

Owns the join phase, the timeouts of joining, syncing and sessions, and what becomes of members
that go. Must not read a request: `classic_protocol` does, and calls this. As everywhere in these
machines, what is soft changes in place, and a record only by being replayed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.states import GroupState
from ottla.coordinator.group.timeline import counted
from ottla.coordinator.group.turn import Turn
from ottla.core import group_options, topic_options
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from ottla.protocol.messages.sync_group import SyncGroupResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.coordinator.decision import Decision
    from ottla.coordinator.group.classic_members import ClassicMember
    from ottla.core.config import Config
    from ottla.core.ports import Clock

NEW_MEMBER_JOIN_MS = 300_000
"""How long somebody new may wait for a generation. It has no id to send heartbeats with, and
whoever gave up and asks again is one more new member; so those must go at some time."""

_MINUTE_S = 60.0
_PREPARING, _COMPLETING, _STABLE = GroupState.PREPARING, GroupState.COMPLETING, GroupState.STABLE


_BATCH_OVERHEAD = 61 + 64


class Settings(Value):
    """What the classic protocol is told by options; times in milliseconds."""

    session_min_ms: int
    session_max_ms: int
    initial_delay_ms: int
    rebalances_max: int
    """Within a minute, of one group."""
    size_max: int
    groups_max: int
    bytes_max: int
    record_bytes_max: int


def classic_settings(config: Config) -> Settings:
    return Settings(
        config[group_options.GROUP_SESSION_MS_MIN],
        config[group_options.GROUP_SESSION_MS_MAX],
        config[group_options.GROUP_INITIAL_DELAY_MS],
        config[group_options.GROUP_REBALANCES_MAX],
        config[group_options.GROUP_MAX_SIZE],
        config[group_options.GROUPS_MAX],
        config[group_options.GROUP_BYTES_MAX],
        config[topic_options.MAX_MESSAGE_BYTES] - _BATCH_OVERHEAD,
    )


class Rounds:
    """The classic groups among a shard's groups, and the rounds that they make."""

    def __init__(
        self,
        groups: MutableMapping[str, Any],
        settings: Settings,
        clock: Clock,
        has_offsets: Callable[[str], bool],
    ) -> None:
        self.groups = groups
        self.settings = settings
        self.clock = clock
        self._has_offsets = has_offsets

    def classic(self, group_id: str) -> ClassicGroup | None:
        """The group, if it is there and of the classic protocol."""
        group = self.groups.get(group_id)
        return group if isinstance(group, ClassicGroup) else None

    # --- the join phase ------------------------------------------------------------------

    def rebalance_or_go_on(self, turn: Turn[Any], group: ClassicGroup, reason: str) -> None:
        if group.state is _PREPARING:
            self.maybe_complete(turn, group)
        else:
            self.prepare(turn, group, reason)

    def prepare(self, turn: Turn[Any], group: ClassicGroup, reason: str) -> None:
        """Begin a rebalance: all members are to join again."""
        if group.state is _COMPLETING:
            self.give_up_assigning(turn, group)
        group.members.unsynced.clear()
        turn.cancel("sync", group.id)
        first = group.is_empty
        held_ms = self._count_round(group)
        if held_ms:
            reason += f"; after many others, so it takes {held_ms} ms at least"
        self._move(group, _PREPARING, reason)
        if not first:
            if not self.maybe_complete(turn, group):
                timeout_ms = group.members.rebalance_timeout_ms
                turn.after(("join", group.id), timeout_ms, partial(self.join_timed_out, group.id))
            return
        delay_ms = max(self.settings.initial_delay_ms, held_ms)
        if delay_ms == 0:
            self.complete(turn, group)
            return
        group.newcomer = False
        left_ms = max(group.members.rebalance_timeout_ms - delay_ms, 0)
        again = partial(self.initial_delay_passed, group.id, delay_ms, left_ms)
        turn.after(("join", group.id), delay_ms, again)

    def _count_round(self, group: ClassicGroup) -> int:
        """How long in ms the round that begins now must take, for there not to be too many (H108).

        A minute's worth may come at once, after that one at a time. That of nobody costs nobody
        anything, and is what those who come and go leave behind.
        """
        if not len(group.members):
            return 0
        now = self.clock.monotonic()
        earliest = now - _MINUTE_S
        group.rounds_due = (
            max(group.rounds_due, earliest) + _MINUTE_S / self.settings.rebalances_max
        )
        return max(0, ceil((group.rounds_due - now) * 1000))

    def _is_held(self, turn: Turn[Any], group: ClassicGroup) -> bool:
        """Whether the round must go on, though all who are left have joined."""
        left_s = group.rounds_due - self.clock.monotonic()
        if left_s <= 0 or not len(group.members):
            return False
        turn.after(("hold", group.id), left_s * 1000, partial(self._hold_passed, group.id))
        return True

    def _hold_passed(self, group_id: str) -> Decision[ErrorCode]:
        turn: Turn[ErrorCode] = Turn()
        group = self.classic(group_id)
        if group is not None:
            self.maybe_complete(turn, group)
        return turn.decision(ErrorCode.NONE)

    def initial_delay_passed(
        self, group_id: str, delay_ms: int, left_ms: int
    ) -> Decision[ErrorCode]:
        """Go on, or wait once more if somebody came meanwhile (KIP-134)."""
        turn: Turn[ErrorCode] = Turn()
        group = self.classic(group_id)
        if group is not None and group.state is _PREPARING:
            if group.newcomer and left_ms:
                group.newcomer = False
                next_ms = min(self.settings.initial_delay_ms, left_ms)
                then_ms = max(left_ms - delay_ms, 0)
                again = partial(self.initial_delay_passed, group_id, next_ms, then_ms)
                turn.after(("join", group_id), next_ms, again)
            else:
                self.complete(turn, group)
        return turn.decision(ErrorCode.NONE)

    def join_timed_out(self, group_id: str) -> Decision[ErrorCode]:
        """Go on without those who have not joined."""
        turn: Turn[ErrorCode] = Turn()
        group = self.classic(group_id)
        if group is not None and group.state is _PREPARING:
            self.complete(turn, group)
        return turn.decision(ErrorCode.NONE)

    def maybe_complete(self, turn: Turn[Any], group: ClassicGroup) -> bool:
        """Go on if everybody has joined and the initial delay, if it runs, does not matter."""
        if group.state is not _PREPARING or group.was_empty or not group.members.all_joined:
            return False
        if self._is_held(turn, group):
            return False
        self.complete(turn, group)
        return True

    def complete(self, turn: Turn[Any], group: ClassicGroup) -> None:
        """End the join phase: the next generation is of those who have joined."""
        turn.cancel("join", group.id)
        turn.cancel("hold", group.id)
        for member in [one for one in group.members if one.joining is None]:
            # Static members are given the time of another phase to come back (KIP-345).
            if member.instance_id is None:
                self.note(group, "expired", member.id, "did not join in time")
                self.let_go(turn, group, member.id)
        if not len(group.members):
            turn.entries.append(group.emptied_entry(self.clock.wall_ms()))
            turn.do(partial(self._phase, group, "nobody is left"))
            return
        if not group.elect():
            timeout_ms = group.members.rebalance_timeout_ms
            turn.after(("join", group.id), timeout_ms, partial(self.join_timed_out, group.id))
            return
        group.generation += 1
        group.protocol = group.members.choose()
        size = counted(len(group.members))
        self._move(group, _COMPLETING, f"{size}, led by {group.leader}: {group.protocol}")
        group.members.unsynced = {member.id for member in group.members}
        for member in group.members:
            if member.joining is not None:
                turn.complete(member.joining, self.joined(group, member))
                group.members.set_joining(member, None)
            member.is_new = False
            self.watch(turn, group, member, member.session_timeout_ms)
        late = partial(self.sync_timed_out, group.id, group.generation)
        turn.after(("sync", group.id), group.members.rebalance_timeout_ms, late)

    # --- the sync phase ------------------------------------------------------------------

    def stable(self, group: ClassicGroup, leader_id: str) -> None:
        group.members.unsynced.discard(leader_id)
        self._phase(group, f"assigned by {leader_id}")

    def synced(self, turn: Turn[Any], group: ClassicGroup, member: ClassicMember) -> None:
        unsynced = group.members.unsynced
        unsynced.discard(member.id)
        if not unsynced:
            turn.cancel("sync", group.id)

    def give_up_assigning(
        self,
        turn: Turn[Any],
        group: ClassicGroup,
        error: ErrorCode = ErrorCode.REBALANCE_IN_PROGRESS,
    ) -> None:
        """Send those who wait for an assignment back to join."""
        for member in group.members:
            group.members.assign(member, b"")
            if member.syncing is not None:
                turn.complete(member.syncing, SyncGroupResponse(error_code=error))
                member.syncing = None
                self.watch(turn, group, member, member.session_timeout_ms)

    def sync_timed_out(self, group_id: str, generation: int) -> Decision[ErrorCode]:
        """Rebalance without those who joined and then never asked for their assignment."""
        turn: Turn[ErrorCode] = Turn()
        group = self.classic(group_id)
        if group is None or generation != group.generation:
            return turn.decision(ErrorCode.NONE)
        late = sorted(group.members.unsynced)
        if late and group.state in (_COMPLETING, _STABLE):
            for member_id in late:
                self.note(group, "expired", member_id, "did not sync in time")
                self.let_go(turn, group, member_id)
            self.prepare(turn, group, f"{counted(len(late))} did not sync in time")
        else:
            self.mend(turn, group)
        return turn.decision(ErrorCode.NONE)

    # --- sessions ------------------------------------------------------------------------

    def watch(
        self, turn: Turn[Any], group: ClassicGroup, member: ClassicMember, timeout_ms: int
    ) -> None:
        """Give a member a new deadline, and a timer for it."""
        member.deadline = self.clock.monotonic() + timeout_ms / 1000
        self.expect(turn, group.id, member.id, timeout_ms)

    def expect(self, turn: Turn[Any], group_id: str, member_id: str, timeout_ms: float) -> None:
        late = partial(self.session_timed_out, group_id, member_id)
        turn.after(("session", group_id, member_id), timeout_ms, late)

    def session_timed_out(self, group_id: str, member_id: str) -> Decision[ErrorCode]:
        """Let a member go that was not heard of, or a promise that nobody took up."""
        turn: Turn[ErrorCode] = Turn()
        group = self.classic(group_id)
        if group is not None:
            member = group.members.get(member_id)
            if member is not None:
                self._session_timed_out(turn, group, member)
            elif member_id in group.members.promised:
                group.members.promised.discard(member_id)
                self.maybe_complete(turn, group)
                self._maybe_forget(group)
            else:
                # It is another by now, or gone, and the record of that could not be written: so
                # the timers that came with it were never set.
                self.mend(turn, group)
                for one in group.members:
                    left_s = one.deadline - self.clock.monotonic()
                    self.expect(turn, group.id, one.id, left_s * 1000)
        return turn.decision(ErrorCode.NONE)

    def _session_timed_out(
        self, turn: Turn[Any], group: ClassicGroup, member: ClassicMember
    ) -> None:
        left_s = member.deadline - self.clock.monotonic()
        if left_s > 0:
            self.expect(turn, group.id, member.id, left_s * 1000)  # it was heard of meanwhile
        elif member.is_new or (member.joining is None and member.syncing is None):
            self.note(group, "expired", member.id, "was not heard of for too long")
            self.let_go(turn, group, member.id)
            self.after_departure(turn, group, f"{member.id} was not heard of for too long")
        # Whoever waits for an answer of ours is alive as far as we know, and gets a new deadline
        # with the answer.

    # --- members that go -----------------------------------------------------------------

    def let_go(self, turn: Turn[Any], group: ClassicGroup, member_id: str) -> None:
        """Take a member off, and answer what it still waits for."""
        turn.cancel("session", group.id, member_id)
        member = group.members.get(member_id)
        if member is not None:
            unknown = ErrorCode.UNKNOWN_MEMBER_ID
            if member.joining is not None:
                turn.complete(member.joining, refused_join(unknown))
            if member.syncing is not None:
                turn.complete(member.syncing, SyncGroupResponse(error_code=unknown))
        group.remove(member_id)

    def after_departure(self, turn: Turn[Any], group: ClassicGroup, reason: str) -> None:
        if group.state in (_STABLE, _COMPLETING):
            self.prepare(turn, group, reason)
        else:
            self.maybe_complete(turn, group)
        self._maybe_forget(group)

    def mend(self, turn: Turn[Any], group: ClassicGroup) -> None:
        """End a round of nobody, whose record could not be written when the last one went."""
        if group.state is _PREPARING and not len(group.members) and not group.members.promised:
            self.complete(turn, group)

    def _maybe_forget(self, group: ClassicGroup) -> None:
        """Keep nothing of a group that came to nothing."""
        if group.is_empty and group.is_forgettable and not self._has_offsets(group.id):
            self.groups.pop(group.id, None)

    # --- the shard comes and goes --------------------------------------------------------

    def start(self, turn: Turn[Any], group: ClassicGroup) -> None:
        """Begin with a group that is what its record says: every member has a session's time.

        Nobody leads one that was a consumer group before: its members are to join again.
        """
        group.is_live = True
        for member in group.members:
            self.watch(turn, group, member, member.session_timeout_ms)
        if group.state is _STABLE and group.leader is None and len(group.members):
            self.prepare(turn, group, "it was a consumer group before")
        elif group.state is _STABLE and len(group.members) > self.settings.size_max:
            self.prepare(turn, group, "more members than a group may have now")

    # --- small things --------------------------------------------------------------------

    def _move(self, group: ClassicGroup, to: GroupState, text: str) -> None:
        group.move(to, self.clock.wall_ms())
        self._phase(group, text)

    def _phase(self, group: ClassicGroup, text: str) -> None:
        now_ms, now_s = self.clock.wall_ms(), self.clock.monotonic()
        kind = group.state.name.lower()
        group.timeline.phase(now_ms, now_s, kind, group.generation, text)

    def note(self, group: ClassicGroup, kind: str, member_id: str, text: str) -> None:
        group.timeline.note(self.clock.wall_ms(), kind, group.generation, member_id, text)

    def joined(
        self, group: ClassicGroup, member: ClassicMember, leader: str | None = None
    ) -> JoinGroupResponse:
        """The answer for a member of the generation that there is."""
        members = group.members if group.leader == member.id else ()
        protocol = group.protocol
        return JoinGroupResponse(
            generation_id=group.generation,
            protocol_type=group.protocol_type,
            protocol_name=protocol,
            leader=leader or group.leader or "",
            member_id=member.id,
            members=[
                JoinGroupResponseMember(
                    member_id=one.id,
                    group_instance_id=one.instance_id,
                    metadata=one.metadata(protocol),
                )
                for one in members
            ],
        )


def refused_join(error: ErrorCode, member_id: str = "") -> JoinGroupResponse:
    return JoinGroupResponse(error_code=error, member_id=member_id, protocol_name=None, leader="")
