"""What a handler returns, and the joint by which the driver calls handlers without knowing any.

Owns Reply, Parked, Closing and Dispatcher. Must not encode, send or wait.

Two levels, so that the hot path makes no object twice:
- a *handler* takes a request and returns `Reply` (a message, not yet encoded) or `Parked`;
- a *dispatcher* takes a frame and returns an `Answer`: chunks ready to send, `Closing`, or the
  handler's own `Parked` with `request` filled in, by which it encodes what `resume` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ottla.core.model import FileSlice
from ottla.core.pending import Pending

if TYPE_CHECKING:
    from ottla.handlers.context import ConnectionState


class Reply:
    """A handler's answer: a response message, or None where the protocol has no answer (acks=0).

    `close` ends the connection once the answer has left, or at once where there is none (H30).
    """

    __slots__ = ("body", "close")

    def __init__(self, body: Any | None, close: bool = False) -> None:
        self.body = body
        self.close = close


class Parked:
    """A request that waits. Exactly one of `resume` and `abandon` is called, exactly once.

    `resume()` runs on the loop, never inside another handler, when `pending` is done or
    `deadline_s` seconds after parking (`pending.done` tells which), and returns a Reply or
    another Parked, whose deadline counts from then. `abandon()` runs when the connection is gone:
    it takes waiters off and releases slices.
    `before_effect`: nothing has been done yet, so later requests of the connection must wait and
    the receive buffer stays lent to this one. Otherwise later requests run.
    """

    __slots__ = ("abandon", "before_effect", "deadline_s", "pending", "request", "resume")

    def __init__(
        self,
        pending: Pending[Any],
        resume: Callable[[], Reply | Parked],
        deadline_s: float | None = None,
        before_effect: bool = False,
        abandon: Callable[[], None] | None = None,
    ) -> None:
        self.pending = pending
        self.resume = resume
        self.deadline_s = deadline_s
        self.before_effect = before_effect
        self.abandon = abandon
        self.request: Any = None
        """The dispatcher's own: what it needs to encode what `resume` returns, and to name it."""


class Closing:
    """Chunks to send, after which the connection is closed; nothing behind it is answered."""

    __slots__ = ("chunks",)

    def __init__(self, chunks: list[bytes | FileSlice]) -> None:
        self.chunks = chunks


Answer: TypeAlias = list[bytes | FileSlice] | Closing | Parked
"""A list is one whole frame, size and header included, beginning with bytes; an empty list is
no answer at all. One chunk means that there are no slices in it."""


class Dispatcher(Protocol):
    """Frames to answers. Both methods run to completion and may raise.

    PeerError and CodecError mean a peer that does not speak the protocol: its connection ends.
    Anything else is our bug: logged with the request named, and the connection ends as well.
    """

    def dispatch(self, connection: ConnectionState, frame: memoryview) -> Answer:
        """Answer one frame, given without its size."""

    def resume(self, parked: Parked) -> Answer:
        """Call `parked.resume()` and encode what it returns."""
