"""The usual Produce request that names several partitions, or waits until it is on the disk.

Owns the way from the decoded body to the encoded answer, for what has to wait for nothing before it
is appended. A request of one partition that never waits has a shorter one (`produce`); whatever
else there may be is `produce_general`'s.

As there, all partitions are judged before any is prepared, and all are prepared before anything is
appended: until then the request can still be left whole to the general way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from struct import Struct
from typing import TYPE_CHECKING, TypeAlias

from ottla.coordinator.transaction.ports import said_of
from ottla.core import options
from ottla.core.model import NO_TIMESTAMP, Offset
from ottla.core.pending import Pending
from ottla.handlers.produce_general import (
    ACKS_ALL,
    ACKS_LEADER,
    ADDS_SINCE,
    TOPIC_IDS_SINCE,
    go_on_after,
    go_on_with,
    start_told,
    when_committed,
    why_not_committed,
)
from ottla.handlers.reply import Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.primitives import write_uvarint
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.validate import Rejected, check_header

if TYPE_CHECKING:
    from ottla.core.model import TopicPartition
    from ottla.handlers.context import Context, Request
    from ottla.handlers.reply import Parked
    from ottla.protocol.messages.produce import ProduceRequest, TopicProduceData
    from ottla.records.batch import BatchView
    from ottla.replication.partition import Partition
    from ottla.storage.producers import Verification

    _GoOn: TypeAlias = partial[Reply | Parked]
    _End: TypeAlias = tuple[int, Partition, Offset]
    """Of a batch that was appended: where it is told of, and what commits it when passed."""

RECORD_ERRORS_SINCE, FLEXIBLE_SINCE = 8, 9
_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time
# Of a partition in the answer: its number, error, base offset, append time, log start.
_pack_outcome = Struct(">ihqqq").pack
_NO_THROTTLE = bytes(4)


def several(context: Context, version: int, body: ProduceRequest) -> bytes | _GoOn | None:
    """As `produce.quick`, from version 5 on. None: nothing has been done."""
    batches: dict[Partition, BatchView] = {}
    attributes = _judge(context, version, body, batches)
    if attributes is None:
        return partial(go_on_after, _first(body, batches)) if batches else None
    if attributes & TRANSACTIONAL_BIT:
        return _in_transaction(context, version, body, batches)
    return _append(version, body, batches, repeat(None))


def _judge(
    context: Context, version: int, body: ProduceRequest, batches: dict[Partition, BatchView]
) -> int | None:
    """Find what is to be appended; the attributes that any of it has.

    None, where anything else is to be done than to append all of it, now.
    """
    table = context.table
    acks = body.acks
    if table.little_room or acks not in (ACKS_ALL, ACKS_LEADER):
        return None
    now_ms = context.clock.wall_ms()
    attributes = named = 0
    for topic in body.topic_data:
        if version >= TOPIC_IDS_SINCE:
            of_topic = table.of_topic_id(topic.topic_id)
        else:
            of_topic = table.of_topic(topic.name)
        count = len(of_topic)
        if not topic.partition_data:
            return None
        named += len(topic.partition_data)
        for part in topic.partition_data:
            index = part.index
            if not 0 <= index < count:
                return None
            partition = of_topic[index]
            if not partition.plain:
                return None
            batch = check_header(part.records, partition.rules, now_ms, version)
            if type(batch) is Rejected:
                return None
            attributes |= batch.attributes
            batches[partition] = batch
            # Of a transaction's later: others are asked before it is appended.
            if not batch.attributes & TRANSACTIONAL_BIT and not partition.log.has_room(
                batch.length,
                partition.leader_epoch,
                now_ms if partition.stamps_time else batch.max_timestamp,
                batch.last_offset_delta + 1,
            ):
                return None
    if not 0 < named == len(batches) <= context.config[options.REQUEST_PARTITIONS_MAX]:
        return None
    return attributes


def _first(body: ProduceRequest, batches: dict[Partition, BatchView]) -> Sequence[BatchView]:
    """The batches that were judged, as those of the request's first partitions.

    None of them where any partition is named twice: then there is one batch for both.
    """
    topics = body.topic_data
    names = [(one.name, one.topic_id, part.index) for one in topics for part in one.partition_data]
    return tuple(batches.values()) if len(set(names)) == len(names) else ()


def _in_transaction(
    context: Context, version: int, body: ProduceRequest, batches: dict[Partition, BatchView]
) -> bytes | _GoOn:
    """As `several`, of one producer's transaction."""
    sound = tuple(batches.values())
    if body.transactional_id is None:
        return partial(go_on_after, sound)
    first = next(iter(batches.values()))
    producer_id, epoch, adds = first.producer_id, first.producer_epoch, version >= ADDS_SINCE
    for batch in batches.values():
        if (
            not batch.attributes & TRANSACTIONAL_BIT
            or batch.producer_id != producer_id
            or batch.producer_epoch != epoch
        ):
            return partial(go_on_after, sound)
    verifications: list[Verification | None] = []
    keys: list[TopicPartition] = []
    for partition, batch in batches.items():
        verification = partition.verify(producer_id, epoch, batch.base_sequence, bumps=adds)
        verifications.append(verification)
        if verification is not None:
            keys.append(partition.key)
    go_on: _GoOn = partial(go_on_after, sound)
    if keys:
        admit = context.transactions.admit
        admitted = admit(body.transactional_id, producer_id, epoch, keys, add=adds)
        go_on = partial(go_on_with, sound, verifications, admitted)
        if isinstance(admitted, Pending):
            return go_on
        if admitted is not _NO_ERROR and any(said_of(key, admitted) for key in keys):
            return go_on
    for partition, batch in batches.items():
        if partition.prepare(batch) is not None:
            return go_on
    return _append(version, body, batches, verifications)


def _append(
    version: int,
    body: ProduceRequest,
    batches: dict[Partition, BatchView],
    verifications: Iterable[Verification | None],
) -> bytes | _GoOn:
    """Append each, as far as its log takes it, and tell what became of it."""
    told: list[bytes] = []
    ends: list[_End] = []
    waits = body.acks == ACKS_ALL and next(iter(batches)).committed_by_sync
    pairs = zip(batches.items(), verifications)  # noqa: B905  # the verifications may have no end
    for (partition, batch), verification in pairs:
        outcome = partition.put(batch, verification)
        start: int = partition.log.start
        error = 0
        if outcome is None:
            offset = batch.base_offset
            time = batch.max_timestamp if partition.stamps_time else NO_TIMESTAMP
        elif type(outcome) is ErrorCode:
            error, offset, time = outcome, -1, -1
            start = start_told(outcome, batch, partition.log.start)
        else:
            offset, time = outcome
        if waits and not error:
            end = Offset(offset + batch.last_offset_delta + 1)
            ends.append((len(told), partition, end))
        told.append(_pack_outcome(partition.key.partition, error, offset, time, start))
    if ends:
        committing = [partition.committed(end) for _, partition, end in ends]
        waiting = [pending for pending in committing if pending is not None]
        if waiting:
            return partial(_wait, told, ends, waiting)
    return _encode(version, body.topic_data, told)


def _wait(
    told: list[bytes],
    ends: list[_End],
    waiting: list[Pending[None]],
    _context: Context,
    request: Request[ProduceRequest],
) -> Reply | Parked:
    """Tell it, once it is on the disk."""
    return when_committed(waiting, request.body, partial(_committed, told, ends, request))


def _committed(told: list[bytes], ends: list[_End], request: Request[ProduceRequest]) -> Reply:
    """The answer for what is committed by now, and for what is not."""
    for at, partition, end in ends:
        if not partition.is_committed(end):
            error = why_not_committed(partition)
            told[at] = _pack_outcome(partition.key.partition, error, -1, -1, -1)
    return Reply(_encode(request.api_version, request.body.topic_data, told))


def _encode(version: int, topics: Sequence[TopicProduceData], told: list[bytes]) -> bytes:
    """The answer around what is told of each partition: a ProduceResponse without messages."""
    if version >= FLEXIBLE_SINCE:
        behind = b"\1\0\0"  # no record errors, no message, no tags
        chunks = [write_uvarint(len(topics) + 1)]
    else:
        behind = b"" if version < RECORD_ERRORS_SINCE else b"\0\0\0\0\xff\xff"
        chunks = [len(topics).to_bytes(4)]
    at = 0
    for topic in topics:
        count = len(topic.partition_data)
        if version >= TOPIC_IDS_SINCE:
            chunks += (topic.topic_id, write_uvarint(count + 1))
        else:
            name = topic.name.encode()
            if version >= FLEXIBLE_SINCE:
                chunks += (write_uvarint(len(name) + 1), name, write_uvarint(count + 1))
            else:
                chunks += (len(name).to_bytes(2), name, count.to_bytes(4))
        chunks += (behind.join(told[at : at + count]), behind)
        if version >= FLEXIBLE_SINCE:
            chunks.append(b"\0")
        at += count
    chunks.append(_NO_THROTTLE)
    if version >= FLEXIBLE_SINCE:
        chunks.append(b"\0")
    return b"".join(chunks)
