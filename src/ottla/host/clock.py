"""The machine's clocks, behind the port `Clock`. The only file that reads them for the core."""

from __future__ import annotations

import time


class SystemClock:
    """The port `Clock`, as the operating system tells it."""

    __slots__ = ()

    # The function itself, without a frame of ours around it: it is read for every received piece.
    monotonic = staticmethod(time.monotonic)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
