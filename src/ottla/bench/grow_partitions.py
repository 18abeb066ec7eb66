"""What partitions cost: each alone, and those that a request doesn't touch."""

from __future__ import annotations

import resource
import socket
import struct
import tempfile
import time
from collections.abc import Callable

from ottla.bench import asking, contenders, pump, sample, shapes, stats, usage, wire
from ottla.bench.growth_table import Column, Growth, Limits, Say, sizes
from ottla.protocol.messages import fetch, metadata, produce

_TOPIC = "many"
_OPTIONS = ("max.partitions.per.topic=1000000", "max.partitions.total=1000000")
_FILLED_AT_ONCE = 500
_SPARE_FILES = 1000
_ROLL_BYTES = 1 << 20
_ROLL_BATCH_RECORDS = 60  # of 1 KiB: a segment of 1 MiB takes 16 such batches
_SESSION_ID_AT, _SESSION_EPOCH_AT = 36, 40  # in a Fetch of version 12 by the client "load"

_COLUMNS = (
    Column("memory of one, empty", "KiB"),
    Column("memory of one, with files", "KiB"),
    Column("create", "ms"),
    Column("Metadata of all, each", "µs"),
    Column("Fetch of all, each", "µs"),
    Column("Fetch of a session, nothing new", "µs", flat=True),
    Column("Fetch of one", "µs", flat=True),
    Column("produce to one", "µs", flat=True),
    Column("roll, p50", "ms", flat=True),
    Column("start", "ms"),
    Column("start after kill -9", "ms"),
)


def measure(limits: Limits, say: Say) -> Growth:
    title = "Partitions of one broker"
    if limits.partitions > _filled_max():
        title += f" (of which {_filled_max():,} have files: each keeps three open)"
    growth = Growth("partitions", title, "partitions", _COLUMNS)
    for count in sizes(1, limits.partitions):
        say(f"growth: {count:,} partitions")
        with tempfile.TemporaryDirectory(prefix="ottla-growth-") as folder:
            growth.add(count, _point(f"{folder}/data", count, limits.seconds))
    return growth


def _filled_max() -> int:
    """How many may have files at once: each keeps three open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (limit - _SPARE_FILES) // 3 if limit != resource.RLIM_INFINITY else 1 << 30


def _point(directory: str, count: int, seconds: float) -> dict[str, float | None]:
    running = contenders.start(directory, _OPTIONS)
    try:
        found = _sizes(running, count)
        found |= _requests(running, count, seconds)
        contenders.stop(running)
        running, found["start"] = sample.start_ms(directory, _OPTIONS)
        _fill(running.address, 1)
        contenders.stop(running, kill=True)
        running, found["start after kill -9"] = sample.start_ms(directory, _OPTIONS)
    finally:
        contenders.stop(running)
    return found


def _sizes(running: contenders.Running, count: int) -> dict[str, float | None]:
    """Memory before, with the topic, and with a record in each partition."""
    address = running.address
    asking.create_topic(address, "first", 1)  # what the first one imports isn't the others'
    asking.until_ready(address, "first", 1)
    before, begun = sample.resident_kib(running), time.perf_counter()
    asking.create_topic(address, _TOPIC, count)
    create_ms = (time.perf_counter() - begun) * 1e3
    empty = sample.resident_kib(running)
    filled_count = min(count, _filled_max())
    _fill(address, filled_count)
    filled = sample.resident_kib(running)
    many = count >= 100  # less is within a page or two
    return {
        "memory of one, empty": (empty - before) / count if many else None,
        "memory of one, with files": (
            (empty - before) / count + (filled - empty) / filled_count if many else None
        ),
        "create": create_ms,
    }


def _fill(address: tuple[str, int], count: int) -> None:
    """A record into each partition, many in one request."""
    records = wire.batch(1, 100, int(time.time() * 1000))
    for first in range(0, count, _FILLED_AT_ONCE):
        parts = [
            produce.PartitionProduceData(index=index, records=memoryview(records))
            for index in range(first, min(first + _FILLED_AT_ONCE, count))
        ]
        topic = produce.TopicProduceData(name=_TOPIC, partition_data=parts)
        request = produce.ProduceRequest(acks=1, timeout_ms=60_000, topic_data=[topic])
        [answer] = asking.ask(address, request, 9, produce.ProduceResponse).responses
        for part in answer.partition_responses:
            if part.error_code:
                raise pump.LoadFailed(f"partition {part.index}: error {part.error_code}")


def _fetch(count: int, session_epoch: int = -1) -> fetch.FetchRequest:
    """Of the end of that many partitions, where nothing new is."""
    filled_count = _filled_max()
    parts = [
        fetch.FetchPartition(
            partition=index, fetch_offset=int(index < filled_count), partition_max_bytes=1 << 20
        )
        for index in range(count)
    ]
    return fetch.FetchRequest(
        max_wait_ms=0,
        min_bytes=0,
        session_epoch=session_epoch,
        topics=[fetch.FetchTopic(topic=_TOPIC, partitions=parts)] if parts else [],
    )


def _requests(running: contenders.Running, count: int, seconds: float) -> dict[str, float | None]:
    def cpu_us(request: bytes, error_at: int | None = None) -> float:
        return sample.cpu_us(running, sample.load_of([request], seconds, error_at))[0]

    wanted = metadata.MetadataRequestTopic(name=_TOPIC)
    all_metadata = asking.frame(metadata.MetadataRequest(topics=[wanted]), 12)
    record = wire.produce("first", 0, wire.batch(1, 100, int(time.time() * 1000)), 1)
    return {
        "Metadata of all, each": cpu_us(all_metadata) / count,
        "Fetch of all, each": cpu_us(asking.frame(_fetch(count), 12)) / count,
        "Fetch of a session, nothing new": _session_us(running, count, seconds),
        "Fetch of one": cpu_us(asking.frame(_fetch(1), 12), wire.fetch_error_at(_TOPIC)),
        "produce to one": cpu_us(record, wire.produce_error_at("first")),
        "roll, p50": _roll_ms(running, seconds),
    }


def _session_us(running: contenders.Running, count: int, seconds: float) -> float:
    """CPU of an incremental fetch (KIP-227) in a session of so many partitions."""
    first = asking.frame(_fetch(count, session_epoch=0), 12)
    following = bytearray(asking.frame(_fetch(0, session_epoch=1), 12))
    with (
        socket.create_connection(running.address, timeout=60) as sock,
        sock.makefile("rb") as stream,
    ):
        sock.sendall(first)
        answer = _read(stream.read)
        session_id = struct.unpack_from(">i", answer, 4 + 1 + 4 + 2)[0]
        if not session_id:
            raise pump.LoadFailed("the broker made no fetch session")
        struct.pack_into(">i", following, _SESSION_ID_AT, session_id)
        before, asked = usage.cpu(running.pid), 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            asked += 1
            struct.pack_into(">i", following, _SESSION_EPOCH_AT, asked)
            sock.sendall(following)
            error = struct.unpack_from(">h", _read(stream.read), 4 + 1 + 4)[0]
            if error:
                raise pump.LoadFailed(f"a fetch session ended with error {error}")
        return (usage.cpu(running.pid) - before).total / asked * 1e6


def _read(read: Callable[[int], bytes]) -> bytes:
    size = struct.unpack(">i", read(4))[0]
    return read(size)


def _roll_ms(running: contenders.Running, seconds: float) -> float:
    """How long a produce takes that closes a segment and begins the next."""
    name = "rolls"
    asking.create_topic(running.address, name, 1, segment_bytes=str(_ROLL_BYTES))
    asking.until_ready(running.address, name, 1)
    batch = wire.batch(_ROLL_BATCH_RECORDS, 1024, int(time.time() * 1000))
    load = pump.Load(
        [wire.produce(name, 0, batch, 1)],
        1,
        wire.produce_error_at(name),
        seconds,
        shapes.SENT_BYTES_MAX // len(batch),
    )
    seen = pump.run(running.address, load)
    asking.delete_topic(running.address, name)
    rolls = max(1, seen.answers * len(batch) // _ROLL_BYTES)
    # Of so many requests that many rolled, and they are the slowest ones.
    return stats.quantile(seen.latencies[-rolls:], 0.5) * 1e3
