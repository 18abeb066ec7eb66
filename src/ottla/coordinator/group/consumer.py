"""The consumer group protocol (KIP-848): heartbeats, leaving and being late, as decisions.

Owns the rules of ConsumerGroupHeartbeat and of its timeouts, as Apache Kafka 4.3.1 has them:
a heartbeat brings the member up to date, then the targets where the group's epoch is ahead of
them, then what the member owns. Must not change a group (replay does) nor speak the classic
protocol (`mixed.py` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ottla.coordinator.decision import Cancel, Decision, Do, Effect, Schedule
from ottla.coordinator.group.caller import Caller
from ottla.coordinator.group.consumer_checks import (
    Found,
    Refusal,
    check_epoch,
    check_instance,
    check_request,
    owned_of,
    unknown_member,
    unreleased,
)
from ottla.coordinator.group.consumer_group import ConsumerGroup, Resolved
from ottla.coordinator.group.consumer_member import (
    LEFT,
    LEFT_FOR_NOW,
    NOTHING,
    Epochs,
    Member,
    MemberState,
)
from ottla.coordinator.group.draft import Draft, Note
from ottla.coordinator.group.reconcile import Goal, Owned, reconcile
from ottla.coordinator.group.regex import Regex, RegexError, Resolution, fitting, names_bytes
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    ResponseTopicPartitions,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.core.ports import Clock

REGEX_REFRESH_S = 1.0
"""The least time between two looks at all topics for one group's expressions. Kafka's is 10 s."""


class Settings(Value):
    """What options say, for one group; times in milliseconds."""

    session_ms: int = 45_000
    heartbeat_ms: int = 5000
    waiting_ms: int = 5000
    """The interval of members that wait for something."""
    assignment_ms: int = 1000
    size_max: int = (1 << 31) - 1
    bytes_max: int = (1 << 31) - 1
    """How much the members may say together,"""
    regex_bytes_max: int = (1 << 31) - 1
    """how long the names of the topics may be that their expressions name,"""
    record_bytes_max: int = (1 << 20) - 1024
    """and how long those that one expression names: they stand in one record. Also the most that
    may be written to make a group classic."""
    assignors: tuple[str, ...] = ("uniform", "range")
    can_join_classic: bool = True
    """Members that speak the classic protocol may join a consumer group."""
    can_upgrade: bool = True
    """A classic group may become a consumer group,"""
    can_downgrade: bool = True
    """and the other way round, when only members are left that speak the other protocol."""
    classic_size_max: int = (1 << 31) - 1


class Mixing(Protocol):
    """What is done where the two protocols meet in one group; `mixed.py` does it."""

    def convert_to_consumer(self, group_id: str, draft_image: ClusterImage) -> Draft | Refusal:
        """A group that is not a consumer group, as one: for a member that joins it."""

    def convert_to_classic(self, draft: Draft, leaving: Iterable[Member]) -> bool:
        """Make it a classic group if nobody is left who needs it otherwise; whether it is so."""


class ConsumerProtocol:
    """The consumer groups among a shard's groups. `unique()` gives an id never given before."""

    def __init__(
        self,
        groups: Mapping[str, Any],
        settings: Callable[[str], Settings],
        image: Callable[[], ClusterImage],
        clock: Clock,
        unique: Callable[[], str],
    ) -> None:
        self.groups = groups
        self.settings = settings
        self.image = image
        self.clock = clock
        self.unique = unique
        self.mixing: Mixing | None = None
        self.has_room: Callable[[], bool] = lambda: True
        """Whether the node takes one more group (H101)."""

    def group(self, group_id: str) -> ConsumerGroup | None:
        found = self.groups.get(group_id)
        return found if isinstance(found, ConsumerGroup) else None

    def loaded(self) -> list[Effect]:
        """Timers for the members that the log knows: each gets a whole session anew."""
        effects: list[Effect] = []
        for group in self.groups.values():
            if isinstance(group, ConsumerGroup):
                session_ms = self.settings(group.id).session_ms
                for member in group.members.values():
                    effects.append(self.session(group.id, member.id, session_ms))
                    if member.state is MemberState.UNREVOKED and member.classic is None:
                        effects.append(self._rebalance_timer(group.id, member))
        return effects

    # --- heartbeats ------------------------------------------------------------------------

    def heartbeat(
        self, request: ConsumerGroupHeartbeatRequest, caller: Caller
    ) -> Decision[ConsumerGroupHeartbeatResponse]:
        """Join, stay, or leave with epoch -1 or -2."""
        settings = self.settings(request.group_id)
        refusal = check_request(request, caller.version, settings.assignors)
        if refusal is not None:
            return _refused(refusal)
        if request.member_epoch in (LEFT, LEFT_FOR_NOW):
            return self._leave(request)
        draft = self._draft(request)
        if isinstance(draft, Refusal):
            return _refused(draft)
        member_id = request.member_id or self.unique()
        if len(draft.members) >= settings.size_max and member_id not in draft.members:
            return _refused(
                Refusal(
                    ErrorCode.GROUP_MAX_SIZE_REACHED,
                    "The consumer group has reached its maximum capacity of "
                    f"{settings.size_max} members.",
                )
            )
        member = self._find(draft, request, member_id)
        if isinstance(member, Refusal):
            return _refused(member)
        updated = _updated(member, request, caller)
        outcome = self.advance(draft, member, updated, owned_of(request))
        if isinstance(outcome, Refusal):
            return _refused(outcome)
        draft.effects.append(self.session(draft.group.id, member_id, settings.session_ms))
        self.tell(draft)
        response = ConsumerGroupHeartbeatResponse(
            member_id=outcome.id,
            member_epoch=outcome.epoch,
            heartbeat_interval_ms=settings.heartbeat_ms,
        )
        if outcome.epoch != draft.epoch or outcome.state is MemberState.UNRELEASED:
            # What it waits for it learns of with a heartbeat. Kafka lets it wait a whole interval,
            # however soon the others have given up what it is to get.
            response.heartbeat_interval_ms = settings.waiting_ms
        # One that is an epoch behind has missed an answer. Kafka tells it nothing, so that one
        # which reports what it has, and has missed more, never hears of that.
        is_behind = request.member_epoch != member.epoch
        if is_behind or _is_full(request) or outcome.assigned != member.assigned:
            response.assignment = _assignment(outcome.assigned)
        # The targets of thousands of members are more than a batch may hold. Of what a crash keeps
        # the group's next epoch comes first, and until its targets are all there they are computed
        # anew.
        entries = draft.entries
        return Decision(response, entries, draft.effects, atomic=draft.is_whole or not entries)

    def _draft(self, request: ConsumerGroupHeartbeatRequest) -> Draft | Refusal:
        group_id, joins = request.group_id, request.member_epoch == 0
        found = self.groups.get(group_id)
        if isinstance(found, ConsumerGroup):
            return Draft(found, self.image())
        if not joins:
            what = "Consumer group {} not found." if found is None else NOT_CONSUMER
            return Refusal(ErrorCode.GROUP_ID_NOT_FOUND, what.format(group_id))
        if found is None:
            if not self.has_room():
                return Refusal(ErrorCode.GROUP_MAX_SIZE_REACHED, "There are too many groups.")
            return Draft(ConsumerGroup(group_id), self.image())
        assert self.mixing is not None, "there are other groups, so there is who mixes them"
        return self.mixing.convert_to_consumer(group_id, self.image())

    def _find(self, draft: Draft, request: ConsumerGroupHeartbeatRequest, member_id: str) -> Found:
        epoch, instance_id = request.member_epoch, request.instance_id
        if instance_id is None:
            member = draft.members.get(member_id)
            if member is None:
                return (
                    Member(member_id) if epoch == 0 else unknown_member(member_id, draft.group.id)
                )
            return check_epoch(member, epoch, owned_of(request)) or member
        member = draft.group.static_member(instance_id)
        if epoch == 0:
            if member is None:
                return draft.members.get(member_id) or Member(member_id)
            if member.classic is None and member.epoch != LEFT_FOR_NOW:
                return unreleased(member, member_id, instance_id)
            return take_place(draft, member, member_id)
        if refusal := check_instance(member, member_id, instance_id):
            return refusal
        assert member is not None, "an instance that was checked is a member"
        return check_epoch(member, epoch, owned_of(request)) or member

    def advance(self, draft: Draft, member: Member, updated: Member, owned: Owned | None) -> Found:
        """The three steps of a heartbeat; the member as it is after them."""
        changed = self.subscribe(draft, member, updated)
        if isinstance(changed, Refusal):
            return changed
        epoch, target = self._target(draft, updated)
        if changed or not updated.is_at(epoch):
            goal = Goal(epoch, target, draft.topic_ids(updated), draft.group.is_free, changed)
            return self.move(draft, updated, goal, owned)
        return updated

    def subscribe(self, draft: Draft, member: Member, updated: Member) -> bool | Refusal:
        """First step: the member as it is now, and the group's next epoch if that matters.

        True where the member's subscription has changed.
        """
        is_in = member.id in draft.members
        if not is_in or (updated is not member and updated != member):
            more = updated.said_bytes() - (member.said_bytes() if is_in else 0)
            if 0 < more > self.settings(draft.group.id).bytes_max - draft.group.said_bytes:
                return Refusal(
                    ErrorCode.GROUP_MAX_SIZE_REACHED,
                    "The members of the consumer group say more than group.metadata.bytes.max.",
                )
            draft.put_subscription(updated)
        changed = bump = updated.topics != member.topics
        # In, and without a target: of its first heartbeat only the beginning was kept.
        bump |= is_in and member.epoch == 0 and member.id not in draft.targets
        regexes = self._regexes(draft, member, updated)
        if isinstance(regexes, Refusal):
            return regexes
        changed |= updated.regex != member.regex
        if member.epoch == 0 and not member.client_host:
            draft.notes.append(("joined", updated.id, ""))
            draft.why = f"{updated.id} joined"
        elif changed:
            draft.why = f"{updated.id} subscribed to other topics"
        self.refresh(draft, bump or regexes)
        return changed

    def refresh(self, draft: Draft, bump: bool) -> None:
        """Begin a new epoch if the topics have changed, or if it must be anyway."""
        group, topics = draft.group, draft.image.topics
        if not bump and group.refreshed is topics:
            return
        metadata_hash = draft.metadata_hash()
        if bump or metadata_hash != group.metadata_hash:
            draft.why = draft.why or "topics have changed"
            draft.bump(metadata_hash)
        draft.clean()
        draft.effects.append(Do(self._refreshed, group.id, topics))

    def _refreshed(self, group_id: str, topics: object) -> None:
        group = self.group(group_id)
        if group is not None:
            group.refreshed = topics

    def _target(self, draft: Draft, member: Member) -> tuple[int, Mapping[Any, frozenset[int]]]:
        """Second step: the targets' epoch, and the member's target; computed anew if due."""
        group = draft.group
        if draft.epoch <= group.assignment_epoch:
            return group.assignment_epoch, group.target_of(member)
        now_ms, settings = self.clock.wall_ms(), self.settings(group.id)
        # The first at once; and always where the clock was set back behind the last one.
        due_ms = group.assigned_at_ms + settings.assignment_ms
        if not group.assigned_at_ms or not settings.assignment_ms or now_ms >= due_ms:
            draft.assign(settings.assignors[0], now_ms)
            return draft.epoch, draft.targets.get(member.id, {})
        return group.assignment_epoch, group.target_of(member)

    def move(self, draft: Draft, member: Member, goal: Goal, owned: Owned | None) -> Member:
        """Third step: what the member owns, towards its target."""
        moved = reconcile(member, goal, owned)
        if moved != member:
            draft.put_current(moved)
            if moved.classic is None:
                if moved.state is MemberState.UNREVOKED:
                    draft.effects.append(self._rebalance_timer(draft.group.id, moved))
                else:
                    draft.effects.append(Cancel(("rebalance", draft.group.id, moved.id)))
        return moved

    # --- regular expressions ---------------------------------------------------------------

    def _regexes(self, draft: Draft, member: Member, updated: Member) -> bool | Refusal:
        """Bring the group's expressions up to date; whether the targets depend on what changed."""
        old, new = member.regex, updated.regex
        bump = False
        if old != new:
            if old and old in draft.regexes and not draft.subscribes(old):
                draft.drop_regex(old)
            if new and new not in draft.regexes:
                try:
                    Regex(new)
                except RegexError as error:
                    return Refusal(
                        ErrorCode.INVALID_REGULAR_EXPRESSION,
                        f"SubscribedTopicRegex `{new}` is not a valid regular expression: {error}.",
                    )
        elif not new and not draft.regexes:
            return False
        bump |= self._resolve(draft)
        return bump or (old != new and (not new or new in draft.regexes))

    def _resolve(self, draft: Draft) -> bool:
        """Hold the group's expressions against the topics if due; whether any names others now.

        Kafka does it elsewhere, so that a new member learns of its topics one heartbeat later.
        """
        group, topics = draft.group, draft.image.topics
        wanted = draft.wanted_regexes()
        if not wanted or group.resolving is not None:
            return False
        now_s = self.clock.monotonic()
        if wanted <= draft.regexes.keys() and (
            group.resolved_from is topics or now_s < group.resolved_at_s + REGEX_REFRESH_S
        ):
            return False
        resolution = Resolution(wanted, topics, draft.image.revision)
        if resolution.step():
            draft.effects.append(Do(self._resolved, group.id, topics))
            return self._take(draft, resolution)
        draft.effects.append(Do(self._begin, group.id, resolution))
        draft.effects.append(self._go_on(group.id, resolution, topics))
        return False

    def _take(self, draft: Draft, resolution: Resolution) -> bool:
        """Write down what the expressions name now."""
        now_ms, settings = self.clock.wall_ms(), self.settings(draft.group.id)
        differs = False
        wanted = sorted(resolution.topics.keys() & draft.wanted_regexes())
        others = (one.topics for regex, one in draft.regexes.items() if regex not in wanted)
        room = settings.regex_bytes_max - sum(map(names_bytes, others))
        for regex in wanted:
            before = draft.regexes.get(regex)
            found = resolution.topics[regex]
            key_bytes = 4 * (len(regex) + len(draft.group.id))
            topics = fitting(found, min(room, settings.record_bytes_max - key_bytes))
            room -= names_bytes(topics)
            if before is None or before.topics != topics:
                if len(topics) < len(found):
                    what = f"{len(found) - len(topics)} of the {len(found)} topics of {regex!r}"
                    draft.notes.append(("passed over", "", f"{what} (group.regex.bytes.max)"))
                differs |= bool(topics) or before is not None
                draft.put_regex(regex, Resolved(topics, resolution.version, now_ms))
        return differs

    def _begin(self, group_id: str, resolution: Resolution) -> None:
        group = self.group(group_id)
        if group is not None:
            group.resolving = resolution

    def _resolved(self, group_id: str, topics: object) -> None:
        group = self.group(group_id)
        if group is not None:
            group.resolving = None
            group.resolved_from = topics
            group.resolved_at_s = self.clock.monotonic()

    def _go_on(self, group_id: str, resolution: Resolution, topics: object) -> Schedule:
        """The next slice of a long resolution, after whoever waits for this shard."""

        def decide() -> Decision[None]:
            group = self.group(group_id)
            if group is None or group.resolving is not resolution:
                return Decision(None)
            if not resolution.step():
                return Decision(None, (), [self._go_on(group_id, resolution, topics)])
            draft = Draft(group, self.image())
            if self._take(draft, resolution):
                draft.bump(draft.metadata_hash())
            draft.effects.append(Do(self._resolved, group_id, topics))
            draft.why = "a regular expression names other topics"
            self.tell(draft)
            return Decision(None, draft.entries, draft.effects, atomic=False)

        return Schedule(("regex", group_id), 0.0, decide)

    # --- leaving ---------------------------------------------------------------------------

    def _leave(
        self, request: ConsumerGroupHeartbeatRequest
    ) -> Decision[ConsumerGroupHeartbeatResponse]:
        group = self.group(request.group_id)
        if group is None:
            known = request.group_id in self.groups
            what = NOT_CONSUMER if known else "Group {} not found."
            return _refused(Refusal(ErrorCode.GROUP_ID_NOT_FOUND, what.format(request.group_id)))
        member_id, instance_id = request.member_id, request.instance_id
        if instance_id is None:
            member = group.members.get(member_id)
            if member is None:
                return _refused(unknown_member(member_id, group.id))
        else:
            member = group.static_member(instance_id)
            if refusal := check_instance(member, member_id, instance_id):
                return _refused(refusal)
            assert member is not None, "an instance that was checked is a member"
        response = ConsumerGroupHeartbeatResponse(
            member_id=member.id, member_epoch=request.member_epoch
        )
        draft = Draft(group, self.image())
        if instance_id is not None and request.member_epoch == LEFT_FOR_NOW:
            # Its partitions wait for whoever comes back in its place, until the session ends.
            assigned = {topic: dict.fromkeys(held, 0) for topic, held in member.assigned.items()}
            draft.put_current(
                member.replace(epoch=LEFT_FOR_NOW, assigned=assigned, revoking=NOTHING)
            )
        else:
            self.fence(draft, [member], "left")
        return Decision(response, draft.entries, draft.effects)

    def fence(self, draft: Draft, members: list[Member], how: str) -> None:
        """Take members out, who left or expired; what they had is free at once."""
        if not members:
            return
        draft.notes += ((how, member.id, "") for member in members)
        draft.why = f"{', '.join(member.id for member in members)} {how}"
        if self.mixing is not None and self.mixing.convert_to_classic(draft, members):
            return
        for member in members:
            draft.remove(member.id)
            for timer in ("session", "rebalance", "join", "sync"):
                draft.effects.append(Cancel((timer, draft.group.id, member.id)))
        for regex in draft.regexes.keys() - draft.wanted_regexes():
            draft.drop_regex(regex)
        draft.bump(draft.metadata_hash())
        self.tell(draft)

    def tell(self, draft: Draft) -> None:
        """Have the group's timeline tell of what was decided, once it is done."""
        if draft.entries:
            draft.effects.append(Do(self._told, draft.group.id, draft.notes, draft.why))

    def _told(self, group_id: str, notes: list[Note], why: str) -> None:
        group = self.group(group_id)
        if group is not None:
            at_ms = self.clock.wall_ms()
            for kind, member_id, more in notes:
                member = group.members.get(member_id)
                who = "" if member is None else f"{member.client_id} at {member.client_host}"
                text = ", ".join(each for each in (who, more) if each)
                group.timeline.note(at_ms, kind, group.epoch, member_id, text)
            group.look(at_ms, self.clock.monotonic(), why)

    # --- being late ------------------------------------------------------------------------

    def session(self, group_id: str, member_id: str, session_ms: int) -> Schedule:
        """Take the member out if it isn't heard of again until then."""
        return Schedule(
            ("session", group_id, member_id),
            session_ms / 1000,
            partial(self.expire, group_id, member_id),
        )

    def expire(self, group_id: str, member_id: str) -> Decision[None]:
        """The member was silent for too long, or did not do what it had to in time."""
        group = self.group(group_id)
        member = None if group is None else group.members.get(member_id)
        if group is None or member is None:
            return Decision(None)
        draft = Draft(group, self.image())
        self.fence(draft, [member], "expired")
        return Decision(None, draft.entries, draft.effects)

    def _rebalance_timer(self, group_id: str, member: Member) -> Schedule:
        """Take the member out if it hasn't given up what it must until then."""

        def decide() -> Decision[None]:
            group = self.group(group_id)
            now = None if group is None else group.members.get(member.id)
            if now is None or now.epoch != member.epoch:
                return Decision(None)
            return self.expire(group_id, member.id)

        return Schedule(("rebalance", group_id, member.id), member.rebalance_ms / 1000, decide)


NOT_CONSUMER = "Group {} is not a consumer group."


def take_place(draft: Draft, old: Member, member_id: str) -> Member:
    """A static member is back, under another id: it goes on where it left."""
    new = old.replace(id=member_id, epoch=0, previous_epoch=0)
    draft.replace(old, new)
    draft.notes.append(("replaced", new.id, f"was {old.id}"))
    if member_id != old.id:
        for timer in ("session", "rebalance", "join", "sync"):
            draft.effects.append(Cancel((timer, draft.group.id, old.id)))
    return new


def _updated(member: Member, request: ConsumerGroupHeartbeatRequest, caller: Caller) -> Member:
    """The member, with what the request says anew; the same object where it says nothing new."""
    names = request.subscribed_topic_names
    if (
        names is None
        and request.rebalance_timeout_ms == -1
        and request.subscribed_topic_regex is None
        and request.server_assignor is None
        and request.rack_id is None
        and request.instance_id is None
        and member.classic is None
        and caller.client_id == member.client_id
        and caller.host == member.client_host
    ):
        return member  # nearly always: it is only alive
    said = {
        "instance_id": request.instance_id,
        "rack_id": request.rack_id,
        "rebalance_ms": None
        if request.rebalance_timeout_ms == -1
        else request.rebalance_timeout_ms,
        "assignor": request.server_assignor,
        "topics": None if names is None else tuple(sorted(set(names))),
        "regex": request.subscribed_topic_regex,
        "client_id": caller.client_id,
        "client_host": caller.host,
    }
    new: dict[str, Any] = {
        name: value
        for name, value in said.items()
        if value is not None and value != getattr(member, name)
    }
    if member.classic is not None:
        new["classic"] = None
    return member.replace(**new) if new else member


def _is_full(request: ConsumerGroupHeartbeatRequest) -> bool:
    """Whether the member said all about itself: then it is told all in return."""
    return request.member_epoch == 0 or (
        request.rebalance_timeout_ms != -1
        and (
            request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None
        )
        and request.topic_partitions is not None
    )


def _assignment(assigned: Epochs) -> Assignment:
    return Assignment(
        topic_partitions=[
            ResponseTopicPartitions(topic_id=topic, partitions=sorted(numbers))
            for topic, numbers in assigned.items()
        ]
    )


def _refused(refusal: Refusal) -> Decision[ConsumerGroupHeartbeatResponse]:
    return Decision(
        ConsumerGroupHeartbeatResponse(
            error_code=refusal.error,
            error_message=refusal.message,
        )
    )
