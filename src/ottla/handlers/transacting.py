"""What the requests of transactional producers share: their patience, and codes by version.

Owns nothing else. Must not know any message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ottla.core import group_options
from ottla.handlers.limits import TEXT_MAX
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.handlers.context import Context

DEADLINE_S: Final = 30.0
"""How long a write of the coordinator may take before its client is told to try again: what
Kafka's request.timeout.ms is by default."""


def understood(error: ErrorCode, version: int, fenced_since: int) -> ErrorCode:
    """The code in a form that the client knows: PRODUCER_FENCED is younger than fencing
    (KIP-588)."""
    if error is ErrorCode.PRODUCER_FENCED and version < fenced_since:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error


def is_too_long(context: Context, name: str) -> bool:
    """Whether a transactional id is longer than any may be."""
    return len(name) > context.config[group_options.TRANSACTIONAL_ID_LENGTH_MAX]


def note_full(context: Context, peer: str, name: str, error: object) -> None:
    """Take note of a transaction that found no room: transactional.ids.max and
    transaction.partitions.max."""
    if error is ErrorCode.POLICY_VIOLATION:
        context.complaints.about(
            "transactions.max",
            peer,
            f"transactional id {name[:TEXT_MAX]!r}: there are too many, or it has too many "
            "partitions",
        )
