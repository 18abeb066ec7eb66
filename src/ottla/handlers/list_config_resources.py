"""ListConfigResources, key 74, versions 0 to 1.

v0 client metrics alone, of which there are none here · v1 the types asked for, by default all:
topics, brokers and their loggers, and groups that have settings of their own (KIP-1142).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ottla.cluster import keys
from ottla.cluster.configs import ResourceType
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

if TYPE_CHECKING:
    from ottla.cluster.image import ClusterImage
    from ottla.handlers.context import Context, Request

BY_TYPE_SINCE = 1


def handle(context: Context, request: Request[ListConfigResourcesRequest]) -> Reply:
    """UNSUPPORTED_VERSION, and nothing listed, where a type is unknown."""
    wanted = set(request.body.resource_types)
    if request.api_version < BY_TYPE_SINCE:
        wanted = {int(ResourceType.CLIENT_METRICS)}
    if not wanted <= set(ResourceType):
        return Reply(ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION))
    image = context.image()
    resources = [
        ConfigResource(resource_name=name, resource_type=kind)
        for kind in sorted(wanted or set(ResourceType), reverse=True)
        for name in _names(image, kind)
    ]
    return Reply(ListConfigResourcesResponse(config_resources=resources))


def _names(image: ClusterImage, kind: int) -> Iterable[str]:
    match kind:
        case ResourceType.TOPIC:
            return sorted(image.topics)
        case ResourceType.BROKER | ResourceType.BROKER_LOGGER:
            return [str(node) for node in sorted(image.nodes)]
        case ResourceType.GROUP:
            prefix = keys.group_settings("")
            return sorted(
                key.removeprefix(prefix) for key in image.settings if key.startswith(prefix)
            )
        case _:
            return ()
