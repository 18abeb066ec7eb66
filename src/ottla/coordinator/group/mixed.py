"""Groups in which both protocols meet: members of either kind, and the move from one to the other.

Owns what a member of the classic protocol asks of a consumer group, and both conversions
(KIP-848, "Migration"): a classic group becomes a consumer group when somebody joins that speaks
the new protocol, and a classic group again when the last of those leaves. Rules and order of
entries are Apache Kafka 4.3.1's. Must not decide for groups of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ottla.coordinator.decision import (
    Cancel,
    Complete,
    Decision,
    Do,
    Effect,
    Entry,
    Follow,
    Schedule,
)
from ottla.coordinator.entries.offsets_topic import GroupMetadataKey
from ottla.coordinator.group.classic import ClassicGroup
from ottla.coordinator.group.classic_rounds import Rounds, refused_join
from ottla.coordinator.group.consumer import NOT_CONSUMER, ConsumerProtocol, Settings, take_place
from ottla.coordinator.group.consumer_checks import Refusal, check_instance, unknown_member
from ottla.coordinator.group.consumer_group import PROTOCOL_TYPE, ConsumerGroup
from ottla.coordinator.group.consumer_member import Classic, Member, MemberState
from ottla.coordinator.group.consumer_protocol import (
    ConsumerProtocolSubscription,
    read_subscription,
    version_of,
    write_assignment,
)
from ottla.coordinator.group.conversion import (
    as_classic_entry,
    as_consumer_group,
    bytes_as_classic,
)
from ottla.coordinator.group.draft import Draft
from ottla.coordinator.group.turn import Turn
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

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.coordinator.group.caller import Caller
    from ottla.core.model import TopicId

ID_REQUIRED_SINCE = 4
"""JoinGroup: a new member is given its id first (KIP-394)."""
PROTOCOL_SINCE = 5
"""SyncGroup: type and name of the protocol are mandatory (KIP-559)."""


class MixedGroups:
    """Serves members of the classic protocol in consumer groups; converts groups."""

    def __init__(self, consumer: ConsumerProtocol, rounds: Rounds) -> None:
        self._consumer = consumer
        self._rounds = rounds
        consumer.mixing = self

    # --- JoinGroup -------------------------------------------------------------------------

    def join(
        self, group: ConsumerGroup, request: JoinGroupRequest, caller: Caller
    ) -> Decision[JoinGroupResponse]:
        """Join a consumer group that isn't empty. Answered at once: nobody is waited for.

        Who is refused is told no member id, as in Kafka, but for the one to join with.
        """
        settings, limits = self._consumer.settings(group.id), self._rounds.settings
        member_id = request.member_id
        is_new = not member_id
        if not limits.session_min_ms <= request.session_timeout_ms <= limits.session_max_ms:
            return Decision(refused_join(ErrorCode.INVALID_SESSION_TIMEOUT, member_id))
        if not settings.can_join_classic:
            return Decision(refused_join(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        if is_new:
            member_id = self._consumer.unique()
        if len(group.members) >= settings.size_max and member_id not in group.members:
            return Decision(refused_join(ErrorCode.GROUP_MAX_SIZE_REACHED))
        protocols = tuple((each.name, bytes(each.metadata)) for each in request.protocols)
        if not _supports(group, request.protocol_type, protocols):
            return Decision(refused_join(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        instance_id = request.group_instance_id
        if instance_id is None and is_new and caller.version >= ID_REQUIRED_SINCE:
            return Decision(refused_join(ErrorCode.MEMBER_ID_REQUIRED, member_id))
        subscription = read_subscription(protocols[0][1])
        if subscription is None:  # Kafka's coordinator fails at it: UNKNOWN_SERVER_ERROR
            return Decision(refused_join(ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        draft = Draft(group, self._consumer.image())
        former = group.static_member(instance_id)
        member: Member | None
        if instance_id is None:
            # As in Kafka: an id that nobody knows is a new member's.
            member = group.members.get(member_id) or Member(member_id)
        elif is_new:
            member = Member(member_id) if former is None else take_place(draft, former, member_id)
        else:
            if refusal := check_instance(former, member_id, instance_id):
                return Decision(refused_join(refusal.error))
            member = former
        assert member is not None, "an instance that was checked is a member"
        updated = _joined(member, request, caller, subscription, protocols)
        return self._settle(draft, former, (member, updated), subscription)

    def _settle(
        self,
        draft: Draft,
        former: Member | None,
        change: tuple[Member, Member],
        subscription: ConsumerProtocolSubscription,
    ) -> Decision[JoinGroupResponse]:
        member, updated = change
        group = draft.group
        owned = _owned(subscription, draft.image)
        if (
            former is not None
            and former.classic is None
            and self._may_downgrade(draft, [former], [updated])
        ):
            refusal = self._consumer.subscribe(draft, member, updated)
            if isinstance(refusal, Refusal):
                return Decision(refused_join(refusal.error))
            renamed = {former.id: updated.id}
            rebalance = group.assignment_epoch < draft.epoch
            self._to_classic(draft, renamed, rebalance)
            return Decision(_join_answer(updated, draft.epoch), draft.entries, draft.effects)
        outcome = self._consumer.advance(draft, member, updated, owned)
        if isinstance(outcome, Refusal):
            return Decision(refused_join(outcome.error))
        assert updated.classic is not None, "it has just joined so"
        draft.effects += (
            Do(_forget, group.told_to_join, updated.id),
            Cancel(("join", group.id, updated.id)),
            Cancel(("rebalance", group.id, updated.id)),
            self._consumer.session(group.id, updated.id, updated.classic.session_ms),
            self._late("sync", group.id, updated),
        )
        self._consumer.tell(draft)
        return Decision(_join_answer(outcome, outcome.epoch), draft.entries, draft.effects)

    def _late(self, key: str, group_id: str, member: Member) -> Schedule:
        """Take the member out unless it joins, or syncs, until then."""
        return Schedule(
            (key, group_id, member.id),
            member.rebalance_ms / 1000,
            partial(self._consumer.expire, group_id, member.id),
        )

    # --- SyncGroup and Heartbeat -----------------------------------------------------------

    def sync(
        self, group: ConsumerGroup, request: SyncGroupRequest, caller: Caller
    ) -> Decision[SyncGroupResponse]:
        """What the member may work on, as its client's own assignor would have said it."""
        if caller.version >= PROTOCOL_SINCE and None in (
            request.protocol_type,
            request.protocol_name,
        ):
            return Decision(SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        member = self._known(group, request.member_id, request.group_instance_id)
        if isinstance(member, ErrorCode):
            return Decision(SyncGroupResponse(error_code=member))
        assert member.classic is not None, "_known has seen to that"
        protocol, metadata = member.classic.protocols[0]
        if request.generation_id != member.epoch:
            return Decision(SyncGroupResponse(error_code=ErrorCode.ILLEGAL_GENERATION))
        if request.protocol_type not in (None, PROTOCOL_TYPE) or request.protocol_name not in (
            None,
            protocol,
        ):
            return Decision(SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL))
        if group.assignment_epoch > member.epoch and member.state is not MemberState.UNREVOKED:
            return Decision(
                SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS),
                effects=self._join_timer(group, member),
            )
        topics = self._consumer.image().by_id
        assignment = write_assignment(
            [
                (topics[topic].name, held)
                for topic, held in member.assigned.items()
                if topic in topics
            ],
            version_of(metadata),
        )
        response = SyncGroupResponse(
            protocol_type=request.protocol_type,
            protocol_name=request.protocol_name,
            assignment=assignment,
        )
        effects: list[Effect] = [
            Cancel(("sync", group.id, member.id)),
            self._consumer.session(group.id, member.id, member.classic.session_ms),
        ]
        return Decision(response, effects=effects)

    def heartbeat(
        self, group: ConsumerGroup, request: HeartbeatRequest
    ) -> Decision[HeartbeatResponse]:
        """REBALANCE_IN_PROGRESS where the member can get further by joining again."""
        member = self._known(group, request.member_id, request.group_instance_id)
        if isinstance(member, ErrorCode):
            return Decision(HeartbeatResponse(error_code=member))
        assert member.classic is not None, "_known has seen to that"
        if request.generation_id != member.epoch:
            return Decision(HeartbeatResponse(error_code=ErrorCode.ILLEGAL_GENERATION))
        effects: list[Effect] = [
            self._consumer.session(group.id, member.id, member.classic.session_ms)
        ]
        error = ErrorCode.NONE
        if (
            member.epoch < group.assignment_epoch
            or member.state is MemberState.UNREVOKED
            or (member.state is MemberState.UNRELEASED and not group.waits_for_release(member))
            or _is_stuck(group)
        ):
            error = ErrorCode.REBALANCE_IN_PROGRESS
            effects += self._join_timer(group, member)
        return Decision(HeartbeatResponse(error_code=error), effects=effects)

    def _join_timer(self, group: ConsumerGroup, member: Member) -> list[Effect]:
        """Once told to join again, it has the rebalance timeout for it: not anew each time."""
        if group.told_to_join.get(member.id) == member.epoch:
            return []
        group.told_to_join[member.id] = member.epoch
        return [self._late("join", group.id, member)]

    def _known(
        self, group: ConsumerGroup, member_id: str, instance_id: str | None
    ) -> Member | ErrorCode:
        """The member, if it is one that speaks the classic protocol."""
        if instance_id is None:
            member = group.members.get(member_id)
        else:
            member = group.static_member(instance_id)
            if refusal := check_instance(member, member_id, instance_id):
                return refusal.error
        if member is None or member.classic is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return member

    # --- LeaveGroup ------------------------------------------------------------------------

    def leave(
        self, group: ConsumerGroup, request: LeaveGroupRequest, caller: Caller
    ) -> Decision[LeaveGroupResponse]:
        """Let members go, those of the new protocol too: so an admin removes them."""
        identities = request.members
        if caller.version < 3:
            identities = [MemberIdentity(member_id=request.member_id)]
        leaving: dict[str, Member] = {}
        response = LeaveGroupResponse()
        for identity in identities:
            member = self._leaving(group, identity)
            response.members.append(
                MemberResponse(
                    member_id=identity.member_id,
                    group_instance_id=identity.group_instance_id,
                    error_code=member if isinstance(member, ErrorCode) else ErrorCode.NONE,
                )
            )
            if isinstance(member, Member):
                leaving[member.id] = member
        if caller.version < 3:
            response.error_code = response.members[0].error_code
        draft = Draft(group, self._consumer.image())
        self._consumer.fence(draft, list(leaving.values()), "left")
        return Decision(response, draft.entries, draft.effects)

    def _leaving(self, group: ConsumerGroup, identity: MemberIdentity) -> Member | ErrorCode:
        instance_id = identity.group_instance_id
        if instance_id is None:
            found = group.members.get(identity.member_id)
            return found or unknown_member(identity.member_id, group.id).error
        member = group.static_member(instance_id)
        if member is not None and not identity.member_id:
            return member  # an admin doesn't know its id
        refusal = check_instance(member, identity.member_id, instance_id)
        if refusal is not None:
            return refusal.error
        assert member is not None, "an instance that was checked is a member"
        return member

    # --- conversions -----------------------------------------------------------------------

    def convert_to_consumer(self, group_id: str, image: ClusterImage) -> Draft | Refusal:
        """A draft of the classic group as a consumer group, for a member that joins it."""
        found = self._rounds.classic(group_id)
        settings = self._consumer.settings(group_id)
        if found is None:
            return Refusal(ErrorCode.GROUP_ID_NOT_FOUND, NOT_CONSUMER.format(group_id))
        end = Entry(GroupMetadataKey(group=group_id), None)
        if found.is_empty and not len(found.members):
            draft = Draft(ConsumerGroup(group_id), image)
            draft.entries.append(end)
            draft.effects += _released(found)
            return draft
        if why := _no_upgrade(found, settings):
            return Refusal(
                ErrorCode.GROUP_ID_NOT_FOUND,
                f"Cannot upgrade classic group {group_id} to consumer group because {why}.",
            )
        group = as_consumer_group(found, image)
        if isinstance(group, str):
            return Refusal(
                ErrorCode.GROUP_ID_NOT_FOUND,
                f"Cannot upgrade classic group {group_id} to consumer group because {group}.",
            )
        draft = Draft(group, image)
        draft.entries.append(end)
        draft.write_all()
        draft.effects += _released(found)
        for member in group.members.values():
            assert member.classic is not None, "they have come from a classic group"
            draft.effects.append(
                self._consumer.session(group_id, member.id, member.classic.session_ms)
            )
        return draft

    def convert_to_classic(self, draft: Draft, leaving: Iterable[Member]) -> bool:
        """Make it a classic group if only members of that protocol are left; whether it is so."""
        going = list(leaving)
        if not self._may_downgrade(draft, going):
            return False
        for member in going:
            for timer in ("session", "rebalance", "join", "sync"):
                draft.effects.append(Cancel((timer, draft.group.id, member.id)))
        gone = {member.id: None for member in going}
        self._to_classic(draft, gone, True)
        return True

    def _may_downgrade(
        self, draft: Draft, going: Sequence[Member], coming: Sequence[Member] = ()
    ) -> bool:
        settings = self._consumer.settings(draft.group.id)
        gone = {member.id for member in going}
        left = [member for member in draft.group.members.values() if member.id not in gone]
        left += coming
        return (
            settings.can_downgrade
            and 0 < len(left) <= settings.classic_size_max
            and all(member.classic is not None for member in left)
            # A crash must keep all of it or nothing, so it goes into one batch. More than that
            # would be refused each time, and a member that is gone would never be out.
            and bytes_as_classic(draft, left) <= settings.record_bytes_max
        )

    def _to_classic(self, draft: Draft, changed: Mapping[str, str | None], rebalance: bool) -> None:
        """`changed`: who goes (None), and who is by now another member, by id."""
        group = draft.group
        renamed = {old: new for old, new in changed.items() if new is not None}
        draft.entries += group.end(renamed)
        members = [draft.members[new] for new in renamed.values()]
        members += (member for id_, member in group.members.items() if id_ not in changed)
        now_ms = self._consumer.clock.wall_ms()
        draft.entries.append(as_classic_entry(draft, members, now_ms, is_complete=not rebalance))
        for member in members:
            for timer in ("rebalance", "join", "sync"):
                draft.effects.append(Cancel((timer, group.id, member.id)))
        draft.effects.append(Follow(partial(self._begin_classic, group.id)))

    def _begin_classic(self, group_id: str) -> Sequence[Effect]:
        """The group is classic by now: its members get sessions, and are to join again."""
        group = self._rounds.classic(group_id)
        assert group is not None, "its record is in"
        turn: Turn[None] = Turn()
        self._rounds.start(turn, group)
        assert not turn.entries, "it has members, so that no round of nobody begins"
        return turn.effects


def _is_stuck(group: ConsumerGroup) -> bool:
    """Whether targets are to be computed that nobody's heartbeat will have computed.

    Where a group may not become a classic one only such members may be left in it. In Kafka what
    the others had is nobody's then, until somebody joins.
    """
    return group.epoch > group.assignment_epoch and all(
        member.classic is not None for member in group.members.values()
    )


def _supports(
    group: ConsumerGroup, protocol_type: str, protocols: Iterable[tuple[str, bytes]]
) -> bool:
    """Whether a protocol is one that all classic members know. The new protocol knows any."""
    if protocol_type != PROTOCOL_TYPE:
        return False
    known = [
        {name for name, _ in member.classic.protocols}
        for member in group.members.values()
        if member.classic is not None
    ]
    return any(all(name in names for names in known) for name, _ in protocols)


def _joined(
    member: Member,
    request: JoinGroupRequest,
    caller: Caller,
    subscription: ConsumerProtocolSubscription,
    protocols: tuple[tuple[str, bytes], ...],
) -> Member:
    rebalance_ms = request.rebalance_timeout_ms
    if rebalance_ms < 0:  # version 0 has none on the wire
        rebalance_ms = request.session_timeout_ms
    return member.replace(
        instance_id=request.group_instance_id or member.instance_id,
        rack_id=subscription.rack_id or member.rack_id,
        rebalance_ms=rebalance_ms,
        topics=tuple(sorted(set(subscription.topics))),
        regex="",
        client_id=caller.client_id,
        client_host=caller.host,
        classic=Classic(request.session_timeout_ms, protocols),
    )


def _owned(
    subscription: ConsumerProtocolSubscription, image: ClusterImage
) -> dict[TopicId, set[int]]:
    return {
        image.topics[each.topic].id: set(each.partitions)
        for each in subscription.owned_partitions
        if each.topic in image.topics
    }


def _join_answer(member: Member, epoch: int) -> JoinGroupResponse:
    assert member.classic is not None, "it has just joined so"
    return JoinGroupResponse(
        generation_id=epoch,
        protocol_type=PROTOCOL_TYPE,
        protocol_name=member.classic.protocols[0][0],
        leader="",
        member_id=member.id,
    )


def _forget(told: dict[str, int], member_id: str) -> None:
    told.pop(member_id, None)


def _no_upgrade(group: ClassicGroup, settings: Settings) -> str:
    if not settings.can_upgrade:
        return "online upgrade is disabled"
    if group.protocol_type != PROTOCOL_TYPE:
        return "the group does not use the consumer embedded protocol"
    if len(group.members) > settings.size_max:
        return "the group size exceeds the consumer group maximum size"
    return ""


def _released(group: ClassicGroup) -> list[Effect]:
    """Whoever waits in the classic group learns that it is to join again, with all others."""
    effects: list[Effect] = [Cancel((timer, group.id)) for timer in ("join", "hold", "sync")]
    again = ErrorCode.REBALANCE_IN_PROGRESS
    waiting: list[tuple[Any, Any]] = []
    for member in group.members:
        waiting.append((member.joining, refused_join(again, member.id)))
        waiting.append((member.syncing, SyncGroupResponse(error_code=again)))
    effects += (Complete(pending, answer) for pending, answer in waiting if pending is not None)
    return effects
