"""How far a command is, for a person who waits.

Owns one line of the terminal. Must not print anything where there is no terminal.
"""

from __future__ import annotations

import time
from typing import TextIO

BAR_WIDTH = 24
REDRAW_S = 0.1


class Progress:
    """A bar with a rate, redrawn in place at most ten times a second."""

    def __init__(self, label: str, out: TextIO, *, shown: bool) -> None:
        self._label, self._out, self._shown = label, out, shown
        self._begun = self._drawn = time.monotonic()
        self._width = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begun

    def update(self, records_count: int, fraction: float | None) -> None:
        """Show that `records_count` are through, and `fraction` (0 to 1) of all if it is known."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < REDRAW_S:
            return
        self._drawn = now
        self._draw(bar_line(self._label, records_count, self.elapsed_s, fraction))

    def clear(self) -> None:
        """Leave the line empty for whatever is printed next."""
        if self._width:
            self._draw("")
            self._out.write("\r")
            self._out.flush()
            self._width = 0

    def _draw(self, line: str) -> None:
        self._out.write("\r" + line.ljust(self._width))
        self._out.flush()
        self._width = len(line)


def bar_line(label: str, records_count: int, elapsed_s: float, fraction: float | None) -> str:
    """The bar as text, without an end of line."""
    rate = records_count / elapsed_s if elapsed_s > 0 else 0.0
    numbers = f"{records_count:,} records  {rate:,.0f} records/s"
    if fraction is None:
        return f"{label}  {numbers}"
    full = round(min(max(fraction, 0.0), 1.0) * BAR_WIDTH)
    bar = "█" * full + "░" * (BAR_WIDTH - full)
    return f"{label}  {bar} {full * 100 // BAR_WIDTH:3d} %  {numbers}"


def summary(records_count: int, bytes_count: int, elapsed_s: float) -> str:
    """`N records in T s (R records/s, M MB/s)`; a MB is 10^6 bytes of keys and values."""
    elapsed_s = max(elapsed_s, 1e-6)
    noun = "record" if records_count == 1 else "records"
    return (
        f"{records_count:,} {noun} in {elapsed_s:.2f} s "
        f"({records_count / elapsed_s:,.0f} records/s, {bytes_count / elapsed_s / 1e6:.1f} MB/s)"
    )
