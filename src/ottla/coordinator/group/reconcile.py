"""How a member of a consumer group gets from what it owns to what it shall own (KIP-848).

Owns that one step: pure, from a member and its target to the member as it is next. A member first
gives up what it shall not have, and tells so by no longer reporting it; then it gets what it
shall have, each partition as soon as no other member owns it. Must not know groups or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

from ottla.coordinator.group.assignors import Assignment
from ottla.coordinator.group.consumer_member import Epochs, Member, MemberState
from ottla.core.model import TopicId

Owned: TypeAlias = Mapping[TopicId, Collection[int]]
"""What a member says that it owns."""


class Goal:
    """Where a member is going: the target assignment, and what stands in its way.

    `is_free(topic, partition)`: no member has the partition or is still giving it up.
    `topics` are those that the member subscribes to, of those that are there.
    `subscription_changed`: with this very request.
    """

    __slots__ = ("epoch", "is_free", "subscription_changed", "target", "topics")

    def __init__(
        self,
        epoch: int,
        target: Assignment,
        topics: frozenset[TopicId],
        is_free: Callable[[TopicId, int], bool],
        subscription_changed: bool = False,
    ) -> None:
        self.epoch = epoch
        self.target = target
        self.topics = topics
        self.is_free = is_free
        self.subscription_changed = subscription_changed


def reconcile(member: Member, goal: Goal, owned: Owned | None) -> Member:
    """The member's next step, or the very same member if there is none.

    `owned` is None where the member did not say: then nothing counts as given up.
    """
    if member.state is MemberState.STABLE:
        if member.epoch != goal.epoch:
            return _next(member, goal, owned)
        return _shrunk(member, goal, owned) if goal.subscription_changed else member
    if member.state is MemberState.UNREVOKED and _owns(owned, member.revoking):
        return _shrunk(member, goal, owned) if goal.subscription_changed else member
    return _next(member, goal, owned)


def _owns(owned: Owned | None, revoking: Epochs) -> bool:
    """Whether the member may still work on any of these partitions."""
    if owned is None:
        return True
    for topic, numbers in revoking.items():
        held = owned.get(topic, ())
        if any(number in held for number in numbers):
            return True
    return False


def _shrunk(member: Member, goal: Goal, owned: Owned | None) -> Member:
    """Without the topics that it no longer subscribes to: they need not wait for a new target."""
    gone = {topic: held for topic, held in member.assigned.items() if topic not in goal.topics}
    if not gone:
        return member
    kept = {topic: held for topic, held in member.assigned.items() if topic in goal.topics}
    revoking = {topic: dict(held) for topic, held in member.revoking.items()}
    for topic, held in gone.items():
        revoking.setdefault(topic, {}).update(held)
    if not _owns(owned, revoking):
        return member.replace(previous_epoch=member.epoch, assigned=kept)
    return member.replace(
        state=MemberState.UNREVOKED,
        previous_epoch=member.epoch,
        assigned=kept,
        revoking=revoking,
    )


def _next(member: Member, goal: Goal, owned: Owned | None) -> Member:
    assigned: dict[TopicId, dict[int, int]] = {}
    revoking: dict[TopicId, Mapping[int, int]] = {}
    pending: dict[TopicId, list[int]] = {}
    unreleased = False
    for topic in {**goal.target, **member.assigned}:
        target = goal.target.get(topic, frozenset()) if topic in goal.topics else frozenset()
        current = member.assigned.get(topic, {})
        kept = {number: epoch for number, epoch in current.items() if number in target}
        given_up = {number: epoch for number, epoch in current.items() if number not in target}
        if kept:
            assigned[topic] = kept
        if given_up:
            revoking[topic] = given_up
        for number in target:
            if number in kept:
                continue
            # What the member itself is still giving up it may have back.
            mine = number in member.revoking.get(topic, {})
            if mine or goal.is_free(topic, number):
                pending.setdefault(topic, []).append(number)
            else:
                unreleased = True

    if revoking and _owns(owned, revoking):
        return member.replace(
            state=MemberState.UNREVOKED,
            previous_epoch=member.epoch,
            assigned=assigned,
            revoking=revoking,
        )
    for topic, numbers in pending.items():
        assigned.setdefault(topic, {}).update(dict.fromkeys(numbers, goal.epoch))
    return member.replace(
        state=MemberState.UNRELEASED if unreleased else MemberState.STABLE,
        epoch=goal.epoch,
        previous_epoch=member.epoch,
        assigned=assigned,
        revoking={},
    )
