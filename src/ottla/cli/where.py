"""Where to begin reading: the value of `--from`.

Owns its syntax. Must not ask the clock or a broker: now is an argument.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ottla.cli.errors import BadInput

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO = re.compile(r"-([0-9]+(?:\.[0-9]+)?)([smhd])")
OFFSET_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Start:
    """A place in every partition: its ends, an offset, or a time in ms since the epoch."""

    kind: Literal["beginning", "end", "offset", "time"]
    value: int = 0


def parse_start(text: str, now_ms: int) -> Start:
    """What `--from` says. A time without a zone is local. Raises BadInput."""
    if text in {"beginning", "end"}:
        return Start("beginning" if text == "beginning" else "end")
    if text.isascii() and text.isdecimal() and int(text) <= OFFSET_MAX:
        return Start("offset", int(text))
    if ago := _AGO.fullmatch(text):
        return Start("time", max(0, now_ms - int(float(ago[1]) * _UNITS_MS[ago[2]])))
    try:
        return Start("time", int(datetime.fromisoformat(text).timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise BadInput(
            f"--from doesn't take {text!r}; try: beginning, end, an offset such as 42, a time "
            "such as 2013-01-01T05:00, or -5m for five minutes ago (units s, m, h, d)"
        ) from None
