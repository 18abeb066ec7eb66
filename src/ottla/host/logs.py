"""The log of a broker: one line an event on stderr, for reading or as JSON.

Owns how an event becomes a line. Must not decide what is worth one: rooms do, by the standard
library's `logging` under names that begin with `ottla`. What they say may hold what a client
sent, so every line is escaped here, in one place. An event of a kind that machines look for
brings `extra={"fields": {...}}`, which only JSON shows.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

from ottla.host.terminal import RED, YELLOW, escaped, painted

MESSAGE_CHARS_MAX = 2000
"""What is longer is cut: a client id alone may have 32,767 bytes."""

_COLOURS = {"WARNING": YELLOW, "ERROR": RED, "CRITICAL": RED}


def configure(
    *, as_json: bool = False, verbose: bool = False, stream: TextIO | None = None
) -> None:
    """Send what the process logs to stderr. Libraries' own chatter below a warning stays out."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines() if as_json else Lines(out))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ottla").setLevel(logging.DEBUG if verbose else logging.INFO)


def warn(text: str) -> None:
    """Log a warning of the program's own, which belongs to no room."""
    logging.getLogger("ottla").warning("%s", text)


def fail(text: str) -> None:
    """Log why the program ends."""
    logging.getLogger("ottla").critical("%s", text, extra={"fields": {"event": "not started"}})


def message_of(record: logging.LogRecord) -> str:
    """What is said, on one line, at most MESSAGE_CHARS_MAX characters of it."""
    text = record.getMessage()
    if len(text) > MESSAGE_CHARS_MAX:
        text = text[: MESSAGE_CHARS_MAX - 1] + "…"
    return escaped(text)


def trace_of(record: logging.LogRecord) -> list[str]:
    """The lines of a traceback, each escaped; none without one."""
    if not record.exc_info or record.exc_info[1] is None:
        return []
    text = "".join(traceback.format_exception(record.exc_info[1]))
    return [escaped(line) for line in text.split("\n") if line]


class Lines(logging.Formatter):
    """`TIME LEVEL message`, local time with its zone; a traceback follows, indented.

    Nothing that a client sent can pass for a line of ours: ours alone begin with a time.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def format(self, record: logging.LogRecord) -> str:
        moment = time.localtime(record.created)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", moment)
        zone = time.strftime("%z", moment)
        level = record.levelname
        shown = painted(f"{level:<8}", _COLOURS[level], self._out) if level in _COLOURS else level
        line = f"{stamp}.{int(record.msecs):03}{zone} {shown:<8} {message_of(record)}"
        return "\n    ".join([line, *trace_of(record)])


class JsonLines(logging.Formatter):
    """An object a line: time (UTC), level, logger, message; fields of the event; traceback."""

    def format(self, record: logging.LogRecord) -> str:
        import json  # only where it is asked for

        moment = time.gmtime(record.created)
        event: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
        }
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        event |= {name: _plain(value) for name, value in fields.items()}
        if trace := trace_of(record):
            event["traceback"] = trace
        return json.dumps(event)


def _plain(value: Any) -> Any:
    """A field's value as JSON has it; text is cut and escaped as a message is."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return escaped(str(value)[:MESSAGE_CHARS_MAX])
