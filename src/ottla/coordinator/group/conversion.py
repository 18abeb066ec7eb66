"""One group as a group of the other protocol.

Owns the translation of members, subscriptions and assignments, both ways. Must not decide whether
a group may be converted, nor tell anybody: `mixed.py` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries.offsets_topic import (
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
    encode_entry,
)
from ottla.coordinator.group.assignors import NO_ASSIGNMENT
from ottla.coordinator.group.consumer_group import PROTOCOL_TYPE, ConsumerGroup
from ottla.coordinator.group.consumer_member import Classic, Member
from ottla.coordinator.group.consumer_protocol import (
    read_assignment,
    read_subscription,
    version_of,
    write_assignment,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.coordinator.group.classic import ClassicGroup
    from ottla.coordinator.group.draft import Draft
    from ottla.core.model import TopicId

_RECORD_OVERHEAD = 32
"""The most that a record has beside its key and value."""


def as_consumer_group(classic: ClassicGroup, image: ClusterImage) -> ConsumerGroup | str:
    """The group at the epoch of its generation, with what its leader assigned as the target.

    A text says why it can't be.
    """
    group = ConsumerGroup(classic.id)
    group.epoch = group.assignment_epoch = classic.generation
    for old in classic.members:
        assignment = read_assignment(old.assignment)
        subscription = read_subscription(
            old.metadata(classic.protocol) or (old.protocols[0][1] if old.protocols else b"")
        )
        if assignment is None or subscription is None:
            return "the embedded consumer protocol is malformed"
        if assignment.user_data:
            return (
                "an unsupported custom assignor is in use. Please refer to the documentation or "
                "switch to a default assignor before re-attempting the upgrade"
            )
        target: dict[TopicId, frozenset[int]] = {
            image.topics[each.topic].id: frozenset(each.partitions)
            for each in assignment.assigned_partitions
            if each.topic in image.topics and each.partitions
        }
        member = Member(
            old.id,
            instance_id=old.instance_id,
            rack_id=subscription.rack_id,
            client_id=old.client_id,
            client_host=old.client_host,
            topics=tuple(sorted(set(subscription.topics))),
            rebalance_ms=old.rebalance_timeout_ms,
            classic=Classic(old.session_timeout_ms, old.protocols),
            epoch=classic.generation,
            previous_epoch=classic.generation,
            assigned={
                topic: dict.fromkeys(sorted(numbers), classic.generation)
                for topic, numbers in target.items()
            },
        )
        group.admit(member, target)
    return group


def as_classic_entry(
    draft: Draft, members: Sequence[Member], now_ms: int, *, is_complete: bool
) -> Entry:
    """The record of a stable classic group of these members, in the generation of the draft's
    epoch, each with its target as its assignment.

    Unless that is complete nobody leads: so whoever reads the record, also after a crash, knows
    that the members must join again. (Kafka forgets it, and what the last member had is nobody's.)
    """
    group = draft.group
    protocol = _select({member.id: _protocols(member) for member in members})
    topics = draft.image.by_id
    stored = []
    for member in members:
        assert member.classic is not None, "only classic members are left"
        metadata = dict(member.classic.protocols).get(protocol, b"")
        target = draft.targets.get(member.id, NO_ASSIGNMENT)
        stored.append(
            MemberMetadata(
                member_id=member.id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_ms,
                session_timeout=member.classic.session_ms,
                subscription=metadata,
                assignment=write_assignment(
                    [
                        (topics[topic].name, held)
                        for topic, held in target.items()
                        if topic in topics
                    ],
                    version_of(metadata),
                ),
            )
        )
    value = GroupMetadataValue(
        protocol_type=PROTOCOL_TYPE,
        generation=draft.epoch,
        protocol=protocol,
        leader=members[0].id if is_complete else None,
        current_state_timestamp=now_ms,
        members=stored,
    )
    return Entry(GroupMetadataKey(group=group.id), value)


def bytes_as_classic(draft: Draft, members: Sequence[Member]) -> int:
    """How long the records would be, and never longer, that make a classic group of these,
    those included that are in the draft."""
    entries = [*draft.entries, *draft.group.end()]
    entries.append(as_classic_entry(draft, members, 0, is_complete=True))
    sizes = (len(key) + len(value or b"") for key, value in map(encode_entry, entries))
    return sum(sizes) + _RECORD_OVERHEAD * len(entries)


def _protocols(member: Member) -> list[str]:
    assert member.classic is not None, "only classic members are left"
    return [name for name, _ in member.classic.protocols]


def _select(protocols: Mapping[str, Iterable[str]]) -> str:
    """Of the protocols that all know, the one that most like best."""
    wishes = [list(each) for each in protocols.values()]
    common = [name for name in wishes[0] if all(name in each for each in wishes)]
    votes = Counter(next(name for name in each if name in common) for each in wishes if common)
    return max(common, key=lambda name: votes[name]) if common else wishes[0][0]
