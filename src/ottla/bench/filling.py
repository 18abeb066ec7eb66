"""Logs of a wanted size, written through the broker as fast as it goes.

Owns the filling, for measurements of what lies on the disk. Must not measure.
"""

from __future__ import annotations

import time

from ottla.bench import asking, pump, wire

_RECORDS, _VALUE_BYTES = 960, 1024
_SECONDS_MAX = 600.0


def fill(
    address: tuple[str, int],
    topic: str,
    bytes_count: int,
    *,
    partitions_count: int = 1,
    create: bool = True,
) -> int:
    """Bytes of 1 MiB batches that the topic has now, at least as many as wanted, in equal parts.

    Raises pump.LoadFailed.
    """
    if create:
        asking.create_topic(address, topic, partitions_count)
    asking.until_ready(address, topic, partitions_count)
    batch = wire.batch(_RECORDS, _VALUE_BYTES, int(time.time() * 1000))
    load = pump.Load(
        requests=[wire.produce(topic, p, batch, 1) for p in range(partitions_count)],
        depth=2,
        error_at=wire.produce_error_at(topic),
        seconds=_SECONDS_MAX,
        answers_max=max(1, -(-bytes_count // len(batch))),
    )
    return pump.run(address, load).answers * len(batch)
