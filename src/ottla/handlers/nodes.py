"""The nodes as one client is told of them, and what it may do while there is no authorizer.

Shared by Metadata and DescribeCluster, which must agree. Must not know messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.image import Node

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.handlers.context import ConnectionState, Context

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
