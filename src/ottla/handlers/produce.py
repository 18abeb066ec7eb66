"""Produce, key 0, versions 3 to 13; 0 to 2 are advertised only (see the registry).

Every partition of a request is judged first, then all are prepared, then all are appended: where
something must be waited for before the effect, the whole request waits, once. The first batch of
a transaction in a partition waits for the transaction's coordinator before it is prepared. acks=1
is answered after the write, acks=-1 when the high watermark has passed the batch, acks=0 not.
v3 transactional id · v5 log start offset · v7 zstd · v8 record errors · v9 flexible
v10 leader hints (KIP-951: a single node leads everything, so there is none to give)
v12 implicit adding to transactions (KIP-890) · v13 topic ids.
min.insync.replicas counts at most the replicas that a partition has, as in Kafka 4.3: here one.
Where Kafka 4.3.1 differs: null records it never answers; of a partition that is named twice it
acknowledges both batches and keeps the last; walking and re-compressing know no limit there; it
adds a partition to a transaction before it looks at the batch.
"""

from __future__ import annotations

from functools import partial
from struct import Struct
from typing import TYPE_CHECKING

from ottla.coordinator.transaction.ports import said_of
from ottla.core.model import NO_TIMESTAMP
from ottla.core.pending import Pending
from ottla.handlers.produce_general import (
    ACKS_ALL,
    ACKS_LEADER,
    ADDS_SINCE,
    TOPIC_IDS_SINCE,
    go_on_after,
    go_on_with,
    start_told,
)
from ottla.handlers.produce_several import several
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.codec import encoder
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.validate import Rejected, check_header

if TYPE_CHECKING:
    from typing import TypeAlias

    from ottla.handlers.context import Context, Request
    from ottla.records.batch import BatchView
    from ottla.replication.partition import Partition
    from ottla.storage.producers import Verification

    _GoOn: TypeAlias = partial[Reply | Parked]

START_SINCE = 5


def handle(context: Context, request: Request[ProduceRequest]) -> Reply | Parked:
    """Append each partition's batch and answer for each (KIP-98, KIP-467)."""
    return go_on_after((), context, request)


_NO_ERROR = ErrorCode.NONE  # a name of the module is found in a fraction of the time
# What differs in the answers for one partition: error, base offset, append time, log start.
_pack_outcome = Struct(">hqqq").pack
_ANYTHING = _pack_outcome(-2, -2, -2, -2)


def quick(context: Context, version: int, body: ProduceRequest) -> bytes | _GoOn | None:
    """The usual request: a batch for each of its partitions, which has to wait for nothing.

    Does what `handle` does with it, and knows nothing else: whatever is refused before its batch
    is appended, or could be waited for, is left to that. A transaction's coordinator is asked
    once, since that may have an effect: what follows on another answer goes on with that one.
    """
    topics = body.topic_data
    if version < START_SINCE:
        return None
    if len(topics) != 1 or len(topics[0].partition_data) != 1:
        return several(context, version, body)
    topic = topics[0]
    part = topic.partition_data[0]
    table = context.table
    if version >= TOPIC_IDS_SINCE:
        partition = table.get_by_id(topic.topic_id, part.index)
    else:
        partition = table.get(topic.name, part.index)
    if type(partition) is ErrorCode or not partition.plain or table.little_room:
        return None
    acks = body.acks
    if acks != ACKS_LEADER:
        if acks != ACKS_ALL:
            return None
        if partition.committed_by_sync:
            return several(context, version, body)
    batch = check_header(part.records, partition.rules, context.clock.wall_ms(), version)
    if type(batch) is Rejected:
        return None
    if batch.attributes & TRANSACTIONAL_BIT:
        return _in_transaction(context, version, body.transactional_id, partition, batch)
    if partition.prepare(batch) is not None:
        return partial(go_on_after, (batch,))
    return _append(version, partition, batch, None)


def _in_transaction(
    context: Context,
    version: int,
    transactional_id: str | None,
    partition: Partition,
    batch: BatchView,
) -> bytes | _GoOn:
    """As `quick`, of a transaction's batch."""
    if transactional_id is None:
        return partial(go_on_after, (batch,))
    producer_id, epoch, adds = batch.producer_id, batch.producer_epoch, version >= ADDS_SINCE
    verification = partition.verify(producer_id, epoch, batch.base_sequence, bumps=adds)
    if verification is None:
        if partition.prepare(batch) is not None:
            return partial(go_on_after, (batch,))
        return _append(version, partition, batch, None)
    key = partition.key
    admit = context.transactions.admit
    admitted = admit(transactional_id, producer_id, epoch, (key,), add=adds)
    go_on = partial(go_on_with, (batch,), [verification], admitted)
    if isinstance(admitted, Pending) or said_of(key, admitted) is not _NO_ERROR:
        return go_on
    if partition.prepare(batch) is not None:
        return go_on
    return _append(version, partition, batch, verification)


def _append(
    version: int, partition: Partition, batch: BatchView, verification: Verification | None
) -> bytes:
    """Append it, if its log takes it, and tell what became of it."""
    outcome = partition.put(batch, verification)
    start = partition.log.start
    if outcome is None:
        append_time = batch.max_timestamp if partition.stamps_time else NO_TIMESTAMP
        told = _pack_outcome(0, batch.base_offset, append_time, start)
    elif type(outcome) is ErrorCode:
        told = _pack_outcome(outcome, -1, -1, start_told(outcome, batch, start))
    else:
        told = _pack_outcome(0, *outcome, start)
    before, behind = (partition.produce_answers or {}).get(version) or _around(partition, version)
    return before + told + behind


def _around(partition: Partition, version: int) -> tuple[bytes, bytes]:
    """What stands before and behind the outcome in the answer for one partition. Kept there."""
    part = PartitionProduceResponse(
        index=partition.key.partition,
        error_code=-2,
        base_offset=-2,
        log_append_time_ms=-2,
        log_start_offset=-2,
    )
    topic = TopicProduceResponse(
        name=partition.key.topic, topic_id=partition.topic_id, partition_responses=[part]
    )
    (whole,) = encoder(ProduceResponse, version)(ProduceResponse(responses=[topic]))
    assert type(whole) is bytes, "there are no slices in it"
    # From the end: only zeros follow it there, while a topic's id may be anything.
    at = whole.rindex(_ANYTHING)
    found = whole[:at], whole[at + len(_ANYTHING) :]
    if partition.produce_answers is None:
        partition.produce_answers = {}
    partition.produce_answers[version] = found
    return found
