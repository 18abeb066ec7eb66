"""Loading: a journal replayed into a shard, in pieces that keep nobody waiting.

Owns where the replay stands. What can't be read is passed over and counted, as kinds of entries
that are not known are: one bad entry must not cost all that a shard knows. Must not change a shard
but by `replay` and `end_transaction`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ottla.core.model import Offset
from ottla.core.pending import Pending
from ottla.core.ports import Clock, DiskError
from ottla.protocol.codec import CodecError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView, RecordError
from ottla.records.reader import pairs_of, read_batches

if TYPE_CHECKING:
    from ottla.coordinator.decision import Entry
    from ottla.coordinator.journal import Journal
    from ottla.coordinator.keeper import Shard

_log = logging.getLogger("ottla.coordinator")

PIECE_BYTES = 1 << 20
STEP_S = 0.004
"""About how long one step may take."""
_LOOK_EVERY = 32
_CONTROL_COMMIT = 1


class Loading:
    """One replay. Call `step` until it says NONE, or why there is no going on."""

    def __init__(
        self,
        journal: Journal,
        decode: Callable[[bytes, bytes | None], Entry | None],
        shard: Shard,
        clock: Clock,
    ) -> None:
        self.entries_count = 0
        self.unknown_count = 0
        """Entries of kinds that this version does not know."""
        self.damaged_count = 0
        self._journal = journal
        self._decode = decode
        self._shard = shard
        self._clock = clock
        self._at = journal.start
        self._end = journal.end
        self._until_look = _LOOK_EVERY
        self._work = self._run()

    def step(self) -> Pending[bytes | ErrorCode] | ErrorCode | None:
        """A Pending: wait for it. None: more to do, but let others run first."""
        until = self._clock.monotonic() + STEP_S
        for outcome in self._work:
            if outcome is not None:
                return outcome
            if self._clock.monotonic() >= until:
                return None
        return ErrorCode.NONE

    def _run(self) -> Iterator[Pending[bytes | ErrorCode] | ErrorCode | None]:
        """All of it; pauses to have the clock looked at, and where something must be waited for."""
        while self._at < self._end:
            found = self._journal.read(self._at, PIECE_BYTES)
            if isinstance(found, Pending):
                if not found.done:
                    yield found
                try:
                    found = found.result()
                except DiskError as error:
                    _log.error("a coordinator's log could not be loaded: %s", error)
                    found = ErrorCode.COORDINATOR_NOT_AVAILABLE
            if isinstance(found, ErrorCode):
                yield found
                return
            if not found:
                break  # the rest was never committed
            for batch in self._whole(found):
                yield from self._replay(batch)
        self._report()

    def _whole(self, piece: bytes) -> Iterator[BatchView]:
        """Each batch, the place of the next one noted before it is given out."""
        before = self._at
        try:
            for batch in read_batches(piece):
                if batch.last_offset >= self._at:
                    self._at = Offset(batch.last_offset + 1)
                    yield batch
        except RecordError as error:
            self._damaged(str(error))
        if self._at == before:
            self._at = self._end  # no way on: read() gives whole batches, unless they are damaged
            self._damaged(f"no batch at offset {before}")

    def _replay(self, batch: BatchView) -> Iterator[None]:
        shard = self._shard
        producer_id = batch.producer_id if batch.is_transactional else -1
        try:
            for key, value in pairs_of(batch):
                self._until_look -= 1
                if not self._until_look:
                    self._until_look = _LOOK_EVERY
                    yield
                if key is None:
                    self.damaged_count += 1
                elif batch.is_control:
                    committed = int.from_bytes(key[2:4], "big") == _CONTROL_COMMIT
                    shard.end_transaction(batch.producer_id, committed)
                else:
                    self._entry(key, value, producer_id)
        except RecordError as error:
            self._damaged(str(error))

    def _entry(self, key: bytes, value: bytes | None, producer_id: int) -> None:
        try:
            entry = self._decode(key, value)
        except CodecError as error:
            self._damaged(str(error))
            return
        if entry is None:
            self.unknown_count += 1
        else:
            self.entries_count += 1
            self._shard.replay(entry, producer_id)

    def _damaged(self, why: str) -> None:
        self.damaged_count += 1
        if self.damaged_count == 1:
            _log.error("an entry of a coordinator's log can't be read: %s", why)

    def _report(self) -> None:
        if self.unknown_count or self.damaged_count:
            _log.warning(
                "a coordinator's log is loaded: %d entries, %d of kinds not known, %d not readable",
                self.entries_count,
                self.unknown_count,
                self.damaged_count,
            )
