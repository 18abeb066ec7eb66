"""What is wrong with a heartbeat of a consumer group, seen by itself or beside its member.

Owns the checks of ConsumerGroupHeartbeat (H110, H105), in Apache Kafka's order and with its
words. Must not change or decide anything else.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, TypeAlias

from ottla.coordinator.group.consumer_member import LEFT, LEFT_FOR_NOW, Member
from ottla.coordinator.group.reconcile import Owned
from ottla.core.model import TopicId
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest

MEMBER_ID_NEEDED_SINCE = 1
"""From this version on members make their ids themselves (KIP-1082)."""


class Refusal(NamedTuple):
    """Why a request is not done."""

    error: ErrorCode
    message: str


Found: TypeAlias = Member | Refusal


def check_request(
    request: ConsumerGroupHeartbeatRequest, version: int, assignors: Collection[str]
) -> Refusal | None:
    """INVALID_REQUEST or UNSUPPORTED_ASSIGNOR for what no group would take."""
    epoch = request.member_epoch
    needs_id = version >= MEMBER_ID_NEEDED_SINCE or epoch > 0 or epoch == LEFT
    for name, text, counts in (
        ("MemberId", request.member_id, needs_id),
        ("GroupId", request.group_id, True),
        ("InstanceId", request.instance_id, True),
        ("RackId", request.rack_id, True),
    ):
        if counts and text is not None and not text.strip():
            return _invalid(f"{name} can't be empty.")
    if epoch == 0:
        if request.rebalance_timeout_ms == -1:
            return _invalid("RebalanceTimeoutMs must be provided in first request.")
        if request.topic_partitions is None or request.topic_partitions:
            return _invalid("TopicPartitions must be empty when (re-)joining.")
        if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
            return _invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when "
                "(re-)joining."
            )
    elif epoch == LEFT_FOR_NOW and request.instance_id is None:
        return _invalid("InstanceId can't be null.")
    elif epoch < LEFT_FOR_NOW:
        return _invalid("MemberEpoch is invalid.")
    assignor = request.server_assignor
    if assignor is not None and assignor not in assignors:
        return Refusal(
            ErrorCode.UNSUPPORTED_ASSIGNOR,
            f"ServerAssignor {assignor} is not supported. "
            f"Supported assignors: {', '.join(assignors)}.",
        )
    return None


def _invalid(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_REQUEST, message)


def check_epoch(member: Member, received: int, owned: Owned | None) -> Refusal | None:
    """FENCED_MEMBER_EPOCH for an epoch that isn't the member's.

    One before is good as long as the member claims no more than it has: the answer that told it
    of its new epoch may have been lost. 0 is how a fenced member begins again.
    """
    if received in (0, member.epoch):
        return None
    how = "greater" if received > member.epoch else "smaller"
    if received == member.previous_epoch and received < member.epoch and _within(owned, member):
        return None
    return Refusal(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {how} member epoch ({received}) than the one known by "
        f"the group coordinator ({member.epoch}). The member must abandon all its partitions and "
        "rejoin.",
    )


def _within(owned: Owned | None, member: Member) -> bool:
    if owned is None:
        return False
    return all(
        number in member.assigned.get(topic, {})
        for topic, numbers in owned.items()
        for number in numbers
    )


def unknown_member(member_id: str, group_id: str) -> Refusal:
    return Refusal(
        ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {group_id}."
    )


def check_instance(member: Member | None, member_id: str, instance_id: str) -> Refusal | None:
    """UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID unless the instance is that member."""
    if member is None:
        return Refusal(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
    if member.id != member_id:
        return Refusal(
            ErrorCode.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member "
            f"{member.id}.",
        )
    return None


def unreleased(member: Member, member_id: str, instance_id: str) -> Refusal:
    return Refusal(
        ErrorCode.UNRELEASED_INSTANCE_ID,
        f"Static member {member_id} with instance id {instance_id} cannot join the group because "
        f"the instance id is owned by {member.id} member.",
    )


def owned_of(request: ConsumerGroupHeartbeatRequest) -> dict[TopicId, set[int]] | None:
    """What the member says that it owns; None where it says nothing."""
    if request.topic_partitions is None:
        return None
    owned: dict[TopicId, set[int]] = {}
    for each in request.topic_partitions:
        owned.setdefault(TopicId(each.topic_id), set()).update(each.partitions)
    return owned
