"""Configuration as text: TOML and Kafka's `.properties`, each to names and values.

Pure functions: text in, mapping out. Must not read files, and doesn't know which options exist.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from ottla.core.config import InvalidConfig

_CLASH = re.compile("overwrite a value|mutate immutable|twice", re.IGNORECASE)


def from_toml(text: str) -> dict[str, str]:
    """Tables become dotted names: `[log] dir = "d"` and `log.dir = "d"` are the same.

    A list becomes its items separated by commas. Raises InvalidConfig.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # TOML can't hold both `max.connections` and `max.connections.per.ip` unless one is quoted.
        hint = ""
        if _CLASH.search(str(error)):
            hint = ' (where one name continues another, quote the longer: "max.connections.per.ip")'
        raise InvalidConfig(f"not TOML: {error}{hint}") from None
    given: dict[str, str] = {}
    for name, value in _flat("", tables):
        if name in given:
            raise InvalidConfig(f"{name} is given twice")
        given[name] = value
    return given


def _flat(prefix: str, table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, dict):
            yield from _flat(f"{name}.", value)
        elif isinstance(value, list):
            yield name, ",".join(_text(name, item) for item in value)
        else:
            yield name, _text(name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidConfig(f"{name} takes text, a number, true or false, not {value}")


def from_properties(text: str) -> dict[str, str]:
    """Java's format: comments, continued lines, escapes; the last of equal names counts.

    Raises InvalidConfig for a broken escape.
    Source: the documentation of java.util.Properties.load.
    """
    given: dict[str, str] = {}
    for line in _logical_lines(text):
        key, value = _split(line)
        given[_unescaped(key)] = _unescaped(value)
    return given


def _logical_lines(text: str) -> Iterator[str]:
    begun = ""
    for natural in re.split(r"\r\n|\n|\r", text):
        line = natural.lstrip(" \t\f")
        if not begun and (not line or line[0] in "#!"):
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:  # an even number is so many escaped backslashes
            begun += line[:-1]
            continue
        yield begun + line
        begun = ""
    if begun:
        yield begun


def _split(line: str) -> tuple[str, str]:
    """Key and value: the first `=`, `:` or blank that is not escaped parts them."""
    at = 0
    while at < len(line) and line[at] not in "=: \t\f":
        at += 2 if line[at] == "\\" else 1
    key, rest = line[:at], line[at:].lstrip(" \t\f")
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(" \t\f")
    return key, rest


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|u|.)", re.DOTALL)
_SPECIAL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code == "u":
            raise InvalidConfig(f"a broken \\u escape in {text!r}")
        return chr(int(code[1:], 16)) if code[0] == "u" else _SPECIAL.get(code, code)

    return _ESCAPE.sub(one, text)
