"""One quick measurement of a broker of our own: CPU of a load, without rounds or comparison.

For tables whose rows are compared with one another. Must not be used to compare brokers.
"""

from __future__ import annotations

import time

from ottla.bench import contenders, pump, usage

_ANSWERS_MAX = 1 << 30


def load_of(
    frames: list[bytes], seconds: float, error_at: int | None = None, *, depth: int = 1
) -> pump.Load:
    """One connection for each request."""
    return pump.Load(frames, depth, error_at, seconds, _ANSWERS_MAX)


def cpu_us(running: contenders.Running, load: pump.Load) -> tuple[float, pump.Measured]:
    """Microseconds of CPU of one request. Raises pump.LoadFailed."""
    usage.touch_memory()
    before = usage.cpu(running.pid)
    seen = pump.run(running.address, load)
    return (usage.cpu(running.pid) - before).total / seen.answers * 1e6, seen


def resident_kib(running: contenders.Running) -> float:
    return usage.resident_bytes(running.pid) / 1024


def start_ms(directory: str, options: tuple[str, ...]) -> tuple[contenders.Running, float]:
    """Start a broker again; milliseconds until it is ready. Raises pump.LoadFailed."""
    begun = time.perf_counter()
    running = contenders.start(directory, options)
    return running, (time.perf_counter() - begun) * 1e3
