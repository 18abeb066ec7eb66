"""The machine's clocks, behind `Clock` and `Uptime`. The only file that reads them for the core."""

from __future__ import annotations

import time


class SystemClock:
    """The ports `Clock` and `Uptime`, as the operating system tells them."""

    __slots__ = ()

    # The function itself, without a frame of ours around it: it is read for every received piece.
    monotonic = staticmethod(time.monotonic)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def since_boot(self) -> float:
        return time.clock_gettime(_UPTIME)


def stopwatch(cpu: bool) -> tuple[float, float]:
    """Seconds that pass, and if wanted those of CPU of this thread: to take differences of."""
    return time.perf_counter(), time.thread_time() if cpu else 0.0


# Linux's monotonic clock stands still while the machine sleeps; this one, and macOS's, does not.
_UPTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
