"""IncrementalAlterConfigs, key 44, versions 0 to 1.

Each setting is set, deleted, or has items put into its list or taken out (KIP-339). Levels of
loggers are set in this process and forgotten with it.
v1 flexible
Not as Kafka: an unknown operation is INVALID_REQUEST for its resource, not UNKNOWN_SERVER_ERROR
for all; an unknown name of a broker's is INVALID_CONFIG, while Kafka stores it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ottla.cluster.configs import Alteration, ResourceType
from ottla.cluster.topics import Refused
from ottla.handlers.altering import TOO_MANY, altered
from ottla.handlers.limits import too_many
from ottla.handlers.loggers import alter_loggers
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.incremental_alter_configs import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request


def handle(context: Context, request: Request[IncrementalAlterConfigsRequest]) -> Reply | Parked:
    """One answer for each resource, in order, when this node's metadata has what was set.

    INVALID_REQUEST for each of too many.
    """
    body = request.body
    alterations = [
        Alteration(
            resource.resource_type,
            resource.resource_name,
            [(one.name, one.config_operation, one.value) for one in resource.configs],
        )
        for resource in body.resources
    ]
    if too_many(context, request, len(alterations)):
        return _answer(alterations, [TOO_MANY] * len(alterations))
    loggers = Counter(
        one.name for one in alterations if one.resource_type == ResourceType.BROKER_LOGGER
    )
    others = [one for one in alterations if one.resource_type != ResourceType.BROKER_LOGGER]

    def reply(outcomes: Sequence[Refused | None]) -> Reply:
        said = iter(outcomes)
        return _answer(
            alterations,
            [
                _log_levels(context, one, loggers[one.name], body.validate_only)
                if one.resource_type == ResourceType.BROKER_LOGGER
                else next(said)
                for one in alterations
            ],
        )

    return altered(context, others, body.validate_only, reply)


def _answer(alterations: Sequence[Alteration], outcomes: Sequence[Refused | None]) -> Reply:
    responses = [
        AlterConfigsResourceResponse(
            error_code=ErrorCode.NONE if outcome is None else outcome.error,
            error_message=None if outcome is None else outcome.message,
            resource_type=one.resource_type,
            resource_name=one.name,
        )
        for one, outcome in zip(alterations, outcomes, strict=True)
    ]
    return Reply(IncrementalAlterConfigsResponse(responses=responses))


def _log_levels(
    context: Context, wanted: Alteration, times: int, validate_only: bool
) -> Refused | None:
    me = str(context.node_id)
    if times > 1:
        return Refused(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
    if wanted.name != me:
        message = f"Unexpected node id. Expected {me}, but received {wanted.name}"
        return Refused(ErrorCode.INVALID_REQUEST, message)
    names = [name for name, _, _ in wanted.changes]
    if len(set(names)) < len(names):
        return Refused(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
    return alter_loggers(wanted.changes, validate_only=validate_only)
