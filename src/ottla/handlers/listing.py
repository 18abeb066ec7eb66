"""Long lists: what all shards of a coordinator know, told some at a time between turns of the loop.

Owns the going through it, and that the answer leaves when all that it tells is committed. Must not
know what is told. With a hundred thousand of them, telling and encoding all at once would take the
loop for a tenth of a second.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from ottla.coordinator.decision import Decision
from ottla.core.pending import Pending
from ottla.handlers.asking import when_all_replied
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ottla.coordinator.keeper import Shard
    from ottla.coordinator.runtime import Runtime
    from ottla.core.ports import Timers
    from ottla.protocol.schema import Message, Struct

S = TypeVar("S", bound="Shard")

SLICE_COUNT: Final = 1000
"""Names that are looked at in one go, and told and encoded: some 3 ms."""


class Source(Generic[S]):
    """What is told, in elements of the last array of `answer`. For one request."""

    def __init__(self, answer: Message) -> None:
        self.answer = answer

    def names(self, shard: S) -> Iterable[str]:
        """What there is; taken in at once, so it need not stay as it is."""
        raise NotImplementedError

    def tell(self, shard: S, name: str) -> Struct | None:
        """One of them as it is now; None where it is gone, or wasn't asked for."""
        raise NotImplementedError

    def rested(self) -> None:
        """A new slice begins."""

    def is_tired(self) -> bool:
        """Whether this slice has taken enough, however few it has told."""
        return False

    def failed(self, error: ErrorCode) -> Message | None:
        """A shard can't say. What is answered instead of all others; None: what they say is."""
        raise NotImplementedError


class Listing(Generic[S]):
    """One request on its way through all shards."""

    def __init__(
        self, source: Source[S], runtime: Runtime[S], timers: Timers, version: int
    ) -> None:
        self._source = source
        self._runtime = runtime
        self._timers = timers
        self._version = version
        self._names: Iterator[tuple[S, str]] = iter(())
        self._told: list[Any] = []
        self._pieces: Pieces | None = None

    def begin(self) -> Reply | Parked:
        """The answer; bytes, encoded before, where it is a long one."""
        asked = self._runtime.submit_everywhere(_itself)
        return when_all_replied(asked, partial(self._loaded, asked))

    def _loaded(self, asked: Sequence[Pending[Any]]) -> Reply | Parked:
        if refused := self._refused(asked):
            return refused
        told = [one.result() for one in asked]
        shards = [one for one in told if not isinstance(one, ErrorCode)]
        self._names = (
            (shard, name) for shard in shards for name in list(self._source.names(shard))
        )
        return self._go_on()

    def _refused(self, asked: Sequence[Pending[Any]]) -> Reply | None:
        for one in asked:
            error = one.result()
            if isinstance(error, ErrorCode) and error is not ErrorCode.NOT_COORDINATOR:
                instead = self._source.failed(error)
                if instead is not None:
                    return Reply(instead)
        return None

    def _go_on(self) -> Reply | Parked:
        source = self._source
        source.rested()
        for looked_at, (shard, name) in enumerate(self._names, 1):
            one = source.tell(shard, name)
            if one is not None:
                self._told.append(one)
            if looked_at >= SLICE_COUNT or source.is_tired():
                break
        else:
            return self._see_it_committed()
        if len(self._told) >= SLICE_COUNT:
            self._encode()
        turn: Pending[None] = Pending()
        self._timers.soon(partial(turn.complete, None))
        return Parked(turn, self._go_on, abandon=turn.abandon)

    def _encode(self) -> None:
        if self._pieces is None:
            self._pieces = Pieces(type(self._source.answer), self._version)
        self._pieces.add(self._told)
        self._told = []

    def _see_it_committed(self) -> Reply | Parked:
        """What was told may be so only since this request came: ask for nothing, after it."""
        asked = self._runtime.submit_everywhere(_nothing)
        return when_all_replied(asked, partial(self._done, asked))

    def _done(self, asked: Sequence[Pending[Any]]) -> Reply:
        if refused := self._refused(asked):
            return refused
        answer = self._source.answer
        if self._pieces is None:
            setattr(answer, type(answer).FIELDS[-1].name, self._told)
            return Reply(answer)
        self._encode()
        return Reply(self._pieces.finish(answer))


def _itself(shard: S) -> Decision[S]:
    return Decision(shard)


def _nothing(_shard: object) -> Decision[None]:
    return Decision(None)
