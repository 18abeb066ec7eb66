"""What the bytes cost that lie in a log: to requests that don't read them, and to a start."""

from __future__ import annotations

import random
import shutil
import tempfile
import time

from ottla.bench import asking, contenders, filling, sample, wire
from ottla.bench.growth_table import Column, Growth, Limits, Say
from ottla.protocol.messages import fetch, list_offsets

_TOPIC = "log"
_WARM_TOPIC = "warm"
_SPARE_MIB = 1024
_PLACES = 16
_OPTIONS: tuple[str, ...] = ()
_SMALLEST_MIB = 10
_CHUNK_BYTES = 32 << 20
_PAST_MS = 3_600_000

_COLUMNS = (
    Column("fill", "s/GB"),
    Column("append 100 B", "µs", flat=True),
    Column("fetch, at the end", "µs", flat=True),
    Column("fetch, anywhere", "µs", flat=True),
    Column("fetch by time, anywhere", "µs", flat=True),
    Column("memory", "MiB", flat=True),
    Column("start", "ms", flat=True),
    Column("start after kill -9", "ms"),
)


def steps(largest_mib: int) -> list[int]:
    """Sizes up to the largest: tenfold, the last step in two."""
    found = [_SMALLEST_MIB]
    while found[-1] * 20 <= largest_mib:
        found.append(found[-1] * 10)
    if largest_mib > found[-1]:
        found += [largest_mib // 2, largest_mib] if largest_mib > 4 * found[-1] else [largest_mib]
    return found


def measure(limits: Limits, say: Say) -> Growth:
    """Raises ValueError where the disk has no room for the largest, pump.LoadFailed."""
    growth = Growth("log", "Bytes in one partition's log", "MiB", _COLUMNS)
    with tempfile.TemporaryDirectory(prefix="ottla-growth-") as folder:
        needed_mib, free_mib = limits.log_mib + _SPARE_MIB, shutil.disk_usage(folder).free >> 20
        if free_mib < needed_mib:
            raise ValueError(
                f"a log of {limits.log_mib:,} MiB needs {needed_mib:,} MiB of disk, and {folder} "
                f"has {free_mib:,}; name a smaller one, or another place by TMPDIR"
            )
        directory = f"{folder}/data"
        running = contenders.start(directory, _OPTIONS)
        try:
            asking.create_topic(running.address, _TOPIC, 1)
            asking.until_ready(running.address, _TOPIC, 1)
            _warm(running)
            contenders.stop(running, kill=True)  # as before each of the others
            running = contenders.start(directory, _OPTIONS)
            size_bytes, rng = 0, random.Random(1)
            begun_ms = int(time.time() * 1000) - _PAST_MS
            for mib in steps(limits.log_mib):
                say(f"growth: a log of {mib:,} MiB")
                clock_ms = begun_ms + size_bytes // _CHUNK_BYTES * 1000
                found, written = _filled(running, (mib << 20) - size_bytes, clock_ms)
                size_bytes += written
                times = [rng.randrange(begun_ms, clock_ms + 1) for _ in range(_PLACES)]
                found |= _requests(running, limits.seconds, rng, times)
                contenders.stop(running)
                running, found["start"] = sample.start_ms(directory, _OPTIONS)
                asking.until_ready(running.address, _TOPIC, 1)
                contenders.stop(running, kill=True)
                running, found["start after kill -9"] = sample.start_ms(directory, _OPTIONS)
                growth.add(mib, found)
        finally:
            contenders.stop(running)
    return growth


def _warm(running: contenders.Running) -> None:
    """What a first load and a first recovery allocate isn't the log's."""
    asking.create_topic(running.address, _WARM_TOPIC, 1)
    asking.until_ready(running.address, _WARM_TOPIC, 1)
    filling.fill(running.address, _WARM_TOPIC, _CHUNK_BYTES, batches=filling.SMALL)


def _filled(
    running: contenders.Running, bytes_count: int, clock_ms: int
) -> tuple[dict[str, float | None], int]:
    """In batches of 16 KiB, each chunk of them a second later than the one before."""
    begun, written = time.perf_counter(), 0
    while written < bytes_count:
        written += filling.fill(
            running.address,
            _TOPIC,
            min(_CHUNK_BYTES, bytes_count - written),
            batches=filling.SMALL,
            timestamp_ms=clock_ms + written // _CHUNK_BYTES * 1000,
        )
    return {"fill": (time.perf_counter() - begun) / (written / 1e9)}, written


def _end_offset(running: contenders.Running) -> int:
    wanted = list_offsets.ListOffsetsPartition(partition_index=0, timestamp=-1)
    topic = list_offsets.ListOffsetsTopic(name=_TOPIC, partitions=[wanted])
    request = list_offsets.ListOffsetsRequest(replica_id=-1, topics=[topic])
    answer = asking.ask(running.address, request, 7, list_offsets.ListOffsetsResponse)
    return answer.topics[0].partitions[0].offset


def _fetch(offset: int) -> bytes:
    wanted = fetch.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1)
    return asking.frame(
        fetch.FetchRequest(
            max_wait_ms=0,
            min_bytes=0,
            max_bytes=1,
            topics=[fetch.FetchTopic(topic=_TOPIC, partitions=[wanted])],
        ),
        12,
    )


def _by_time(timestamp_ms: int) -> bytes:
    wanted = list_offsets.ListOffsetsPartition(partition_index=0, timestamp=timestamp_ms)
    topic = list_offsets.ListOffsetsTopic(name=_TOPIC, partitions=[wanted])
    return asking.frame(list_offsets.ListOffsetsRequest(replica_id=-1, topics=[topic]), 7)


def _requests(
    running: contenders.Running, seconds: float, rng: random.Random, times: list[int]
) -> dict[str, float | None]:
    end, now_ms = _end_offset(running), int(time.time() * 1000)
    anywhere = [rng.randrange(end) for _ in range(_PLACES)]
    record = wire.produce(_TOPIC, 0, wire.batch(1, 100, now_ms), 1)
    error_at = wire.fetch_error_at(_TOPIC)

    def cpu_us(frames: list[bytes], place: int | None) -> float:
        return sample.cpu_us(running, sample.load_of(frames, seconds, place))[0]

    found: dict[str, float | None] = {
        "append 100 B": cpu_us([record] * _PLACES, wire.produce_error_at(_TOPIC)),
        "fetch, at the end": cpu_us([_fetch(_end_offset(running))] * _PLACES, error_at),
        "fetch by time, anywhere": cpu_us([_by_time(one) for one in times], None),
    }
    # One whole batch of 16 KiB comes back, whatever is asked for.
    found["fetch, anywhere"] = cpu_us([_fetch(one) for one in anywhere], error_at)
    found["memory"] = sample.resident_kib(running) / 1024
    return found
