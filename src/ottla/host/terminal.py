"""Colours for a person at a terminal, and for nobody else.

Owns when a stream is coloured: it is a terminal, it is no dumb one, and NO_COLOR (no-color.org) is
unset or empty. Must not import anything that costs time: `serve` uses it.
"""

from __future__ import annotations

import os
from typing import TextIO

BOLD, RED, YELLOW, GREEN, DIM = "1", "31", "33", "32", "2"


def is_coloured(stream: TextIO) -> bool:
    """Whether colours written to `stream` would be seen by somebody who wants them."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def painted(text: str, style: str, stream: TextIO) -> str:
    """`text` in a style, where `stream` is coloured; as it is anywhere else."""
    return f"\x1b[{style}m{text}\x1b[0m" if is_coloured(stream) else text


def escaped(text: str) -> str:
    """`text` on one line: whatever could move a cursor, begin a line or hide is spelled out.

    Control characters, terminal escapes, line and paragraph separators, and the invisible ones
    that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
