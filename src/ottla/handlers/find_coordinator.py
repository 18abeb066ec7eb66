"""FindCoordinator, key 10, versions 0 to 6.

A single node is the coordinator of every group and every transactional id, known or not.
v1 key type, error message · v3 flexible · v4 several keys (KIP-699) · v6 share groups (KIP-932).
Not done: share groups, answered COORDINATOR_NOT_AVAILABLE, as Kafka does while it has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.limits import too_many
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

GROUP, TRANSACTION, SHARE = range(3)
KEYS_SINCE = 4
SHARE_SINCE = 6


def handle(context: Context, request: Request[FindCoordinatorRequest]) -> Reply:
    """This node for each key; INVALID_REQUEST for an unknown key type, or for too many keys."""
    body = request.body
    version = request.api_version
    keys = body.coordinator_keys if version >= KEYS_SINCE else [body.key]
    error = _fault(body.key_type, version)
    if too_many(context, request, len(keys)):
        error = ErrorCode.INVALID_REQUEST
    found = [_answer(context, request, key, error) for key in keys]
    if version >= KEYS_SINCE:
        return Reply(FindCoordinatorResponse(coordinators=found))
    one = found[0]
    return Reply(
        FindCoordinatorResponse(
            error_code=one.error_code,
            error_message=error.name,
            node_id=one.node_id,
            host=one.host,
            port=one.port,
        )
    )


def _fault(key_type: int, version: int) -> ErrorCode:
    if key_type in (GROUP, TRANSACTION):
        return ErrorCode.NONE
    if key_type == SHARE and version >= SHARE_SINCE:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    return ErrorCode.INVALID_REQUEST


def _answer(
    context: Context, request: Request[FindCoordinatorRequest], key: str, error: ErrorCode
) -> Coordinator:
    if error:
        return Coordinator(
            key=key, error_code=error, error_message=error.name, node_id=-1, host="", port=-1
        )
    host, port = request.connection.endpoint
    return Coordinator(key=key, error_message="", node_id=context.node_id, host=host, port=port)
