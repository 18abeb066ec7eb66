"""What a partition remembers of its producers, and the file that carries it over a restart.

Owns the last five batches per producer id, the transaction it has open, their expiry, and Kafka's
ProducerSnapshot v1. Must not append: the log calls `update` once a batch is in, the partition
`check` or `check_marker` before. Sources: KIP-98, KIP-360, KIP-890, KIP-1228 (whose version is what
a marker's epoch is judged by).
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ottla.core.model import Offset, ProducerId
from ottla.core.ports import Buffer
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchView, RecordError
from ottla.records.control import ControlType, EndMarker, end_marker_of
from ottla.records.crc import crc32c
from ottla.storage.aborted import Aborted
from ottla.storage.reading import LogPosition
from ottla.storage.unstable import Transaction, Unstable

if TYPE_CHECKING:
    from ottla.storage.segment import Segment

BATCHES_KEPT = 5
"""As many as a client may have in flight while it is idempotent."""
SEQUENCE_MAX = (1 << 31) - 1

_HEAD = struct.Struct(">hII")  # version, CRC-32C of all that follows it, number of entries
_ENTRY = struct.Struct(">qhiqiqiq")
_VERSION = 1
_NONE = -1
_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time
_TRANSACTION_BITS = TRANSACTIONAL_BIT | CONTROL_BIT
_BUMPS_SINCE = 2
"""The transaction version from which each transaction has an epoch of its own (KIP-890)."""
_EVICTION_LOOKS_MAX = 64


class Duplicate(NamedTuple):
    """A batch that is in the log already: where, and the timestamp it has there."""

    base_offset: Offset
    timestamp: int


class _Batch(NamedTuple):
    first_sequence: int
    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int


class ProducerState:
    """One producer on one partition. `batches` is empty when its epoch has written nothing yet."""

    __slots__ = (
        "batches",
        "coordinator_epoch",
        "ended",
        "epoch",
        "heard_ms",
        "marked",
        "transaction",
    )

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[_Batch] = deque(maxlen=BATCHES_KEPT)
        self.coordinator_epoch = _NONE
        self.transaction: Transaction | None = None
        """The one that it has open."""
        self.ended: tuple[int, bool] | None = None
        """The epoch of its last transaction that was ended by a marker of the next epoch, and so
        had an epoch of its own; and whether it was committed. Not in snapshots."""
        self.heard_ms = 0  # 0: since the last sweep
        self.marked: tuple[int, _Batch | None] | None = None
        """Timestamp of its last marker, and the batch that was its last one then."""

    def timestamp(self) -> int:
        """The last one that it was heard of with: its last batch's, or a later marker's."""
        last = self.batches[-1] if self.batches else None
        if self.marked is not None and self.marked[1] is last:
            return self.marked[0]
        return -1 if last is None else last.timestamp


class Verification:
    """A producer of which the coordinator is asked whether its batches belong to a transaction.

    It is its own token: an append shows the one that was made before the coordinator was asked.
    A marker takes it away, and so an answer that was given before the marker is worth nothing
    behind it (I41). The lowest sequence keeps a batch that was verified from overtaking one that
    was not yet: it would leave a gap which nobody could tell from the beginning.
    """

    __slots__ = ("bumps", "epoch", "heard_ms", "is_shared", "lowest_sequence")

    def __init__(self, epoch: int, sequence: int, bumps: bool) -> None:
        self.epoch = epoch
        self.is_shared = False
        self.lowest_sequence = sequence
        self.bumps = bumps
        self.heard_ms = 0  # as ProducerState's

    def meet(self, epoch: int, sequence: int) -> None:
        """Another batch of the producer is to be verified."""
        self.is_shared = True
        if epoch > self.epoch:
            self.epoch = epoch
            self.lowest_sequence = sequence
        elif epoch == self.epoch:
            self.lowest_sequence = min(self.lowest_sequence, sequence)


SnapshotEntry: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""Producer id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch,
first offset of its open transaction: a ProducerEntry, in the order of Kafka's schema."""


class BadSnapshot(Exception):
    """A snapshot that can't be used. Whoever reads one falls back to an older one, or the log."""


class ProducerStates:
    """All producers of a partition, the one heard of longest ago first."""

    __slots__ = ("_states", "_verifying", "producers_max", "unstable")

    def __init__(self, producers_max: int = 100_000) -> None:
        self._states: OrderedDict[int, ProducerState] = OrderedDict()
        self._verifying: OrderedDict[int, Verification] = OrderedDict()
        self.producers_max = producers_max
        self.unstable = Unstable()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, producer_id: ProducerId) -> ProducerState | None:
        """The state of one producer."""
        return self._states.get(producer_id)

    # --- before an append --------------------------------------------------------------------

    def check(
        self, batch: BatchView, verification: Verification | None = None
    ) -> Duplicate | ErrorCode | None:
        """Whether a batch may be appended: None if so. Changes nothing.

        INVALID_PRODUCER_EPOCH: an older epoch than seen. OUT_OF_ORDER_SEQUENCE_NUMBER: not the
        next sequence, or not 0 in a new epoch. A producer without state here (expired, evicted,
        its records deleted, or new) may begin at any sequence, or it could never go on.
        INVALID_TXN_STATE: outside the transaction that it has open, or in one that is neither
        open here nor verified. A batch without sequences is a coordinator's own.
        """
        producer_id = batch.producer_id
        if producer_id < 0:
            return None
        state = self._states.get(producer_id)
        if batch.attributes & TRANSACTIONAL_BIT:
            verdict = self._check_transactional(batch, state, verification)
            if verdict is not None:
                return verdict
        if state is None:
            return None
        epoch = batch.producer_epoch
        first = batch.base_sequence
        if epoch != state.epoch:
            if epoch < state.epoch:
                return ErrorCode.INVALID_PRODUCER_EPOCH
            if first > 0:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        elif first >= 0:
            batches = state.batches
            last_sequence = batches[-1].last_sequence if batches else _NONE
            if first != last_sequence + 1 and (first or last_sequence != SEQUENCE_MAX):
                return _duplicate(state, batch) or ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        if state.transaction is not None and not batch.attributes & TRANSACTIONAL_BIT:
            return ErrorCode.INVALID_TXN_STATE
        return None

    def _check_transactional(
        self, batch: BatchView, state: ProducerState | None, verification: Verification | None
    ) -> Duplicate | ErrorCode | None:
        """What is asked of a transaction's batch beside the rest, in Kafka's order."""
        epoch = batch.producer_epoch
        if state is not None and state.epoch == epoch:
            duplicate = _duplicate(state, batch)
            if duplicate is not None:
                return duplicate
        known = self._verifying.get(batch.producer_id)
        open_here = state is not None and state.epoch == epoch and state.transaction is not None
        if not open_here and (verification is None or verification is not known):
            if verification is None and state is not None and epoch < state.epoch:
                return ErrorCode.INVALID_PRODUCER_EPOCH  # which is why it has none: see `verify`
            return ErrorCode.INVALID_TXN_STATE
        if state is not None and epoch < state.epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if known is not None and batch.base_sequence > 0:
            begins = known.bumps and (state is None or not state.batches)
            if begins or batch.base_sequence > known.lowest_sequence:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        return None

    def verify(
        self, producer_id: int, epoch: int, sequence: int, *, bumps: bool
    ) -> Verification | None:
        """Begin to verify a producer's batches; None if nobody needs to be asked about them.

        So if its transaction is open here already; or if its epoch is over: the log refuses what it
        sends, and the coordinator must not begin a transaction with that. `bumps`: by the rules of
        transaction version 2, where each has its own epoch.
        """
        state = self._states.get(producer_id)
        if state is not None and epoch <= state.epoch:
            if epoch < state.epoch or state.transaction is not None:
                return None
            if state.batches:
                # A batch that comes again, after its transaction, is no gap for those behind it.
                sequence = max(sequence, state.batches[-1].last_sequence + 1)
        verification = self._verifying.get(producer_id)
        if verification is None:
            verification = self._verifying[producer_id] = Verification(epoch, sequence, bumps)
            if len(self._verifying) > self.producers_max:
                self._verifying.popitem(last=False)
        else:
            verification.meet(epoch, sequence)
            verification.heard_ms = 0
        return verification

    def is_verifying(self, producer_id: int, verification: Verification) -> bool:
        """Whether it still stands: no marker of the producer's has come since it was begun."""
        return self._verifying.get(producer_id) is verification

    def refute(self, producer_id: int, verification: Verification) -> None:
        """The coordinator knows no such producer, nor ever will again: forget that it was asked.

        Else whoever makes up producer ids fills the place of those that are being verified. Who
        named the id of another, which is being verified too, takes nothing from that one.
        """
        if self._verifying.get(producer_id) is verification and not verification.is_shared:
            del self._verifying[producer_id]

    def check_marker(
        self, producer_id: int, epoch: int, coordinator_epoch: int | None, version: int
    ) -> ErrorCode:
        """Whether a marker may be appended. Changes nothing.

        INVALID_PRODUCER_EPOCH: a later epoch has been seen; from transaction version 2 on also
        the same one, while its transaction is open: the marker belongs to an earlier one (I43).
        TRANSACTION_COORDINATOR_FENCED: a later coordinator has written one. Never where the epoch
        is None: that is the coordinator itself, which on this one node nobody takes the place of.
        An admin may have named a higher epoch than there is: Kafka's coordinator can then end no
        transaction of that producer, and readers are held back there for good.
        """
        state = self._states.get(producer_id)
        if state is None:
            return _NO_ERROR
        late = version >= _BUMPS_SINCE and state.transaction is not None
        if epoch < state.epoch or (late and epoch == state.epoch):
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if coordinator_epoch is not None and coordinator_epoch < state.coordinator_epoch:
            return ErrorCode.TRANSACTION_COORDINATOR_FENCED
        return _NO_ERROR

    def taken_back(self, batch: BatchView, offset: Offset) -> Aborted | None:
        """What a control batch at `offset` takes back, not being in yet; None if nothing."""
        marker = _marker_of(batch)
        if marker is None or marker.type is not ControlType.ABORT:
            return None
        producer_id = batch.producer_id
        state = self._states.get(producer_id)
        if state is None or state.transaction is None:
            return None
        ending = state.transaction
        stable = self.unstable.stable_after(ending, offset)
        return Aborted(producer_id, ending.first_offset, offset, stable)

    # --- after it ----------------------------------------------------------------------------

    def update(
        self, batch: BatchView, segment: Segment | None = None, position: int = 0
    ) -> Transaction | None:
        """Remember a batch that is in the log. Harmless for one without a producer.

        `segment` and `position` are where it lies, where that is known. A transaction that begins
        with it is returned: whoever knows when it was written notes it there. Of a control batch
        all bytes must be in view.
        """
        producer_id = batch.producer_id
        if producer_id < 0:
            return None
        bits = batch.attributes & _TRANSACTION_BITS
        if not bits & CONTROL_BIT:
            state = self._heard(producer_id, batch.producer_epoch)
            delta = batch.last_offset_delta
            state.batches.append(
                _Batch(
                    batch.base_sequence,
                    batch.last_sequence,
                    batch.base_offset + delta,
                    delta,
                    batch.max_timestamp,
                )
            )
            if not bits:
                return None
            self._verifying.pop(producer_id, None)
            if state.transaction is not None:
                return None
            # Not by a call of `Offset`, which takes longer than to make the place.
            place = LogPosition(batch.base_offset, segment, position)  # type: ignore[arg-type]
            begun = Transaction(producer_id, batch.producer_epoch, place, batch.max_timestamp)
            state.transaction = begun
            self.unstable.begin(begun)
            return begun
        marker = _marker_of(batch)
        if marker is None:
            self._heard(producer_id, batch.producer_epoch)
        else:
            offset = Offset(batch.base_offset + batch.last_offset_delta)
            self.mark(producer_id, batch.producer_epoch, marker, batch.max_timestamp, offset)
        return None

    def mark(
        self, producer_id: int, epoch: int, marker: EndMarker, timestamp: int, offset: Offset
    ) -> None:
        """Remember a marker that is in the log at `offset`: as `update`, which has to read it."""
        state = self._heard(producer_id, epoch)
        self._verifying.pop(producer_id, None)
        state.coordinator_epoch = marker.coordinator_epoch
        batches = state.batches
        state.marked = timestamp, batches[-1] if batches else None
        ending = state.transaction
        if ending is not None:
            state.transaction = None
            self.unstable.end(ending, offset)
            if epoch == ending.epoch + 1:
                state.ended = ending.epoch, marker.type is ControlType.COMMIT

    def _heard(self, producer_id: int, epoch: int) -> ProducerState:
        """The producer's state, in this epoch from now on."""
        states = self._states
        state = states.get(producer_id)
        if state is None:
            state = states[producer_id] = ProducerState(epoch)
            if len(states) > self.producers_max:
                self._evict()
            return state
        states.move_to_end(producer_id)
        if state.epoch != epoch:
            state.epoch = epoch
            state.batches.clear()
        state.heard_ms = 0
        return state

    def _evict(self) -> None:
        """Forget the producer idle longest. One with an open transaction only goes to the back."""
        for _ in range(_EVICTION_LOOKS_MAX):
            producer_id, state = self._states.popitem(last=False)
            if state.transaction is None:
                return
            self._states[producer_id] = state

    def expire(self, now_ms: int, expiration_ms: int) -> None:
        """Forget producers not heard of for `expiration_ms`. To be called every few minutes.

        What counts is when we heard of them, not the time their records claim, as in Kafka: a
        producer that loads last year's events is not idle. A sweep dates all that was heard of
        since the last one, so that an append needs no clock.
        """
        for producer_id, state in list(self._states.items()):
            if state.heard_ms == 0:
                state.heard_ms = now_ms
            elif now_ms - state.heard_ms >= expiration_ms and state.transaction is None:
                del self._states[producer_id]
        for producer_id, verification in list(self._verifying.items()):
            if verification.heard_ms == 0:
                verification.heard_ms = now_ms
            elif now_ms - verification.heard_ms >= expiration_ms:
                del self._verifying[producer_id]

    def ended(self, producer_ids: Collection[int]) -> Iterator[tuple[tuple[int, int], bool]]:
        """How the last transactions of these producers ended, by id and epoch: see `ended` there.

        Most partitions know few producers, and most searches are for few."""
        states = self._states
        few = producer_ids if len(producer_ids) < len(states) else states
        for producer_id in few:
            state = states.get(producer_id)
            if state is not None and state.ended is not None and producer_id in producer_ids:
                epoch, committed = state.ended
                yield (producer_id, epoch), committed

    def epochs(self) -> Iterator[tuple[int, int]]:
        """Each producer's id, and the highest epoch that was heard of it."""
        return ((producer_id, state.epoch) for producer_id, state in self._states.items())

    def entries(self) -> Iterator[SnapshotEntry]:
        """One entry per producer: only its last batch survives a restart, as in Kafka."""
        nothing = _Batch(_NONE, _NONE, _NONE, 0, -1)
        for producer_id, state in self._states.items():
            last = state.batches[-1] if state.batches else nothing
            yield (
                producer_id,
                state.epoch,
                last.last_sequence,
                last.last_offset,
                last.offset_delta,
                state.timestamp(),
                state.coordinator_epoch,
                _NONE if state.transaction is None else state.transaction.first_offset,
            )

    def encode(self) -> bytes:
        """The content of a `.snapshot` file."""
        body = b"".join([_ENTRY.pack(*entry) for entry in self.entries()])
        head = _HEAD.pack(_VERSION, 0, len(self._states))
        checksum = crc32c(body, crc32c(head[6:]))
        return _HEAD.pack(_VERSION, checksum, len(self._states)) + body

    def load(self, entries: list[SnapshotEntry]) -> None:
        """Begin with what a snapshot says. Where open transactions lie is not known then."""
        self._states.clear()
        self.unstable = Unstable()
        begun = []
        for producer_id, epoch, sequence, offset, delta, timestamp, coordinator, first in entries:
            state = self._states[producer_id] = ProducerState(epoch)
            state.coordinator_epoch = coordinator
            if offset >= 0:
                base = (sequence - delta) & SEQUENCE_MAX  # wraps as sequences do
                if sequence < 0:
                    base = sequence  # a coordinator's batch has none
                state.batches.append(_Batch(base, sequence, offset, delta, timestamp))
            else:
                state.marked = timestamp, None
            if first >= 0:
                place = LogPosition(Offset(first), None, 0)
                state.transaction = Transaction(producer_id, epoch, place, timestamp)
                begun.append(state.transaction)
        for transaction in sorted(begun, key=lambda one: one.first_offset):
            self.unstable.begin(transaction)


def _marker_of(batch: BatchView) -> EndMarker | None:
    """The marker in a control batch; None also for one that says nothing: it ends nothing.

    Its checksum fits, so somebody wrote it so. What it was to end stays open and in sight.
    """
    try:
        return end_marker_of(batch)
    except RecordError:
        return None


def _duplicate(state: ProducerState, batch: BatchView) -> Duplicate | None:
    """The batch itself, where it is one of the last five."""
    first = batch.base_sequence
    batches = state.batches
    # The one that follows the last is what nearly always comes, and is none of them.
    if first >= 0 and batches and first != batches[-1].last_sequence + 1:
        last = batch.last_sequence
        for known in batches:
            if known.first_sequence == first and known.last_sequence == last:
                return Duplicate(Offset(known.last_offset - known.offset_delta), known.timestamp)
    return None


def decode_snapshot(raw: Buffer) -> list[SnapshotEntry]:
    """The entries of a `.snapshot` file. Raises BadSnapshot."""
    if len(raw) < _HEAD.size:
        raise BadSnapshot("shorter than its header")
    version, checksum, count = _HEAD.unpack_from(raw)
    if version != _VERSION:
        raise BadSnapshot(f"version {version}, not {_VERSION}")
    view = memoryview(raw)
    if crc32c(view[6:]) != checksum:
        raise BadSnapshot("its checksum does not match")
    if len(raw) != _HEAD.size + count * _ENTRY.size:
        raise BadSnapshot(f"{len(raw)} bytes are not those of {count} entries")
    return list(_ENTRY.iter_unpack(view[_HEAD.size :]))
