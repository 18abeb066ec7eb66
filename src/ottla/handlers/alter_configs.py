"""AlterConfigs, key 33, versions 0 to 2.

All that is set for a resource becomes what the request names. Superseded by
IncrementalAlterConfigs, which loses nothing that somebody else has set.
v1 throttled by the client · v2 flexible
Not as Kafka: a resource named twice is INVALID_REQUEST; Kafka 4.3.1 never answers that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ottla.cluster.configs import Alteration, ConfigOp
from ottla.cluster.topics import Refused
from ottla.handlers.altering import TOO_MANY, altered
from ottla.handlers.limits import too_many
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[AlterConfigsRequest]) -> Reply | Parked:
    """One answer for each resource, in order, when this node's metadata has what was set.

    INVALID_REQUEST for each of too many.
    """
    resources = request.body.resources

    def reply(outcomes: Sequence[Refused | None]) -> Reply:
        responses = [
            AlterConfigsResourceResponse(
                error_code=ErrorCode.NONE if outcome is None else outcome.error,
                error_message=None if outcome is None else outcome.message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
            for resource, outcome in zip(resources, outcomes, strict=True)
        ]
        return Reply(AlterConfigsResponse(responses=responses))

    if too_many(context, request, len(resources)):
        return reply([TOO_MANY] * len(resources))
    alterations = [
        Alteration(
            resource.resource_type,
            resource.resource_name,
            [(one.name, ConfigOp.SET, one.value) for one in resource.configs],
            replaces_all=True,
        )
        for resource in resources
    ]
    return altered(context, alterations, request.body.validate_only, reply)
