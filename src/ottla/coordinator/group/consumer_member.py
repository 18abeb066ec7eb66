"""A member of a consumer group, as it is durable: immutable, and made anew for each change.

Owns its shape and the way between it and the records of the internal topic. Must not decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeAlias

from ottla.coordinator.entries.offsets_topic import (
    AssignedTopicPartitions,
    ClassicMemberMetadata,
    ClassicProtocol,
    ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataValue,
)
from ottla.core.model import TopicId
from ottla.core.value import Value

Epochs: TypeAlias = Mapping[TopicId, Mapping[int, int]]
"""Partitions by topic, each with the epoch in which the member got it. Never change one."""

NOTHING: Final[Epochs] = {}

LEFT: Final = -1
"""The epoch of a member that leaves for good."""
LEFT_FOR_NOW: Final = -2
"""The epoch of a static member that will be back."""


class MemberState(IntEnum):
    """As in the records. A member whose state is not known counts as UNRELEASED."""

    STABLE = 1
    """It owns what its epoch says."""
    UNREVOKED = 2
    """It has been told to give partitions up, and has not said that it has."""
    UNRELEASED = 3
    """It waits for partitions that other members still own."""


class Classic(Value):
    """What a member that speaks the classic protocol has said in JoinGroup."""

    session_ms: int
    protocols: tuple[tuple[str, bytes], ...]


class Member(Value):
    """`topics` are sorted names. `regex` is "" where there is none.

    `assigned` is what it may work on, `revoking` what it has been told to give up.
    """

    id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: tuple[str, ...] = ()
    regex: str = ""
    rebalance_ms: int = -1
    assignor: str | None = None
    classic: Classic | None = None
    epoch: int = 0
    previous_epoch: int = -1
    state: MemberState = MemberState.STABLE
    assigned: Epochs = NOTHING
    revoking: Epochs = NOTHING

    def subscription_value(self) -> ConsumerGroupMemberMetadataValue:
        return ConsumerGroupMemberMetadataValue(
            instance_id=self.instance_id,
            rack_id=self.rack_id,
            client_id=self.client_id,
            client_host=self.client_host,
            subscribed_topic_names=list(self.topics),
            subscribed_topic_regex=self.regex,
            rebalance_timeout_ms=self.rebalance_ms,
            server_assignor=self.assignor,
            classic_member_metadata=_classic_value(self.classic),
        )

    def said_bytes(self) -> int:
        """About how much it has said of itself, and had kept: characters and bytes."""
        texts = (self.id, self.instance_id, self.rack_id, self.client_id, self.regex, *self.topics)
        count = sum(len(text) for text in texts if text)
        if self.classic is not None:
            count += sum(len(name) + len(metadata) for name, metadata in self.classic.protocols)
        return count

    def with_subscription(self, value: ConsumerGroupMemberMetadataValue) -> Member:
        return self.replace(
            instance_id=value.instance_id,
            rack_id=value.rack_id,
            client_id=value.client_id,
            client_host=value.client_host,
            topics=tuple(sorted(value.subscribed_topic_names)),
            regex=value.subscribed_topic_regex or "",
            rebalance_ms=value.rebalance_timeout_ms,
            assignor=value.server_assignor,
            classic=_classic(value.classic_member_metadata),
        )

    def assignment_value(self) -> ConsumerGroupCurrentMemberAssignmentValue:
        return ConsumerGroupCurrentMemberAssignmentValue(
            member_epoch=self.epoch,
            previous_member_epoch=self.previous_epoch,
            state=self.state,
            assigned_partitions=_epochs_value(self.assigned),
            partitions_pending_revocation=_epochs_value(self.revoking),
        )

    def with_assignment(self, value: ConsumerGroupCurrentMemberAssignmentValue) -> Member:
        known = value.state in MemberState.__members__.values()
        return self.replace(
            epoch=value.member_epoch,
            previous_epoch=value.previous_member_epoch,
            state=MemberState(value.state) if known else MemberState.UNRELEASED,
            assigned=_epochs(value.assigned_partitions, value.member_epoch),
            revoking=_epochs(value.partitions_pending_revocation, value.member_epoch),
        )

    def epoch_of(self, topic: TopicId, partition: int) -> int | None:
        """Since when the member has the partition; None if it does not."""
        found = self.assigned.get(topic, {}).get(partition)
        return self.revoking.get(topic, {}).get(partition) if found is None else found

    def is_at(self, epoch: int) -> bool:
        """Whether it has all that the target of that epoch gives it."""
        return self.state is MemberState.STABLE and self.epoch == epoch


def _classic_value(classic: Classic | None) -> ClassicMemberMetadata | None:
    if classic is None:
        return None
    return ClassicMemberMetadata(
        session_timeout_ms=classic.session_ms,
        supported_protocols=[
            ClassicProtocol(name=name, metadata=metadata) for name, metadata in classic.protocols
        ],
    )


def _classic(value: ClassicMemberMetadata | None) -> Classic | None:
    if value is None:
        return None
    protocols = tuple((each.name, bytes(each.metadata)) for each in value.supported_protocols)
    return Classic(value.session_timeout_ms, protocols)


def _epochs_value(epochs: Epochs) -> list[AssignedTopicPartitions]:
    return [
        AssignedTopicPartitions(
            topic_id=topic,
            partitions=sorted(held),
            assignment_epochs=[held[partition] for partition in sorted(held)],
        )
        for topic, held in epochs.items()
    ]


def _epochs(value: list[AssignedTopicPartitions], member_epoch: int) -> Epochs:
    """Records of before assignment epochs (KIP-1251) have none: the member's stands in."""
    epochs: dict[TopicId, dict[int, int]] = {}
    for each in value:
        since = each.assignment_epochs
        if since is None or len(since) != len(each.partitions):
            since = [max(member_epoch, 0)] * len(each.partitions)
        epochs[TopicId(each.topic_id)] = dict(zip(each.partitions, since, strict=True))
    return epochs
