"""What a partition remembers of idempotent producers, and the file that carries it over a restart.

Owns the last five batches per producer id, their expiry, and Kafka's ProducerSnapshot v1. Must
not append: the log calls `update` once a batch is in, `check` before. Sources: KIP-98, KIP-360.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from ottla.core.model import Offset, ProducerId
from ottla.core.ports import Buffer
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.crc import crc32c

BATCHES_KEPT = 5
"""As many as a client may have in flight while it is idempotent."""
SEQUENCE_MAX = (1 << 31) - 1

_HEAD = struct.Struct(">hII")  # version, CRC-32C of all that follows it, number of entries
_ENTRY = struct.Struct(">qhiqiqiq")
_VERSION = 1
_NONE = -1


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

    __slots__ = ("batches", "coordinator_epoch", "epoch", "heard_ms", "txn_first_offset")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[_Batch] = deque(maxlen=BATCHES_KEPT)
        self.coordinator_epoch = _NONE
        self.txn_first_offset = _NONE
        self.heard_ms = 0  # 0: since the last sweep


SnapshotEntry: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""Producer id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch,
first offset of its open transaction: a ProducerEntry, in the order of Kafka's schema."""


class BadSnapshot(Exception):
    """A snapshot that can't be used. Whoever reads one falls back to an older one, or the log."""


class ProducerStates:
    """All producers of a partition, the one heard of longest ago first."""

    __slots__ = ("_states", "producers_max")

    def __init__(self, producers_max: int = 100_000) -> None:
        self._states: OrderedDict[int, ProducerState] = OrderedDict()
        self.producers_max = producers_max

    def __len__(self) -> int:
        return len(self._states)

    def get(self, producer_id: ProducerId) -> ProducerState | None:
        """The state of one producer."""
        return self._states.get(producer_id)

    def check(self, batch: BatchView) -> Duplicate | ErrorCode | None:
        """Whether a client's batch may be appended: None if so. Changes nothing.

        INVALID_PRODUCER_EPOCH: an older epoch than seen. OUT_OF_ORDER_SEQUENCE_NUMBER: not the
        next sequence, or not 0 in a new epoch. A producer without state here (expired, evicted,
        its records deleted, or new) may begin at any sequence, or it could never go on.
        """
        if batch.producer_id < 0:
            return None
        state = self._states.get(batch.producer_id)
        if state is None:
            return None
        epoch = batch.producer_epoch
        first = batch.base_sequence
        if epoch != state.epoch:
            if epoch < state.epoch:
                return ErrorCode.INVALID_PRODUCER_EPOCH
            return None if first == 0 else ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        batches = state.batches
        last_sequence = batches[-1].last_sequence if batches else _NONE
        if first == last_sequence + 1 or (first == 0 and last_sequence == SEQUENCE_MAX):
            return None
        last = batch.last_sequence
        for known in batches:
            if known.first_sequence == first and known.last_sequence == last:
                return Duplicate(Offset(known.last_offset - known.offset_delta), known.timestamp)
        return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER

    def update(self, batch: BatchView) -> None:
        """Remember a batch that is in the log. Harmless for one without a producer."""
        producer_id = batch.producer_id
        if producer_id < 0:
            return
        state = self._states.get(producer_id)
        if state is None:
            state = self._states[producer_id] = ProducerState(batch.producer_epoch)
            while len(self._states) > self.producers_max:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(producer_id)
            if state.epoch != batch.producer_epoch:
                state.epoch = batch.producer_epoch
                state.batches.clear()
            state.heard_ms = 0
        if batch.is_control:
            return  # a transaction marker has no sequence; it only raises the epoch
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

    def expire(self, now_ms: int, expiration_ms: int) -> None:
        """Forget producers not heard of for `expiration_ms`. To be called every few minutes.

        What counts is when we heard of them, not the time their records claim, as in Kafka: a
        producer that loads last year's events is not idle. A sweep dates all that was heard of
        since the last one, so that an append needs no clock.
        """
        for producer_id, state in list(self._states.items()):
            if state.heard_ms == 0:
                state.heard_ms = now_ms
            elif now_ms - state.heard_ms >= expiration_ms and state.txn_first_offset == _NONE:
                del self._states[producer_id]

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
                last.timestamp,
                state.coordinator_epoch,
                state.txn_first_offset,
            )

    def encode(self) -> bytes:
        """The content of a `.snapshot` file."""
        body = b"".join([_ENTRY.pack(*entry) for entry in self.entries()])
        head = _HEAD.pack(_VERSION, 0, len(self._states))
        checksum = crc32c(body, crc32c(head[6:]))
        return _HEAD.pack(_VERSION, checksum, len(self._states)) + body

    def load(self, entries: list[SnapshotEntry]) -> None:
        """Begin with what a snapshot says."""
        self._states.clear()
        for producer_id, epoch, sequence, offset, delta, timestamp, coordinator, txn in entries:
            state = self._states[producer_id] = ProducerState(epoch)
            state.coordinator_epoch = coordinator
            state.txn_first_offset = txn
            if offset >= 0:
                first = (sequence - delta) & SEQUENCE_MAX  # wraps as sequences do
                state.batches.append(_Batch(first, sequence, offset, delta, timestamp))


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
