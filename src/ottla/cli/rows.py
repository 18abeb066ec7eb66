"""Records out of files: lines, CSV, JSON lines, whole records; plain, .gz or .zip.

Owns how a line or a row becomes a key and a value. Must not know Kafka or the terminal.

A CSV row becomes a compact JSON object with the header's names. A cell that is written as a JSON
number stays that number, digit by digit; an empty one becomes null; anything else a string.
"""

from __future__ import annotations

import base64
import csv
import gzip
import json
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from io import TextIOWrapper
from typing import IO, Any, cast

from ottla.cli.errors import BadInput, nearest

Headers = list[tuple[str, str | bytes | None]]
Record = tuple[bytes | None, bytes | None, Headers, int]
"""Key, value, headers, and timestamp in ms; 0 for now, as confluent-kafka has it."""

_NO_HEADERS: Headers = []

CELL_BYTES_MAX = 64 << 20
MEMO_CELLS_MAX = 200_000
"""Cells whose JSON is remembered; beyond that the memory begins anew."""


class Format(StrEnum):
    LINES = "lines"
    CSV = "csv"
    JSON = "json"
    RECORD = "record"


class BadRow(BadInput):
    """A row that can't become a record, by its line number. Those before it were good."""


@dataclass(slots=True)
class Source:
    """An open input: its bytes, uncompressed, and how far through it one is."""

    stream: IO[bytes]
    name: str
    format: Format
    size: int | None
    position: Callable[[], int]
    """Bytes of the file read so far, of `size`."""


_EXTENSIONS = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSON,
    ".ndjson": Format.JSON,
}


def format_of(name: str) -> Format:
    """What a file's name says is in it; lines, when it says nothing."""
    return _EXTENSIONS.get(os.path.splitext(name.lower().removesuffix(".gz"))[1], Format.LINES)


@contextmanager
def opened(path: str | None, wanted: Format | None) -> Iterator[Source]:
    """Open FILE, or standard input without one. Raises BadInput."""
    if path is None or path == "-":
        stdin = sys.stdin.buffer
        yield Source(stdin, "standard input", wanted or Format.LINES, None, lambda: 0)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below, with what is opened over it
    except OSError as error:
        raise BadInput(
            f"can't read {path}: {error.strerror}; give another FILE, or none to read stdin"
        ) from None
    with file:
        stream, name = _uncompressed(file, path)
        with stream:
            size = os.fstat(file.fileno()).st_size
            yield Source(stream, path, wanted or format_of(name), size, file.tell)


def _uncompressed(file: IO[bytes], path: str) -> tuple[IO[bytes], str]:
    """The stream inside `file`, and the name that tells its format."""
    if path.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file)), path
    if path.lower().endswith(".zip"):
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile:
            raise BadInput(f"{path} isn't a zip file; try unpacking it yourself") from None
        members = [info for info in archive.infolist() if not info.is_dir()]
        if len(members) != 1:
            raise BadInput(
                f"{path} holds {len(members)} files, not one; try: unzip -p {path} MEMBER | "
                "ottla produce TOPIC"
            )
        return archive.open(members[0]), members[0].filename
    return file, path


def records(source: Source, key: str | None) -> Iterator[Record]:
    """The records of a source, keyed by the column or field `key`.

    Raises BadInput before the first record, BadRow after.
    """
    readers = {
        Format.CSV: csv_rows,
        Format.JSON: json_lines,
        Format.LINES: plain_lines,
        Format.RECORD: record_lines,
    }
    try:
        yield from readers[source.format](source.stream, key)
    except UnicodeDecodeError:
        raise BadRow("it isn't UTF-8 text") from None
    except (EOFError, OSError, csv.Error, zlib.error, zipfile.BadZipFile) as error:
        raise BadRow(str(error) or "it ends too early") from None


def plain_lines(stream: IO[bytes], key: str | None) -> Iterator[Record]:
    """Each line a value, as it is, without its line end. Blank lines too: they are lines."""
    if key is not None:
        raise BadInput("lines have no columns to take a key from; try: --format csv or json")
    for line in stream:
        yield None, line.removesuffix(b"\n").removesuffix(b"\r"), _NO_HEADERS, 0


class _CellMemo(dict[str, str]):
    """Cell → JSON. Columns repeat themselves: looking up is ten times faster than deciding."""

    _NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

    def __missing__(self, cell: str) -> str:
        if cell == "":
            text = "null"
        elif self._NUMBER.fullmatch(cell):
            text = cell
        else:
            text = json.dumps(cell, ensure_ascii=False)
        if len(self) >= MEMO_CELLS_MAX:
            self.clear()
        self[cell] = text
        return text


def csv_rows(stream: IO[bytes], key: str | None) -> Iterator[Record]:
    """Each row a JSON object; the key is the cell as it is, and none where it is empty."""
    csv.field_size_limit(CELL_BYTES_MAX)
    # utf-8-sig: spreadsheets like to put a byte order mark in front of the first name.
    with TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        columns = next(reader, None)
        if columns is None:
            return
        for at, column in enumerate(columns):
            if column in columns[:at]:
                raise BadInput(f"two columns are called {column!r}; try renaming one in the header")
        key_at = None if key is None else _column(columns, key)
        names = [json.dumps(column, ensure_ascii=False).replace("%", "%%") for column in columns]
        template = "{" + ",".join(f"{name}:%s" for name in names) + "}"
        width, cell_json = len(columns), _CellMemo().__getitem__
        for row in reader:
            if len(row) != width:
                if not row:
                    continue  # a blank line
                raise BadRow(f"line {reader.line_num} has {len(row)} cells, the header {width}")
            value = template % tuple(map(cell_json, row))
            cell = row[key_at] if key_at is not None else ""
            yield cell.encode() if cell else None, value.encode(), _NO_HEADERS, 0


def _column(columns: list[str], key: str) -> int:
    try:
        return columns.index(key)
    except ValueError:
        meant = nearest(key, columns) or columns[0]
        raise BadInput(f"there is no column {key!r}; try: --key {meant}") from None


def json_lines(stream: IO[bytes], key: str | None) -> Iterator[Record]:
    """Each line that isn't blank a value, as written; the key is a field of its object.

    A string is a key as its text, null or a missing field is none, all else is its JSON.
    """
    for number, value, parsed in _json_values(stream):
        if key is None:
            yield None, value, _NO_HEADERS, 0
        elif not isinstance(parsed, dict):
            raise BadRow(f"line {number} isn't a JSON object, so it has no field {key!r}")
        else:
            yield _key_bytes(parsed.get(key)), value, _NO_HEADERS, 0


def _json_values(stream: IO[bytes]) -> Iterator[tuple[int, bytes, Any]]:
    """Number, text and value of each line that isn't blank."""
    for number, line in enumerate(stream, 1):
        value = line.strip()
        if number == 1:
            value = value.removeprefix(b"\xef\xbb\xbf")
        if not value:
            continue
        try:
            yield number, value, json.loads(value)
        except ValueError:
            raise BadRow(f"line {number} isn't JSON") from None


RECORD_FIELDS = {
    "key", "key_base64", "value", "value_base64", "headers", "timestamp",
    "topic", "partition", "offset",
}  # fmt: skip
"""What `consume --json` prints. The last three say where a record was, not where it goes."""


def record_lines(stream: IO[bytes], key: str | None) -> Iterator[Record]:
    """Each line a whole record, as `consume --json` prints it; every field may be missing.

    `key` and `value`: a string is its text, null is null, anything else its JSON; bytes that are
    no text stand in `key_base64` and `value_base64`. `headers`: an object of names and values, or
    a list of {"name", "value"}. `timestamp`: ms since the epoch, now where it is missing.
    """
    if key is not None:
        raise BadInput("a record brings its key; try: --format json, or leave out --key")
    for number, _, parsed in _json_values(stream):
        if not isinstance(parsed, dict):
            raise BadRow(f"line {number} isn't a JSON object with the fields of a record")
        if unknown := sorted(parsed.keys() - RECORD_FIELDS):
            meant = nearest(unknown[0], sorted(RECORD_FIELDS)) or "value, key, headers, timestamp"
            raise BadRow(f"line {number}: a record has no field {unknown[0]!r}; try: {meant}")
        try:
            yield (
                _content(parsed, "key"),
                _content(parsed, "value"),
                _headers(parsed.get("headers")),
                _timestamp(parsed.get("timestamp")),
            )
        except ValueError as error:
            raise BadRow(f"line {number}: {error}") from None


def _content(fields: dict[str, Any], name: str) -> bytes | None:
    """A key or value, given as text, as JSON, or in base64. Raises ValueError."""
    encoded = fields.get(f"{name}_base64")
    if encoded is None:
        return _key_bytes(fields.get(name))
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise ValueError(f"{name}_base64 isn't base64") from None


def _headers(given: Any) -> Headers:
    if given is None:
        return _NO_HEADERS
    if isinstance(given, dict):
        return [(name, _key_bytes(value)) for name, value in given.items()]
    if isinstance(given, list) and all(isinstance(one, dict) and "name" in one for one in given):
        return [(str(one["name"]), _content(one, "value")) for one in given]
    raise ValueError('headers are an object, or a list of {"name": …, "value": …}')


def _timestamp(given: Any) -> int:
    if given is None or given == -1:
        return 0
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 1 << 63:
        raise ValueError("a timestamp is a number of ms since 1970")
    return given


def _key_bytes(field: Any) -> bytes | None:
    if field is None:
        return None
    if isinstance(field, str):
        return field.encode()
    return json.dumps(field, ensure_ascii=False, separators=(",", ":")).encode()
