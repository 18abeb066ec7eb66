"""What a new topic would be, or why it can't: decisions without any effect.

Owns the checks of a creation, in Apache Kafka 4.3.1's order, and where replicas are placed.
Pure: reads an image, returns values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ottla.cluster.image import ClusterImage, PartitionImage, TopicImage
from ottla.cluster.names import METADATA_TOPIC, name_fault
from ottla.core import options
from ottla.core.config import Config, InvalidConfig
from ottla.core.model import NO_TOPIC_ID, LeaderEpoch, NodeId, TopicId
from ottla.core.topic_config import check_topic_config
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode

USE_DEFAULT = -1
"""For a count of partitions or replicas: the broker's default (KIP-464)."""

_NO_CONFIGS: Mapping[str, str | None] = {}


class NewTopic(Value):
    """A topic that someone asks for. `assignments` are (partition, its replicas) in any order.

    A config of None is what a client sent as null.
    """

    name: str
    partitions_count: int = USE_DEFAULT
    replication_factor: int = USE_DEFAULT
    assignments: Sequence[tuple[int, Sequence[int]]] = ()
    configs: Mapping[str, str | None] = _NO_CONFIGS


class TopicResult(Value):
    """What became of one topic of a request. `topic` is as created (or deleted) if `error` is NONE.

    `name` is None only where a deletion named an id that no topic has.
    """

    name: str | None
    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    topic_id: TopicId = NO_TOPIC_ID
    topic: TopicImage | None = None


class Refused(Value):
    """Why something can't be done. Where Kafka says no more than the code, nor do we."""

    error: ErrorCode
    message: str | None = None


def plan(
    new: NewTopic, image: ClusterImage, config: Config, topic_id: TopicId, first_node: int
) -> TopicImage | Refused:
    """The topic that would be created, or the first reason against it, its name apart.

    Placement goes round the nodes from the `first_node`-th on, so that leaders spread.
    """
    given = {name: text for name, text in new.configs.items() if text is not None}
    try:
        check_topic_config(config, given)
    except InvalidConfig as fault:
        return Refused(ErrorCode.INVALID_CONFIG, str(fault))
    if len(given) != len(new.configs):
        nulls = ", ".join(name for name in new.configs if name not in given)
        message = f"Null value not supported for topic configs: {nulls}"
        return Refused(ErrorCode.INVALID_CONFIG, message)
    placed = _assigned(new, image) if new.assignments else _placed(new, image, config, first_node)
    if isinstance(placed, Refused):
        return placed
    if refused := limited(len(placed), image.partitions_count, config):
        return refused
    # The first replica leads, and all are in sync: a log without records can't lag.
    partitions = tuple(PartitionImage(one[0], LeaderEpoch(0), one, one) for one in placed)
    return TopicImage(new.name, topic_id, partitions, given)


def check_name(name: str, image: ClusterImage) -> Refused | None:
    """Whether a topic may have this name, and no other topic has it."""
    if name == METADATA_TOPIC:
        message = f"Creation of internal topic {METADATA_TOPIC} is prohibited."
        return Refused(ErrorCode.INVALID_REQUEST, message)
    if fault := name_fault(name):
        return Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, fault)
    if name in image.topics:
        return Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    return None


def _assigned(new: NewTopic, image: ClusterImage) -> list[tuple[NodeId, ...]] | Refused:
    """The replicas of each partition as the request names them."""
    said = "A manual partition assignment was specified, but"
    if new.replication_factor != USE_DEFAULT:
        message = f"{said} replication factor was not set to -1."
        return Refused(ErrorCode.INVALID_REQUEST, message)
    if new.partitions_count != USE_DEFAULT:
        return Refused(ErrorCode.INVALID_REQUEST, f"{said} numPartitions was not set to -1.")
    placed: dict[int, tuple[NodeId, ...]] = {}
    for partition, nodes in new.assignments:
        fault = assignment_fault(nodes, image)
        if partition in placed:
            fault = f"Found multiple manual partition assignments for partition {partition}"
        if fault is not None:
            return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, fault)
        placed[partition] = tuple(NodeId(node) for node in nodes)
    if placed.keys() != set(range(len(placed))):
        message = "partitions should be a consecutive 0-based integer sequence"
        return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
    if len({len(nodes) for nodes in placed.values()}) > 1:
        message = "The manual partition assignment gives partitions different replica counts."
        return Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
    return [placed[partition] for partition in range(len(placed))]


def assignment_fault(nodes: Sequence[int], image: ClusterImage) -> str | None:
    """Why these can't be the replicas of a partition, in Kafka's words, or None if they can."""
    said = "The manual partition assignment includes"
    if not nodes:
        return f"{said} an empty replica list."
    for node in sorted(nodes):
        if node not in image.nodes:
            return f"{said} broker {node}, but no such broker is registered."
    for node in nodes:
        if nodes.count(node) > 1:
            return f"{said} the broker {node} more than once."
    return None


def _placed(
    new: NewTopic, image: ClusterImage, config: Config, first_node: int
) -> list[tuple[NodeId, ...]] | Refused:
    """Replicas spread over the nodes. A count is checked before anything of its size is made."""
    replicas, partitions = new.replication_factor, new.partitions_count
    if replicas == USE_DEFAULT:
        replicas = config[options.DEFAULT_REPLICATION_FACTOR]
    if partitions == USE_DEFAULT:
        partitions = config[options.NUM_PARTITIONS]
    if replicas <= 0:
        message = "Replication factor must be larger than 0, or -1 to use the default value."
        return Refused(ErrorCode.INVALID_REPLICATION_FACTOR, message)
    if partitions <= 0:
        message = "Number of partitions was set to an invalid non-positive value."
        return Refused(ErrorCode.INVALID_PARTITIONS, message)
    if refused := limited(partitions, image.partitions_count, config):
        return refused
    nodes = sorted(image.nodes)
    if replicas > len(nodes):
        message = (
            f"The replication factor of {replicas} cannot be reached because only "
            f"{len(nodes)} broker(s) are registered."
        )
        return Refused(ErrorCode.INVALID_REPLICATION_FACTOR, message)
    return [
        tuple(nodes[(first_node + partition + n) % len(nodes)] for n in range(replicas))
        for partition in range(partitions)
    ]


def limited(partitions: int, existing: int, config: Config) -> Refused | None:
    """Whether a topic of so many partitions passes a cap, beside `existing` of other topics."""
    per_topic, total = (
        config[options.MAX_PARTITIONS_PER_TOPIC],
        config[options.MAX_PARTITIONS_TOTAL],
    )
    if partitions > per_topic:
        message = f"A topic may have {per_topic} partitions at most (max.partitions.per.topic)."
        return Refused(ErrorCode.POLICY_VIOLATION, message)
    if existing + partitions > total:
        message = f"All topics may have {total} partitions at most (max.partitions.total)."
        return Refused(ErrorCode.POLICY_VIOLATION, message)
    return None
