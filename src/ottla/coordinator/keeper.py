"""Keeper: one shard, from its loading to its end, and what is asked of it in between.

Owns the order of things: one operation after the other decides, its entries are appended and
replayed, its effects run, and its reply leaves once all that was appended by then is committed.
Must not know what a shard is about, nor which keys are whose.

Nothing waits between an operation's look at the state and its append but the making of files; the
operations behind it then queue. So what was decided still holds when it is written.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar

from ottla.coordinator.batches import Pair, batch_of, parts
from ottla.coordinator.decision import (
    Cancel,
    Complete,
    Decision,
    Do,
    Effect,
    Ending,
    Entry,
    Schedule,
    WhenCommitted,
)
from ottla.coordinator.loading import Loading
from ottla.core.model import Offset
from ottla.core.pending import Pending, Soon
from ottla.core.ports import Clock, DiskError, Timer, Timers
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.builder import build_single

if TYPE_CHECKING:
    from ottla.coordinator.journal import Journal

_log = logging.getLogger("ottla.coordinator")

QUEUED_MAX = 10_000
"""Operations that wait for one shard to load, or for its log's files; more are refused."""
AGAIN_S = 0.5
"""After this long a timer's decision that could not be written is made again."""
_Outcome: TypeAlias = ErrorCode | Iterator[Pending[None] | ErrorCode]
"""What a write comes to at once, or what yields first what it has to wait for."""
_DONE: Final = ErrorCode.NONE


class Shard(Protocol):
    """State made of entries. `replay` and `end_transaction` alone change what is durable."""

    def replay(self, entry: Entry, producer_id: int = -1) -> None:
        """Take an entry in. One written in a transaction counts once that is committed."""

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        """The entries that the producer wrote in its transaction count, or never will."""

    def loaded(self) -> Decision[None]:
        """Called when all is replayed and before anything is asked: timers, what to mend."""


R = TypeVar("R")
S = TypeVar("S", bound=Shard)


class Codec(Protocol):
    """How entries are written: `entries.offsets_topic`, and the topic's compression."""

    def encode(self, entry: Entry) -> tuple[bytes, bytes | None]: ...

    def decode(self, key: bytes, value: bytes | None) -> Entry | None: ...

    def compression(self) -> int: ...


class Operation(Generic[S]):
    """Something asked of a shard. `refused` is told where the runtime can't have it done."""

    __slots__ = ("_refused", "decide", "result")

    def __init__(
        self,
        decide: Callable[[S], Decision[Any]],
        result: Pending[Any],
        refused: Callable[[ErrorCode], None] | None = None,
    ) -> None:
        self.decide = decide
        self.result = result
        self._refused = refused

    def refused(self, error: ErrorCode) -> None:
        """It was not done, for this reason."""
        if self._refused is None:
            _give(self.result, error)
        else:
            self._refused(error)


def _give(result: Pending[Any], value: Any) -> None:
    if not result.done:  # else it was unloaded under whoever waited
        result.complete(value)


class _Scheduled:
    """A timer of the shard's, in force as long as it is under its key."""

    __slots__ = ("effect", "timer")

    def __init__(self, effect: Schedule) -> None:
        self.effect = effect
        self.timer: Timer | None = None


class Keeper(Generic[S]):
    """Call `load` once, when whoever asks of the shard finds this keeper: what a shard wants done
    as soon as it is loaded may ask of it at once."""

    def __init__(
        self, shard: S, journal: Journal, codec: Codec, clock: Clock, timers: Timers
    ) -> None:
        self.shard = shard
        self.journal = journal
        self.failure = ErrorCode.NONE
        """Why nothing more is done here."""
        self.is_loaded = False
        self.is_whole = True
        """Whether, once it is loaded, all that its log ever held could be read."""
        self._codec = codec
        self._clock = clock
        self._timers = timers
        self._queue: deque[Operation[S]] = deque()
        self._busy = True
        """Loading, deciding or waiting for files: whatever comes must queue."""
        self._parked: dict[int, Pending[Any]] = {}
        self._scheduled: dict[Hashable, _Scheduled] = {}
        self._on_loaded: list[Callable[[], None]] = []
        self._loading: Loading | None = Loading(journal, codec.decode, shard, clock)

    # --- being asked -----------------------------------------------------------------------

    def submit(self, operation: Operation[S]) -> None:
        """Do it when its turn comes; refused at once where that can't be."""
        failure = self.failure or self.journal.state()
        if failure:
            self.unload(failure)
            operation.refused(failure)
        elif not self._busy:
            self._queue.appendleft(operation)
            self._next()
        elif len(self._queue) < QUEUED_MAX:
            self._queue.append(operation)
        else:
            operation.refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    def ask(self, decide: Callable[[S], Decision[R]]) -> Soon[R | ErrorCode]:
        """As `submit`; but a reply that leaves at once is returned as it is. A transaction asks
        three times, and under flush.policy=os nothing of it waits."""
        journal = self.journal
        if self._busy or self.failure or journal.state():
            result: Pending[Any] = Pending()
            self.submit(Operation(decide, result))
            return result
        try:
            decision, outcome = self._decide(decide)
            if outcome is _DONE:
                self._busy = False
                for effect in decision.effects:
                    # What waits for nothing is done without asking what it would wait for.
                    if isinstance(effect, Do) or (
                        isinstance(effect, WhenCommitted) and journal.is_all_committed()
                    ):
                        effect()
                    else:
                        self._effect(effect)
        except BaseException:
            self._timers.soon(self._next)  # as in `_next`: the others have their turn
            raise
        if outcome is _DONE:
            reply: Any = decision.reply
            if isinstance(reply, Pending) or not journal.is_all_committed():
                result = Pending()
                self._reply(result, reply)
                reply = result
        elif isinstance(outcome, ErrorCode):
            self._busy = False
            reply = outcome
        else:
            reply = result = Pending()
            self._begin_to_wait(Operation(decide, result), decision, outcome)
        if self._queue:
            self._next()
        told: Soon[R | ErrorCode] = reply
        return told

    @property
    def is_settled(self) -> bool:
        """Whether nothing is under way, and all is committed: what the shard says now holds."""
        journal = self.journal
        if self._busy or self.failure or journal.state():
            return False
        return journal.is_all_committed()

    def when_loaded(self, call: Callable[[], None]) -> None:
        """Call once all is replayed, or once it is known that it never will be."""
        if self.is_loaded or self.failure:
            call()
        else:
            self._on_loaded.append(call)

    def unload(self, error: ErrorCode) -> None:
        """The end: whoever waits is answered `error`, and nothing scheduled happens."""
        self.failure = error
        self._loading = None
        queue, self._queue = self._queue, deque()
        parked, self._parked = self._parked, {}
        for scheduled in self._scheduled.values():
            if scheduled.timer is not None:
                scheduled.timer.cancel()
        self._scheduled.clear()
        for operation in queue:
            operation.refused(error)
        for result in parked.values():
            _give(result, error)
        self._tell_loaded()

    # --- loading ---------------------------------------------------------------------------

    def load(self) -> None:
        """Replay the log; what is asked meanwhile queues. Calls itself until that is done."""
        loading = self._loading
        if loading is None:
            return  # unloaded meanwhile
        outcome = loading.step()
        if isinstance(outcome, Pending):
            outcome.then(self.load)
        elif outcome is None:
            self._timers.soon(self.load)
        elif outcome is not ErrorCode.NONE:
            self.unload(outcome)
        else:
            self._loading = None
            self.is_loaded = True
            self.is_whole = not loading.damaged_count
            self._busy = False
            shard = self.shard
            self._run(Operation(lambda _shard: shard.loaded(), Pending(), _ignore))
            self._tell_loaded()
            self._next()

    def _tell_loaded(self) -> None:
        told, self._on_loaded = self._on_loaded, []
        for call in told:
            call()

    # --- one operation after the other -----------------------------------------------------

    def _next(self) -> None:
        while self._queue and not self._busy and not self.failure:
            try:
                self._run(self._queue.popleft())
            except BaseException:
                self._timers.soon(self._next)  # a bug in one leaves the others their turn
                raise

    def _run(self, operation: Operation[S]) -> None:
        """Decide; and unless files must be made first, also all that follows."""
        decision, outcome = self._decide(operation.decide)
        if outcome is _DONE:
            self._busy = False
            self._conclude(operation, decision)
        elif isinstance(outcome, ErrorCode):
            self._busy = False
            operation.refused(outcome)
        else:
            self._begin_to_wait(operation, decision, outcome)

    def _decide(self, decide: Callable[[S], Decision[R]]) -> tuple[Decision[R], _Outcome]:
        """What is decided, and what its being written comes to: busy until that is dealt with."""
        assert not self._busy, "one operation at a time"
        self._busy = True
        try:
            decision = decide(self.shard)
            return decision, self._write_decided(decision)
        except BaseException:
            self._busy = False
            raise

    def _begin_to_wait(
        self,
        operation: Operation[S],
        decision: Decision[Any],
        writing: Iterator[Pending[None] | ErrorCode],
    ) -> None:
        try:
            self._proceed(operation, decision, writing)
        except BaseException:
            self._busy = False
            raise

    def _proceed(
        self,
        operation: Operation[S],
        decision: Decision[Any],
        writing: Iterator[Pending[None] | ErrorCode],
    ) -> None:
        for wait in writing:
            if isinstance(wait, Pending):
                wait.then(partial(self._resume, operation, decision, writing))
                return
            self._busy = False
            operation.refused(wait)
            return
        self._busy = False
        self._conclude(operation, decision)

    def _resume(
        self,
        operation: Operation[S],
        decision: Decision[Any],
        writing: Iterator[Pending[None] | ErrorCode],
    ) -> None:
        if self.failure:
            operation.refused(self.failure)
            return
        try:
            self._proceed(operation, decision, writing)
        except BaseException:
            self._busy = False
            self._timers.soon(self._next)
            raise
        self._next()

    def _write_decided(self, decision: Decision[Any]) -> _Outcome:
        """Append and replay: what it comes to; or what yields first what must be waited for, and
        then why it ends, if it ends badly. Most of what is ever asked has no need of that."""
        entries = decision.entries
        if not decision.atomic:
            return self._write(decision)
        if len(entries) == 1 and decision.producer is None and not self._codec.compression():
            return self._write_single(decision, entries[0])
        if entries:
            return self._write_whole(decision)
        if decision.ending is not None:
            return self._end_transaction(decision.ending)
        return _DONE

    def _write_single(self, decision: Decision[Any], entry: Entry) -> _Outcome:
        """As `_write_whole` and `_append`, of what is most usual: one entry, of nobody's batch."""
        key, value = self._codec.encode(entry)
        now_ms = self._clock.wall_ms()
        built = build_single(key, value, now_ms)
        journal = self.journal
        if not decision.any_size and len(built) > journal.batch_bytes_max:
            return ErrorCode.UNKNOWN_SERVER_ERROR
        outcome = journal.put_own(built, now_ms)
        if outcome is _DONE:
            self.shard.replay(entry)
            return _DONE
        if outcome is not None:
            return journal.state() or ErrorCode.COORDINATOR_NOT_AVAILABLE
        batch = BatchView(memoryview(built))
        pending = journal.prepare(batch)
        if pending is None:
            return self._append(decision, decision.entries, batch)
        return self._write_later(decision, decision.entries, batch, pending)

    def _write_whole(self, decision: Decision[Any]) -> _Outcome:
        """Append and replay what goes into one batch."""
        entries, encode = decision.entries, self._codec.encode
        pairs = [encode(entry) for entry in entries]
        batch = self._batch_of(decision, pairs, self._clock.wall_ms())
        if type(batch) is ErrorCode:
            return batch
        pending = self.journal.prepare(batch)
        if pending is not None:
            return self._write_later(decision, entries, batch, pending)
        return self._append(decision, entries, batch)

    def _write_later(
        self,
        decision: Decision[Any],
        entries: Sequence[Entry],
        batch: BatchView,
        pending: Pending[None] | None,
    ) -> Iterator[Pending[None] | ErrorCode]:
        """Yields what must be waited for, the last time what it comes to, unless it is done."""
        while pending is not None:
            yield pending
            if error := _why_no_files(pending):
                yield error
                return
            pending = self.journal.prepare(batch)
        if error := self._append(decision, entries, batch):
            yield error

    def _write(self, decision: Decision[Any]) -> Iterator[Pending[None] | ErrorCode]:
        """In as many batches as it takes."""
        now_ms = self._clock.wall_ms()
        is_begun = False
        pairs = [self._codec.encode(entry) for entry in decision.entries]
        for part in parts(pairs, self.journal.batch_bytes_max):
            entries = decision.entries[part]
            batch = self._batch_of(decision, pairs[part], now_ms)
            writing: Iterable[Pending[None] | ErrorCode]
            if type(batch) is ErrorCode:
                writing = (batch,)
            else:
                pending = self.journal.prepare(batch)
                writing = self._write_later(decision, entries, batch, pending)
            for wait in writing:
                if is_begun and not isinstance(wait, Pending):
                    self._begin_timers(decision)
                yield wait
            is_begun = True

    def _batch_of(
        self, decision: Decision[Any], pairs: Sequence[Pair], now_ms: int
    ) -> BatchView | ErrorCode:
        codec, bytes_max = self._codec.compression(), self.journal.batch_bytes_max
        return batch_of(decision, pairs, codec, bytes_max, now_ms)

    def _append(
        self, decision: Decision[Any], entries: Sequence[Entry], batch: BatchView
    ) -> ErrorCode:
        """NONE once it is written and replayed, or why not. `prepare` just said None."""
        shard, producer = self.shard, decision.producer
        outcome = self.journal.append(batch, decision.verification)
        if type(outcome) is ErrorCode:
            # Of a producer's batch the log may say no more than that it must not be.
            own = ErrorCode.COORDINATOR_NOT_AVAILABLE if producer is None else outcome
            return self.journal.state() or own
        producer_id = -1 if producer is None else producer.id
        for entry in entries:
            shard.replay(entry, producer_id)
        return _DONE

    def _begin_timers(self, decision: Decision[Any]) -> None:
        """Of a decision only the beginning was written: who is in by that must not stay in for
        ever. Timers that run already know what was so before, and are left alone."""
        for effect in decision.effects:
            if isinstance(effect, Schedule) and effect.key not in self._scheduled:
                self._schedule(effect)

    def _end_transaction(self, ending: Ending) -> Iterator[Pending[None] | ErrorCode]:
        """The marker first, then what it means to the shard: the order that loading finds."""
        journal = self.journal
        while isinstance(outcome := journal.end_transaction(ending), Pending):
            yield outcome
            if error := _why_no_files(outcome):
                yield error
                return
        if isinstance(outcome, ErrorCode):
            yield journal.state() or outcome
            return
        self.shard.end_transaction(ending.producer_id, ending.committed)

    # --- what follows ----------------------------------------------------------------------

    def _conclude(self, operation: Operation[S], decision: Decision[Any]) -> None:
        for effect in decision.effects:
            self._effect(effect)
        self._reply(operation.result, decision.reply)

    def _reply(self, result: Pending[Any], reply: Any) -> None:
        if isinstance(reply, Pending) and not reply.done:
            self._parked[id(result)] = result
            reply.then(partial(self._unpark, result, reply))
        else:
            self._when_committed(result, reply.result() if isinstance(reply, Pending) else reply)

    def _unpark(self, result: Pending[Any], reply: Pending[Any]) -> None:
        """A waiting reply was completed: by `Complete`, so all it may tell of is committed."""
        self._parked.pop(id(result), None)
        _give(result, reply.result())

    def _effect(self, effect: Effect) -> None:
        # The usual ones first, and no `match`, which takes some times as long for each case.
        if isinstance(effect, WhenCommitted):
            self._call_when_committed(effect)
        elif isinstance(effect, Do):
            effect()
        elif isinstance(effect, Complete):
            self._when_committed(effect.pending, effect.value)
        elif isinstance(effect, Schedule):
            self._schedule(effect)
        elif isinstance(effect, Cancel):
            self._cancel(effect.key)
        else:
            for one in effect.tell():
                self._effect(one)

    def _when_committed(self, pending: Pending[Any], value: Any) -> None:
        """Complete it once all that is appended by now is committed."""
        end = self.journal.end
        waiting = self.journal.committed(end)
        if waiting is None:
            _give(pending, value)
        else:
            waiting.then(partial(self._committed, end, pending, value))

    def _committed(self, end: Offset, pending: Pending[Any], value: Any) -> None:
        if self.journal.is_committed(end):
            _give(pending, value)
            return
        error = self.journal.state() or ErrorCode.COORDINATOR_NOT_AVAILABLE
        _give(pending, error)
        # What was replayed and never will be committed must not be told to anybody.
        self.unload(error)

    def _call_when_committed(self, call: Callable[[], None]) -> None:
        end = self.journal.end
        waiting = self.journal.committed(end)
        if waiting is None:
            call()
        else:
            waiting.then(partial(self._call_if_committed, end, call))

    def _call_if_committed(self, end: Offset, call: Callable[[], None]) -> None:
        if self.journal.is_committed(end):
            call()
        else:
            self.unload(self.journal.state() or ErrorCode.COORDINATOR_NOT_AVAILABLE)

    # --- timers ----------------------------------------------------------------------------

    def _schedule(self, effect: Schedule) -> None:
        self._cancel(effect.key)
        scheduled = self._scheduled[effect.key] = _Scheduled(effect)
        scheduled.timer = self._timers.after(effect.delay_s, partial(self._due, scheduled))

    def _cancel(self, key: Hashable) -> None:
        scheduled = self._scheduled.pop(key, None)
        if scheduled is not None and scheduled.timer is not None:
            scheduled.timer.cancel()

    def _due(self, scheduled: _Scheduled) -> None:
        key = scheduled.effect.key

        def decide(_shard: S) -> Decision[Any]:
            if self._scheduled.get(key) is not scheduled:
                return Decision(None)  # taken back while it queued
            decision = scheduled.effect.decide()
            decision.effects = (Do(self._done, scheduled), *decision.effects)
            return decision

        def refused(_error: ErrorCode) -> None:
            if not self.failure and self._scheduled.get(key) is scheduled:
                scheduled.timer = self._timers.after(AGAIN_S, partial(self._due, scheduled))

        self.submit(Operation(decide, Pending(), refused))

    def _done(self, scheduled: _Scheduled) -> None:
        if self._scheduled.get(scheduled.effect.key) is scheduled:
            del self._scheduled[scheduled.effect.key]


def _why_no_files(waited: Pending[None]) -> ErrorCode:
    try:
        waited.result()
    except DiskError as error:
        _log.error("an entry could not be written: %s", error)
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    return ErrorCode.NONE


def _ignore(_error: ErrorCode) -> None:
    """What a shard wants done when it is loaded is tried once; it mends itself later."""
