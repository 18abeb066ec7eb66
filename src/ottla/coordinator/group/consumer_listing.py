"""What ConsumerGroupDescribe tells of a consumer group.

Owns that answer. Must not decide anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ottla.coordinator.decision import Decision
from ottla.coordinator.group.assignors import NO_ASSIGNMENT
from ottla.coordinator.group.consumer_group import ConsumerGroup
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.consumer_group_describe import (
    Assignment,
    DescribedGroup,
    Member,
    TopicPartitions,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.coordinator.group import consumer_member
    from ottla.coordinator.group.shard import GroupShard
    from ottla.core.model import TopicId

CLASSIC_MEMBER, CONSUMER_MEMBER = 0, 1


def describe_consumer_group(shard: GroupShard, group_id: str) -> Decision[DescribedGroup]:
    """GROUP_ID_NOT_FOUND for a group that is not there, or of another kind."""
    group = shard.group(group_id)
    if not isinstance(group, ConsumerGroup):
        what = "is not a consumer group" if group is not None else "not found"
        return Decision(
            DescribedGroup(
                group_id=group_id,
                error_code=ErrorCode.GROUP_ID_NOT_FOUND,
                error_message=f"Group {group_id} {what}.",
            )
        )
    image = shard.image()
    default = shard.consumer.settings(group_id).assignors[0]
    return Decision(
        DescribedGroup(
            group_id=group_id,
            group_state=group.state,
            group_epoch=group.epoch,
            assignment_epoch=group.assignment_epoch,
            assignor_name=group.assignor(default),
            members=[_member(group, member, image) for member in group.members.values()],
        )
    )


def _member(group: ConsumerGroup, member: consumer_member.Member, image: ClusterImage) -> Member:
    owned: dict[TopicId, list[int]] = {}
    for held in (member.assigned, member.revoking):
        for topic, numbers in held.items():
            owned.setdefault(topic, []).extend(numbers)
    return Member(
        member_id=member.id,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        member_epoch=member.epoch,
        client_id=member.client_id,
        client_host=member.client_host,
        subscribed_topic_names=list(member.topics),
        subscribed_topic_regex=member.regex,
        assignment=_assignment(owned.items(), image),
        target_assignment=_assignment(group.targets.get(member.id, NO_ASSIGNMENT).items(), image),
        member_type=CONSUMER_MEMBER if member.classic is None else CLASSIC_MEMBER,
    )


def _assignment(
    partitions: Iterable[tuple[TopicId, Iterable[int]]], image: ClusterImage
) -> Assignment:
    return Assignment(
        topic_partitions=[
            TopicPartitions(
                topic_id=topic, topic_name=image.by_id[topic].name, partitions=sorted(numbers)
            )
            for topic, numbers in partitions
            if topic in image.by_id
        ]
    )
