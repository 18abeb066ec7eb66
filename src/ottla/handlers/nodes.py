"""Nodes and partitions as one client is told of them, and what it may do without an authorizer.

Shared by Metadata, DescribeCluster and DescribeTopicPartitions, which must agree. Must not know
messages beyond the one shape that two of them have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ottla.cluster.image import NO_NODE, Node
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage, PartitionImage
    from ottla.handlers.context import ConnectionState, Context
    from ottla.protocol.messages.describe_topic_partitions import (
        DescribeTopicPartitionsResponsePartition,
    )
    from ottla.protocol.messages.metadata import MetadataResponsePartition

Told = TypeVar("Told", "MetadataResponsePartition", "DescribeTopicPartitionsResponsePartition")

NOT_ASKED = -(1 << 31)
"""Authorized operations where the client did not ask for them (KIP-430)."""


def _bits(*operations: int) -> int:
    return sum(1 << operation for operation in operations)


# Numbers of org.apache.kafka.common.acl.AclOperation. Without an authorizer everything that
# applies to a resource is allowed; so Kafka answers, too: 3576 and 8096.
_READ, _WRITE, _CREATE, _DELETE, _ALTER, _DESCRIBE, _CLUSTER_ACTION = range(3, 10)
_DESCRIBE_CONFIGS, _ALTER_CONFIGS, _IDEMPOTENT_WRITE = range(10, 13)
TOPIC_OPERATIONS = _bits(
    _READ, _WRITE, _CREATE, _DELETE, _ALTER, _DESCRIBE, _DESCRIBE_CONFIGS, _ALTER_CONFIGS
)
GROUP_OPERATIONS = _bits(_READ, _DELETE, _DESCRIBE, _DESCRIBE_CONFIGS, _ALTER_CONFIGS)
CLUSTER_OPERATIONS = _bits(
    _CREATE,
    _ALTER,
    _DESCRIBE,
    _CLUSTER_ACTION,
    _DESCRIBE_CONFIGS,
    _ALTER_CONFIGS,
    _IDEMPOTENT_WRITE,
)


def nodes_for(context: Context, image: ClusterImage, connection: ConnectionState) -> list[Node]:
    """All nodes by id. This one has the address by which the client came."""
    me = context.node_id
    known = image.nodes.get(me)
    host, port = connection.endpoint
    here = Node(me, host, port, known.rack if known else None)
    others = (node for node in image.nodes.values() if node.id != me)
    return sorted([here, *others], key=lambda node: node.id)


def tell_partition(
    answer: Told, image: ClusterImage, number: int, partition: PartitionImage
) -> Told:
    """`answer` with what it has to say of a partition: LEADER_NOT_AVAILABLE where nobody leads."""
    if partition.leader == NO_NODE:
        answer.error_code = ErrorCode.LEADER_NOT_AVAILABLE
    answer.partition_index = number
    answer.leader_id = partition.leader
    answer.leader_epoch = partition.leader_epoch
    answer.replica_nodes = list(partition.replicas)
    answer.isr_nodes = list(partition.isr)
    answer.offline_replicas = [node for node in partition.replicas if node not in image.nodes]
    return answer
