"""Records as text: what `consume` and `log dump` print.

Owns the output formats. Must not know where a record came from.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ottla.host.terminal import escaped


class Format(StrEnum):
    VALUE = "value"
    KEY_VALUE = "key-value"
    JSON = "json"
    RAW = "raw"


class Row(NamedTuple):
    """A record and its place. `timestamp` is ms since the epoch, -1 for none."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def value_line(row: Row) -> bytes:
    return (b"null" if row.value is None else row.value) + b"\n"


def key_value_line(row: Row) -> bytes:
    """Key, tab, value; `null` for what isn't there, as Kafka's console consumer prints it."""
    return (b"null" if row.key is None else row.key) + b"\t" + value_line(row)


def json_line(row: Row) -> bytes:
    """One JSON object. Bytes that aren't UTF-8 stand in `key_base64` or `value_base64`."""
    fields: dict[str, Any] = {
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "timestamp": row.timestamp,
    }
    fields |= _text_field("key", row.key) | _text_field("value", row.value)
    if row.headers:
        fields["headers"] = [{"name": n, **_text_field("value", v)} for n, v in row.headers]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def raw_bytes(row: Row) -> bytes:
    return row.value or b""


def _text_field(name: str, content: bytes | None) -> dict[str, str | None]:
    if content is None:
        return {name: None}
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode("ascii")}


RENDERERS: dict[Format, Callable[[Row], bytes]] = {
    Format.VALUE: value_line,
    Format.KEY_VALUE: key_value_line,
    Format.JSON: json_line,
    Format.RAW: raw_bytes,
}


_NUMBER = re.compile(r"([0-9,]+(\.[0-9]+)?(%| ([kMGT]?B|µs|ms))?)?|-|none")


def table(rows: Sequence[Sequence[str]], heading: Callable[[str], str] = str) -> list[str]:
    """Lines of columns, indented: numbers to the right, with their units, text to the left.

    `heading` styles the first line, once it is laid out. What clients are called, be it anything,
    can't move the cursor.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_NUMBER.fullmatch(cell) for cell in c[1:]) for c in columns]
    lines = []
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        lines.append("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip())
    return [f"  {heading(line) if at == 0 else line}\n" for at, line in enumerate(lines)]


def object_line(fields: Any) -> str:
    """What `--json` prints: one object, on a line."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 record`, `2,000 records`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def time_text(timestamp_ms: int) -> str:
    """A timestamp in UTC, to the millisecond; a dash for none."""
    if timestamp_ms < 0:
        return "-"
    try:
        # Through whole seconds: a float of milliseconds can round to its neighbour.
        moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"  # clients may write any number; year 9999 isn't its end
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{timestamp_ms % 1000:03}Z"


def brief(content: bytes | None, width: int) -> str:
    """At most `width` characters of a key or value, on one line."""
    if content is None:
        return "null"
    text = content[: width * 4].decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"
