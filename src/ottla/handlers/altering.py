"""What AlterConfigs and IncrementalAlterConfigs share: asking the controller, and waiting.

Must not know messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ottla.cluster.topics import Refused
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.cluster.configs import Alteration
    from ottla.handlers.context import Context

WAIT_S = 30.0
"""The requests name no time; Kafka waits its request.timeout.ms, which is as long."""

TOO_MANY = Refused(ErrorCode.INVALID_REQUEST, "The request names too many resources.")

_LATE = Refused(ErrorCode.REQUEST_TIMED_OUT)


def altered(
    context: Context,
    alterations: Sequence[Alteration],
    validate_only: bool,
    reply: Callable[[Sequence[Refused | None]], Reply],
) -> Reply | Parked:
    """`reply` with one outcome for each, in order; REQUEST_TIMED_OUT where it takes too long."""
    outcomes = context.controller.alter_configs(alterations, validate_only=validate_only)

    def answer() -> Reply:
        return reply(outcomes.result() if outcomes.done else [_LATE] * len(alterations))

    if outcomes.done:
        return answer()
    return Parked(outcomes, answer, deadline_s=WAIT_S, abandon=outcomes.abandon)
