"""Logs of a wanted size, written through the broker as fast as it goes.

Owns the filling, for measurements of what lies on the disk. Must not measure.
"""

from __future__ import annotations

import time

from ottla.bench import pump, wire

_SECONDS_MAX = 600.0

LARGE, SMALL = (960, 1024), (160, 100)
"""Records in a batch, and bytes of each: 1 MiB, 16 KiB."""


def fill(
    address: tuple[str, int],
    topic: str,
    bytes_count: int,
    *,
    partitions_count: int = 1,
    batches: tuple[int, int] = LARGE,
    timestamp_ms: int | None = None,
) -> int:
    """Bytes that were added to a topic, at least as many as wanted, in equal parts.

    Raises pump.LoadFailed.
    """
    batch = wire.batch(*batches, timestamp_ms or int(time.time() * 1000))
    load = pump.Load(
        requests=[wire.produce(topic, p, batch, 1) for p in range(partitions_count)],
        depth=4,
        error_at=wire.produce_error_at(topic),
        seconds=_SECONDS_MAX,
        answers_max=max(1, -(-bytes_count // len(batch))),
    )
    return pump.run(address, load).answers * len(batch)
