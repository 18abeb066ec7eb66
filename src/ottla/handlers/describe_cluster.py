"""DescribeCluster, key 60, versions 0 to 2.

v1 endpoint type (KIP-919): brokers only; a broker's listener knows no controllers.
v2 fenced brokers on request: a node that is registered here is never fenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.nodes import CLUSTER_OPERATIONS, NOT_ASKED, nodes_for
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

BROKERS, CONTROLLERS = 1, 2


def handle(context: Context, request: Request[DescribeClusterRequest]) -> Reply:
    """MISMATCHED_ENDPOINT_TYPE for controllers, UNSUPPORTED_ENDPOINT_TYPE for anything else."""
    endpoint_type = request.body.endpoint_type
    if endpoint_type == CONTROLLERS:
        return _refused(
            ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of "
            "type CONTROLLER",
        )
    if endpoint_type != BROKERS:
        return _refused(
            ErrorCode.UNSUPPORTED_ENDPOINT_TYPE, f"Unsupported endpoint type {endpoint_type}"
        )
    image = context.image()
    asked = request.body.include_cluster_authorized_operations
    return Reply(
        DescribeClusterResponse(
            cluster_id=image.cluster_id,
            controller_id=image.controller_id,
            brokers=[
                DescribeClusterBroker(
                    broker_id=node.id, host=node.host, port=node.port, rack=node.rack
                )
                for node in nodes_for(context, image, request.connection)
            ],
            cluster_authorized_operations=CLUSTER_OPERATIONS if asked else NOT_ASKED,
        )
    )


def _refused(error: ErrorCode, message: str) -> Reply:
    return Reply(DescribeClusterResponse(error_code=error, error_message=message))
