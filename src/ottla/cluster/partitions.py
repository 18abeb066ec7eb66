"""More partitions for a topic: what it would be, or why it can't. Decisions without any effect.

Owns the checks of CreatePartitions, in Apache Kafka 4.3.1's order. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ottla.cluster.image import ClusterImage, PartitionImage, TopicImage
from ottla.cluster.names import is_internal
from ottla.cluster.topics import Refused, assignment_fault, limited
from ottla.core.config import Config
from ottla.core.model import LeaderEpoch, NodeId
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode


class MorePartitions(Value):
    """How many partitions a topic shall have. `assignments` are the replicas of the new ones.

    None leaves their placement to the controller.
    """

    name: str
    count: int
    assignments: Sequence[Sequence[int]] | None = None


def plan_more(
    more: MorePartitions, image: ClusterImage, config: Config, first_node: int
) -> TopicImage | Refused:
    """The topic with its new partitions, or the first reason against them.

    `image.partitions_count` must count those on their way.
    """
    topic = image.topics.get(more.name)
    if topic is None:
        return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    has = len(topic.partitions)
    if more.count == has:
        return Refused(ErrorCode.INVALID_PARTITIONS, f"Topic already has {has} partition(s).")
    if more.count < has:
        return Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {more.name} currently has {has} partition(s); "
            f"{more.count} would not be an increase.",
        )
    if is_internal(more.name):
        # Kafka takes it, and after its next start looks for each group and transactional id in
        # another partition than the one that has it: all of them are gone.
        return Refused(
            ErrorCode.INVALID_PARTITIONS,
            f"The number of partitions of {more.name} says which of them has a group or a "
            "transactional id: it can't change.",
        )
    added = more.count - has
    if refused := limited(more.count, image.partitions_count - has, config):
        return refused
    replicas_count = len(topic.partitions[0].replicas)
    if more.assignments is None:
        nodes = sorted(image.nodes)
        placed = [
            tuple(nodes[(first_node + partition + n) % len(nodes)] for n in range(replicas_count))
            for partition in range(added)
        ]
    else:
        if len(more.assignments) != added:
            message = (
                f"Attempted to add {added} additional partition(s), but only "
                f"{len(more.assignments)} assignment(s) were specified."
            )
            return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
        placed = []
        for one in more.assignments:
            fault = assignment_fault(one, image)
            if fault is None and len(one) != replicas_count:
                fault = (
                    "The manual partition assignment includes a partition with "
                    f"{len(one)} replica(s), but this is not consistent with previous "
                    f"partitions, which have {replicas_count} replica(s)."
                )
            if fault is not None:
                return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, fault)
            placed.append(tuple(NodeId(node) for node in one))
    # As with a new topic: a log without records can't lag, so all replicas are in sync.
    new = (PartitionImage(nodes[0], LeaderEpoch(0), nodes, nodes) for nodes in placed)
    return topic.replace(partitions=(*topic.partitions, *new))
