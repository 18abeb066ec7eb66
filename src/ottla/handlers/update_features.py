"""UpdateFeatures, key 57, versions 0 to 2.

The features, `metadata.version`, `group.version` and `transaction.version`, stand at the one level
that ottla speaks: to set one to that level is fine, and anything else is refused in Kafka's words.
Not as Kafka: `group.version` can't be set to 0, which there ends consumer groups, nor
`transaction.version` to 0 or 1, with which clients would have their old transactions: those that
ask for them, by the versions of their requests, have them anyway.
v1 kinds of upgrade, validate only · v2 no result for each feature (KIP-1022)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.handlers.api_versions import (
    GROUP_LEVEL,
    GROUP_VERSION,
    METADATA_LEVEL,
    METADATA_LEVEL_LOWEST,
    METADATA_VERSION,
    TRANSACTION_LEVEL,
    TRANSACTION_VERSION,
)
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

TYPES_SINCE = 1
UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3


def handle(context: Context, request: Request[UpdateFeaturesRequest]) -> Reply:
    """INVALID_UPDATE_VERSION for the whole request, for the first feature that can't be so."""
    # As in Kafka the last counts where one is named twice.
    updates = {update.feature: update for update in request.body.feature_updates}
    for update in updates.values():
        kind = update.upgrade_type
        if request.api_version < TYPES_SINCE:
            kind = SAFE_DOWNGRADE if update.allow_downgrade else UPGRADE
        if fault := _fault(update, kind, context.node_id):
            message = (
                "The update failed for all features since the following feature had an error: "
                f"{fault}"
            )
            error = ErrorCode.INVALID_UPDATE_VERSION
            return Reply(UpdateFeaturesResponse(error_code=error, error_message=message))
    results = [UpdatableFeatureResult(feature=name, error_message="NONE") for name in updates]
    return Reply(UpdateFeaturesResponse(error_message=None, results=results))


_FROM_ZERO = {
    GROUP_VERSION: (GROUP_LEVEL, "Consumer groups are served, and can't be switched off."),
    TRANSACTION_VERSION: (TRANSACTION_LEVEL, "Each client has the transactions that it speaks."),
}
"""The level of each, and why it can't be a lower one."""


def _fault(update: FeatureUpdateKey, kind: int, node_id: int) -> str:
    """Why a feature can't be at this level, or nothing."""
    name, level = update.feature, update.max_version_level
    invalid = f"Invalid update version {level} for feature {name}."
    if level < 0:
        return f"{invalid} A feature version cannot be less than 0."
    if kind not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return f"{invalid} The controller does not support the given upgrade type."
    if name in _FROM_ZERO:
        return _from_zero_fault(name, level, kind, invalid, node_id)
    if name != METADATA_VERSION:
        if level == 0:
            return f"{invalid} Feature {name} not found."
        return f"{invalid} Local controller {node_id} does not support this feature."
    if not METADATA_LEVEL_LOWEST <= level <= METADATA_LEVEL:
        return (
            f"{invalid} Local controller {node_id} only supports versions "
            f"{METADATA_LEVEL_LOWEST}-{METADATA_LEVEL}"
        )
    if level == METADATA_LEVEL:
        return ""
    if kind == UPGRADE:
        return (
            f"{invalid} Can't downgrade the version of this feature without setting the upgrade "
            "type to either safe or unsafe downgrade."
        )
    unsupported = f"Unsupported {name} downgrade from {METADATA_LEVEL} to {level}."
    if kind == SAFE_DOWNGRADE:
        return (
            f"{unsupported} Refusing to perform the requested downgrade because it might delete "
            "metadata information."
        )
    return f"{unsupported} Unsafe metadata downgrade is not supported in this version."


def _from_zero_fault(name: str, level: int, kind: int, invalid: str, node_id: int) -> str:
    highest, why_no_lower = _FROM_ZERO[name]
    if level == highest:
        return ""
    if level > highest:
        return f"{invalid} Local controller {node_id} only supports versions 0-{highest}"
    if kind == UPGRADE:
        return (
            f"{invalid} Can't downgrade the version of this feature without setting the upgrade "
            "type to either safe or unsafe downgrade."
        )
    return f"{invalid} {why_no_lower}"
