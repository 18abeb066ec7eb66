"""ApiVersions, key 18, versions 0 to 4.

Answers what the registry says. It depends on nothing but the version, so it is encoded once.
v1 throttle time · v3 flexible, client software (KIP-511), features (KIP-584)
v4 features whose range begins at 0.
An unknown version is answered in v0 with UNSUPPORTED_VERSION and the range, by `dispatch.py`.
`group.version` 1 says that there are consumer groups (KIP-848), `transaction.version` 2 that each
transaction has an epoch of its own and that producing adds partitions to it (KIP-890).
Not done: `share.version` and the like are not named until they are true; clients then fall back
to what there is.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from ottla.handlers.registry import APIS, Api
from ottla.handlers.reply import Reply
from ottla.protocol.codec import encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

SOFTWARE_SINCE = 3
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")

METADATA_VERSION = "metadata.version"
METADATA_LEVEL_LOWEST, METADATA_LEVEL = 7, 30
"""Kafka 4.3's levels (3.3-IV3 to 4.3-IV0)."""
GROUP_VERSION = "group.version"
GROUP_LEVEL = 1
TRANSACTION_VERSION = "transaction.version"
TRANSACTION_LEVEL = 2
ZERO_SINCE = 4
"""Before, clients can't read a supported range that begins at 0 (KAFKA-17492)."""
FEATURES_EPOCH = 0


def handle(_context: Context, request: Request[ApiVersionsRequest]) -> Reply:
    """INVALID_REQUEST for client software that is named against the rules, from v3 on."""
    version = request.api_version
    if version >= SOFTWARE_SINCE:
        name, software_version = (
            request.body.client_software_name,
            request.body.client_software_version,
        )
        if not _SOFTWARE.fullmatch(name) or not _SOFTWARE.fullmatch(software_version):
            return Reply(ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST))
        request.connection.client_software_name = name
        request.connection.client_software_version = software_version
    return Reply(_encoded(version))


@cache
def _encoded(version: int) -> bytes:
    from_zero = [
        SupportedFeatureKey(name=name, min_version=0, max_version=level)
        for name, level in ((GROUP_VERSION, GROUP_LEVEL), (TRANSACTION_VERSION, TRANSACTION_LEVEL))
    ]
    response = ApiVersionsResponse(
        api_keys=_ranges(APIS),
        supported_features=[
            SupportedFeatureKey(
                name=METADATA_VERSION,
                min_version=METADATA_LEVEL_LOWEST,
                max_version=METADATA_LEVEL,
            ),
            *(from_zero if version >= ZERO_SINCE else []),
        ],
        finalized_features_epoch=FEATURES_EPOCH,
        finalized_features=[
            FinalizedFeatureKey(
                name=METADATA_VERSION,
                max_version_level=METADATA_LEVEL,
                min_version_level=METADATA_LEVEL,
            ),
            FinalizedFeatureKey(
                name=GROUP_VERSION, max_version_level=GROUP_LEVEL, min_version_level=GROUP_LEVEL
            ),
            FinalizedFeatureKey(
                name=TRANSACTION_VERSION,
                max_version_level=TRANSACTION_LEVEL,
                min_version_level=TRANSACTION_LEVEL,
            ),
        ],
    )
    return _bytes(response, version)


def unsupported(api: Api) -> bytes:
    """The body for a version that is not known here, in v0: all versions begin alike."""
    response = ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=_ranges((api,))
    )
    return _bytes(response, 0)


def _ranges(apis: tuple[Api, ...]) -> list[ApiVersion]:
    return [
        ApiVersion(api_key=api.key, min_version=api.lowest, max_version=api.highest) for api in apis
    ]


def _bytes(response: ApiVersionsResponse, version: int) -> bytes:
    (body,) = encoder(ApiVersionsResponse, version)(response)
    assert isinstance(body, bytes)
    return body
