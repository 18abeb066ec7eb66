"""Brokers under the experiments' loads: what is common to those that measure ottla itself.

Owns the figures that a load on a broker gives. Must not choose the loads.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence

from ottla.bench import asking, pump, rounds, usage, wire
from ottla.bench.contenders import Running
from ottla.bench.techniques.model import Measure
from ottla.records.builder import build_batch
from ottla.records.reader import Record

COST = Measure("broker CPU", "s/GB")
RATE = Measure("through it", "MB/s", more_is_better=True)
_TOUCHED_MIB = 256
_ANSWERS_MAX = 1 << 30
_SENT_BYTES_MAX = 512 << 20


def settings() -> rounds.Settings:
    return rounds.Settings(rounds=1, touched_mib=_TOUCHED_MIB)


def figures(cost: rounds.Cost) -> Mapping[str, float]:
    """Those of a load that `rounds` has measured."""
    return {
        COST.name: cost.s_per_gb or 0.0,
        RATE.name: cost.per_second * cost.bytes_each / 1e6,
    }


def log_lines(count: int, codec: int, seed: int = 1) -> bytes:
    """A batch of `count` records as a web server would log them: about 150 bytes each."""
    rng, now_ms = random.Random(seed), int(time.time() * 1000)
    paths = [f"/shop/item/{rng.randrange(500)}?ref={rng.randrange(20)}" for _ in range(64)]

    def line(number: int) -> bytes:
        return (
            f"10.0.{rng.randrange(256)}.{rng.randrange(256)} - - [25/Nov/2026:12:{number % 60:02d}"
            f':07 +0000] "GET {rng.choice(paths)} HTTP/1.1" {rng.choice((200, 200, 200, 304, 404))}'
            f" {rng.randrange(200, 90_000)} session={rng.getrandbits(64):016x}"
        ).encode()

    return build_batch((Record(None, line(n), now_ms) for n in range(count)), codec=codec)


@contextlib.contextmanager
def topic(running: Running, partitions_count: int, **configs: str) -> Iterator[str]:
    """A topic for one measurement, every partition ready."""
    name = f"techniques-{time.monotonic_ns():x}"
    asking.create_topic(running.address, name, partitions_count, **configs)
    try:
        asking.until_ready(running.address, name, partitions_count)
        yield name
    finally:
        asking.delete_topic(running.address, name)


def produce_load(
    name: str, batch: bytes, *, partitions: Sequence[int], depth: int, seconds: float
) -> pump.Load:
    """One connection for each entry of `partitions`."""
    return pump.Load(
        [wire.produce(name, partition, batch, 1) for partition in partitions],
        depth,
        wire.produce_error_at(name),
        seconds,
        max(1, min(_ANSWERS_MAX, _SENT_BYTES_MAX // len(batch))),
    )


def loaded(running: Running, load: pump.Load) -> tuple[usage.Cpu, pump.Measured]:
    """CPU of the broker under a load, and what the client saw. Raises pump.LoadFailed."""
    usage.touch_memory(_TOUCHED_MIB)
    before = usage.cpu(running.pid)
    seen = pump.run(running.address, load)
    return usage.cpu(running.pid) - before, seen
