"""The loads: what each sends, over how many connections, how many at a time.

Owns the choice of loads and the making of their requests. Must not send them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ottla.bench import asking, pump, usage, wire
from ottla.protocol.messages import (
    api_versions,
    fetch,
    find_coordinator,
    list_offsets,
    metadata,
    produce,
)
from ottla.protocol.schema import Message
from ottla.records.builder import NO_PRODUCER, Producer

PARTITIONS_COUNT = 4
SENT_BYTES_MAX = 512 << 20
"""What one measurement sends at most: less than the memory that was touched for it."""

BARE_ANSWER_BYTES = 60
_BATCH_TAIL = 3  # what follows the batch in a Produce of version 9: three empty lists of tags


@dataclass(frozen=True, slots=True)
class Shape:
    """One load. `kind` is produce, fetch, request; librdkafka or fanout: that client's own load.

    A fetch has `slice_bytes`: what one answer carries at most. A request has an `api`. A produce
    writes to `partitions_each` partitions in one request.
    """

    name: str
    kind: str
    connections: int
    depth: int
    records_count: int = 1
    value_bytes: int = 100
    slice_bytes: int = 0
    api: str = ""
    partitions: int = PARTITIONS_COUNT
    partitions_each: int = 1
    pinned: bool = False
    """Client and broker share one processor: no wake-up of a sleeping one is in the latency."""

    @property
    def records_each(self) -> int:
        """Records in one request; a request of librdkafka is a message here."""
        return self.records_count * self.partitions_each

    @property
    def is_clients_own(self) -> bool:
        """Whether a Kafka client makes the load, which wouldn't talk to the bare loop."""
        return self.kind in ("librdkafka", "fanout")

    @property
    def conditions(self) -> str:
        """In words, for who reads the report."""
        if self.is_clients_own:
            who = f"1 producer, {self.connections} consumers" * (self.kind == "fanout")
            return f"confluent-kafka, {who or '1 producer'}, linger 5 ms, to 4 partitions"
        one = "connection" if self.connections == 1 else "connections"
        each = " each" if self.connections > 1 else ""
        flight = f"{self.connections} {one}, {self.depth} in flight{each}"
        if self.kind == "request":
            return flight
        flight += ", client and broker on one processor" if self.pinned else ""
        batch = f"a batch of {self.records_count:,} × {self.value_bytes:,} B"
        if self.partitions_each > 1:
            batch += f" for each of {self.partitions_each} partitions of {self.partitions:,}"
        return f"{flight}, {batch}" + (", read again and again" if self.slice_bytes else "")


PRODUCE = (
    Shape("100 B, depth 16", "produce", 8, 16),
    Shape("100 B, depth 1", "produce", 16, 1),
    Shape("100 B, alone", "produce", 1, 1),
    Shape("100 B, alone, one processor", "produce", 1, 1, pinned=True),
    Shape("16 KiB", "produce", 4, 4, 160),
    Shape("1 MiB", "produce", 4, 2, 960, 1024),
    Shape("1 KiB messages", "librdkafka", 1, 1, 1, 1024),
)
FETCH = (
    Shape("1 MiB", "fetch", 4, 2, 960, 1024, slice_bytes=1 << 20),
    Shape("16 KiB", "fetch", 4, 4, 160, slice_bytes=16_384),
    Shape("100 B, depth 8", "fetch", 8, 8, slice_bytes=1),
)
REQUESTS = (
    Shape("ApiVersions 3", "request", 8, 8, api="api_versions"),
    Shape("Metadata 12, 1 topic", "request", 8, 8, api="metadata"),
    Shape("ListOffsets 7, 1 partition", "request", 8, 8, api="list_offsets"),
    Shape("Fetch 12, nothing new", "request", 8, 8, api="fetch"),
    Shape("FindCoordinator 3", "request", 8, 8, api="find_coordinator"),
)

_THOUSAND = 1000
COMPARE = (
    Shape("small batches", "produce", 8, 16),
    Shape("large batches", "produce", 4, 2, 960, 1024),
    Shape("1,000 partitions", "produce", 8, 2, partitions=_THOUSAND, partitions_each=125),
    Shape("1,000 connections", "produce", _THOUSAND, 1),
    Shape("small messages, librdkafka", "librdkafka", 1, 1),
    Shape("1 KiB messages, librdkafka", "librdkafka", 1, 1, 1, 1024),
    Shape("fan-out, 1 to 10", "fanout", 10, 1, 1, 1024),
)
"""What brokers are compared by."""


def _api_versions(_topic: str, _partition: int) -> Message:
    return api_versions.ApiVersionsRequest(client_software_name="load", client_software_version="1")


def _metadata(topic: str, _partition: int) -> Message:
    return metadata.MetadataRequest(
        topics=[metadata.MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False
    )


def _list_offsets(topic: str, partition: int) -> Message:
    wanted = list_offsets.ListOffsetsPartition(partition_index=partition, timestamp=-1)
    return list_offsets.ListOffsetsRequest(
        replica_id=-1, topics=[list_offsets.ListOffsetsTopic(name=topic, partitions=[wanted])]
    )


def _fetch(topic: str, partition: int) -> Message:
    wanted = fetch.FetchPartition(partition=partition, fetch_offset=1, partition_max_bytes=1 << 20)
    return fetch.FetchRequest(
        max_wait_ms=0, min_bytes=0, topics=[fetch.FetchTopic(topic=topic, partitions=[wanted])]
    )


def _find_coordinator(_topic: str, _partition: int) -> Message:
    return find_coordinator.FindCoordinatorRequest(key="bench", key_type=0)


def _list_offsets_error_at(topic: str) -> int:
    """After size, id, tags, throttle, 1 topic, its name, 1 partition, its index."""
    return 4 + 4 + 1 + 4 + 1 + (1 + len(topic)) + 1 + 4


_API: dict[str, tuple[Callable[[str, int], Message], int, Callable[[str], int | None]]] = {
    "api_versions": (_api_versions, 3, lambda _: 8),
    "metadata": (_metadata, 12, lambda _: None),
    "list_offsets": (_list_offsets, 7, _list_offsets_error_at),
    "fetch": (_fetch, 12, wire.fetch_error_at),
    "find_coordinator": (_find_coordinator, 3, lambda _: 13),
}
"""The request, its version, and where its answer has the error code, if at one place."""


def batch_bytes(shape: Shape) -> int:
    """About how large one write to a log is; of librdkafka, which gathers messages, at most."""
    if shape.kind == "librdkafka":
        return usage.TOUCHED_PIECE_BYTES
    return shape.records_count * shape.value_bytes


def records(shape: Shape, timestamp_ms: int, producer: Producer = NO_PRODUCER) -> bytes:
    """The batch of a shape."""
    return wire.batch(shape.records_count, shape.value_bytes, timestamp_ms, producer)


def load(shape: Shape, topic: str, acks: int, seconds: float) -> pump.Load:
    """What a shape sends to a broker that has this topic with a record in each partition."""
    if shape.kind == "request":
        make, version, place = _API[shape.api]
        frames = [asking.frame(make(topic, p), version) for p in range(PARTITIONS_COUNT)]
        return _load(shape, frames, place(topic), seconds)
    if shape.slice_bytes:
        frames = [wire.fetch(topic, p, shape.slice_bytes) for p in range(PARTITIONS_COUNT)]
        return _load(shape, frames, wire.fetch_error_at(topic), seconds)
    frames = produces(shape, topic, acks)
    return _load(shape, frames, wire.produce_error_at(topic), seconds)


def produces(shape: Shape, topic: str, acks: int) -> list[bytes]:
    """A produce request for each partition; for each share of them, if it writes to several."""
    batch = records(shape, int(time.time() * 1000))
    if shape.partitions_each > 1:
        shares = shape.partitions // shape.partitions_each
        return [
            _wide(topic, range(n, shape.partitions, shares), batch, acks) for n in range(shares)
        ]
    return [wire.produce(topic, p, batch, acks) for p in range(PARTITIONS_COUNT)]


def _wide(topic: str, partitions: Iterable[int], batch: bytes, acks: int) -> bytes:
    """Produce, version 9, to several partitions at once."""
    view = memoryview(batch)
    entries = [produce.PartitionProduceData(index=one, records=view) for one in partitions]
    data = [produce.TopicProduceData(name=topic, partition_data=entries)]
    return asking.frame(
        produce.ProduceRequest(
            transactional_id=None, acks=acks, timeout_ms=30_000, topic_data=data
        ),
        9,
    )


def idempotent_load(
    shape: Shape, topic: str, acks: int, seconds: float, ids: Sequence[tuple[int, int]]
) -> pump.Load:
    """The same as `load` for a produce, each connection a producer of its own. `ids`: theirs."""
    now_ms = int(time.time() * 1000)
    frames = []
    for index, (producer_id, epoch) in enumerate(ids):
        batch = records(shape, now_ms, Producer(producer_id, epoch, 0))
        frames.append(wire.produce(topic, index % PARTITIONS_COUNT, batch, acks))
    end = len(frames[0]) - _BATCH_TAIL
    where = pump.Sequenced(end - len(batch), end, shape.records_count)
    return _load(shape, frames, wire.produce_error_at(topic), seconds, where)


def bare_load(shape: Shape, seconds: float) -> pump.Load:
    """The same bytes for the bare loop, whose answers have zeros everywhere."""
    if shape.kind == "request":
        make, version, _ = _API[shape.api]
        request = asking.frame(make("bare", 0), version)
    elif shape.slice_bytes:
        request = wire.fetch("bare", 0, 1)
    else:
        request = wire.produce("bare", 0, records(shape, 0), 1)
    return _load(shape, [request], 8, seconds)


def _load(
    shape: Shape,
    frames: Sequence[bytes],
    error_at: int | None,
    seconds: float,
    sequenced: pump.Sequenced | None = None,
) -> pump.Load:
    return pump.Load(
        requests=[frames[i % len(frames)] for i in range(shape.connections)],
        depth=shape.depth,
        error_at=error_at,
        seconds=seconds,
        answers_max=max(1, SENT_BYTES_MAX // len(frames[0])),
        sequenced=sequenced,
    )
