"""Places to begin, records as text, progress: the small formats."""

from __future__ import annotations

import json
import re

import pytest

from ottla.cli import progress, render
from ottla.cli.client import address
from ottla.cli.errors import BadInput, nearest
from ottla.cli.render import Row
from ottla.cli.where import Start, parse_start

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("beginning", Start("beginning")),
        ("end", Start("end")),
        ("0", Start("offset", 0)),
        ("42", Start("offset", 42)),
        ("-5m", Start("time", NOW - 300_000)),
        ("-1.5h", Start("time", NOW - 5_400_000)),
        ("-2d", Start("time", NOW - 172_800_000)),
        ("-99999999d", Start("time", 0)),
        ("2013-01-01T05:00:00Z", Start("time", 1_357_016_400_000)),
        ("2013-01-01T05:00:00.250+01:00", Start("time", 1_357_012_800_250)),
    ],
)
def test_a_place_to_begin(text: str, start: Start) -> None:
    assert parse_start(text, NOW) == start


@pytest.mark.parametrize("text", ["", "-5", "5m", "then", "2013-13-01", str(1 << 63), "٣"])
def test_a_place_that_is_none_is_answered_with_examples(text: str) -> None:
    with pytest.raises(BadInput, match="try: beginning, end, an offset such as 42"):
        parse_start(text, NOW)


def row(key: bytes | None = b"k", value: bytes | None = b"v", *headers: tuple[str, bytes]) -> Row:
    return Row("t", 1, 2, 3, key, value, headers)


def test_records_as_lines() -> None:
    assert render.value_line(row()) == b"v\n"
    assert render.key_value_line(row()) == b"k\tv\n"
    assert render.key_value_line(row(None, None)) == b"null\tnull\n"
    assert render.raw_bytes(row(value=b"\x00\n")) == b"\x00\n"
    assert render.raw_bytes(row(value=None)) == b""


def test_a_record_as_json_keeps_what_is_no_text_in_base64() -> None:
    line = render.json_line(row(None, b"\xff", ("h", b"x"), ("h", b"\xfe")))
    assert json.loads(line) == {
        "topic": "t", "partition": 1, "offset": 2, "timestamp": 3, "key": None,
        "value_base64": "/w==",
        "headers": [{"name": "h", "value": "x"}, {"name": "h", "value_base64": "/g=="}],
    }  # fmt: skip
    assert line.count(b"\n") == 1


def test_every_format_has_its_renderer() -> None:
    assert set(render.RENDERERS) == set(render.Format)


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_357_016_400_007, "2013-01-01T05:00:00.007Z"),
        (-1, "-"),
        ((1 << 63) - 1, "9223372036854775807 ms"),
    ],
)
def test_timestamps_of_any_size_have_a_text(timestamp: int, text: str) -> None:
    assert render.time_text(timestamp) == text


def test_a_brief_text_is_one_printable_line() -> None:
    assert render.brief(b"a\nb\x1b[0m\xff", 50) == r"a\nb\x1b[0m\xff"
    assert render.brief(None, 5) == "null"
    assert render.brief(b"x" * 100, 5) == "xxxx…"


def test_the_bar_shows_share_count_and_rate() -> None:
    line = progress.bar_line("t", 5000, 2.0, 0.5)
    assert line == f"t  {'█' * 12}{'░' * 12}  50 %  5,000 records  2,500 records/s"
    assert progress.bar_line("t", 5000, 2.0, None) == "t  5,000 records  2,500 records/s"


def test_the_summary_counts_records_seconds_and_rates() -> None:
    assert progress.summary(336_776, 100_000_000, 2.0) == (
        "336,776 records in 2.00 s (168,388 records/s, 50.0 MB/s)"
    )
    assert progress.summary(1, 10, 0.0).startswith("1 record in 0.00 s")


@pytest.mark.parametrize(
    ("text", "found"),
    [("h:1", ("h", 1)), ("[::1]:9092", ("::1", 9092)), ("::1:9092", ("::1", 9092))],
)
def test_an_address(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize("text", ["h", "h:", ":1", "h:0", "h:65536", "h:x", "9092"])
def test_what_is_no_address_is_answered_with_one(text: str) -> None:
    with pytest.raises(BadInput, match=re.escape("--bootstrap takes HOST:PORT")):
        address(text)


def test_the_nearest_word_or_none() -> None:
    assert nearest("flihgts", ["flights", "planes"]) == "flights"
    assert nearest("zzz", ["flights", "planes"]) is None


def test_what_a_client_is_called_can_not_move_the_cursor() -> None:
    assert render.table([("client",), ("a\x1b[2J\nb",)])[1] == "  a\\x1b[2J\\nb\n"


def test_a_table_has_its_numbers_to_the_right_and_its_words_to_the_left() -> None:
    rows = [("node", "address", "rack"), ("7", "10.0.0.1:9092", "-"), ("12", "b:1", "-")]
    assert render.table([("size",), ("2 B",), ("13.4 MB",), ("-",)]) == [
        "     size\n",
        "      2 B\n",
        "  13.4 MB\n",
        "        -\n",
    ]
    assert render.table(rows, str.upper) == [
        "  NODE  ADDRESS        RACK\n",
        "     7  10.0.0.1:9092     -\n",
        "    12  b:1               -\n",
    ]
