"""Asking a coordinator: how a request waits for what its shard replies.

Owns the way from a Pending of the runtime to a Reply. Must not know any message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from ottla.coordinator.group.caller import Caller
from ottla.core import group_options
from ottla.core.pending import Pending, Soon, when_all
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

R = TypeVar("R")


def when_replied(
    asked: Soon[R | ErrorCode],
    answer: Callable[[R | ErrorCode], Reply],
    deadline_s: float | None = None,
    *,
    before_effect: bool = False,
) -> Reply | Parked:
    """`answer` what the shard replies; past the deadline COORDINATOR_NOT_AVAILABLE, though it may
    still be done, as in Kafka. `before_effect`: what the connection asks next must come after it.
    """
    if not isinstance(asked, Pending):
        return answer(asked)
    if asked.done:
        return answer(asked.result())
    return Parked(
        asked,
        lambda: answer(asked.result() if asked.done else ErrorCode.COORDINATOR_NOT_AVAILABLE),
        deadline_s,
        before_effect,
        abandon=asked.abandon,
    )


def when_all_replied(
    asked: Iterable[Pending[Any]],
    answer: Callable[[], Reply | Parked],
    deadline_s: float | None = None,
) -> Reply | Parked:
    """`answer` once every shard has replied; past the deadline, with what is there by then."""
    waiting = [one for one in asked if not one.done]
    if not waiting:
        return answer()
    together = when_all(waiting)
    return Parked(together, answer, deadline_s, abandon=together.abandon)


def caller(request: Request[Any]) -> Caller:
    """Who asks, as groups remember their members: Java writes an address as "/127.0.0.1"."""
    host = request.connection.peer.rpartition(":")[0]
    return Caller(request.client_id or "", f"/{host}", request.api_version)


def write_deadline_s(context: Context) -> float:
    """How long a coordinator's write may take before its client is told to try again."""
    return context.config[group_options.OFFSETS_COMMIT_MS] / 1000
