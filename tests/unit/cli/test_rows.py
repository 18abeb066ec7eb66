"""Records out of lines, CSV and JSON lines."""

from __future__ import annotations

import io
import json
import re

import pytest

from ottla.cli import rows
from ottla.cli.errors import BadInput
from ottla.cli.render import Row, json_line
from ottla.cli.rows import BadRow, Format, Source


def whole(content: bytes, form: Format, key: str | None = None) -> list[rows.Record]:
    source = Source(io.BytesIO(content), "x", form, len(content), lambda: 0)
    return list(rows.records(source, key))


def read(
    content: bytes, form: Format, key: str | None = None
) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values."""
    found = whole(content, form, key)
    assert all((headers, at) == ([], 0) for _, _, headers, at in found)
    return [(one, value) for one, value, _, _ in found]


def test_lines_are_values_as_they_are_without_their_ends() -> None:
    content = b"a\n\xff b\r\n\nlast"
    assert [v for _, v in read(content, Format.LINES)] == [b"a", b"\xff b", b"", b"last"]


def test_lines_have_no_column_for_a_key() -> None:
    with pytest.raises(BadInput, match="try: --format csv or json"):
        read(b"a\n", Format.LINES, "k")


def test_a_csv_row_becomes_an_object_keyed_by_a_column() -> None:
    content = b"origin,dep\nEWR,517\nJFK,\n"
    assert read(content, Format.CSV, "origin") == [
        (b"EWR", b'{"origin":"EWR","dep":517}'),
        (b"JFK", b'{"origin":"JFK","dep":null}'),
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("", None), ("0", 0), ("-4", -4), ("1.50", 1.5), ("1e3", 1000.0), ("007", "007"),
        ("+5", "+5"), (".5", ".5"), ("5.", "5."), ("NaN", "NaN"), ("true", "true"), (" 5", " 5"),
        ("1_000", "1_000"), ("\u0661", "\u0661"), ("é", "é"),
    ],
)  # fmt: skip
def test_a_cell_is_a_number_only_if_json_writes_it_so(cell: str, value: object) -> None:
    [(_, line)] = read(f"a\n{cell},\n".replace("a\n", "a,b\n").encode(), Format.CSV)
    assert json.loads(line or b"")["a"] == value


def test_a_number_keeps_every_digit() -> None:
    [(_, line)] = read(b"a\n12345678901234567890.10\n", Format.CSV)
    assert line == b'{"a":12345678901234567890.10}'


def test_csv_quotes_line_ends_and_percent_signs_survive() -> None:
    content = '\ufeff"10 %","say ""x"""\r\n"a\nb","5%s"\r\n'.encode()
    [(_, line)] = read(content, Format.CSV)
    assert json.loads(line or b"") == {"10 %": "a\nb", 'say "x"': "5%s"}


def test_an_empty_key_cell_means_no_key() -> None:
    assert [k for k, _ in read(b"k,v\n,1\nx,2\n", Format.CSV, "k")] == [None, b"x"]


def test_the_memory_of_cells_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MEMO_CELLS_MAX", 3)
    memo = rows._CellMemo()
    assert [memo[str(n)] for n in range(10)] == [str(n) for n in range(10)]
    assert len(memo) <= 3


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (b"a,b\n1,2\n1,2,3\n", BadRow, "line 3 has 3 cells, the header 2"),
        (b"a,b\n1\n", BadRow, "line 2 has 1 cells, the header 2"),
        (b"a,a\n1,2\n", BadInput, "two columns are called 'a'"),
        (b"a,kk\n\xff,2\n", BadRow, "it isn't UTF-8 text"),
    ],
)
def test_a_bad_table_is_one_sentence(content: bytes, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        read(content, Format.CSV)


def test_an_unknown_column_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="no column 'orgin'; try: --key origin"):
        read(b"dest,origin\n1,2\n", Format.CSV, "orgin")


def test_an_empty_table_has_no_records() -> None:
    assert read(b"", Format.CSV) == []
    assert read(b"a,b\n", Format.CSV, "a") == []


def test_json_lines_stay_as_written_keyed_by_a_field() -> None:
    content = b'{"k":"x", "v" : 1}\n\n{"k":12}\n{"k":null}\n{}\n{"k":[1, {"a":2}]}\n'
    assert read(content, Format.JSON, "k") == [
        (b"x", b'{"k":"x", "v" : 1}'),
        (b"12", b'{"k":12}'),
        (None, b'{"k":null}'),
        (None, b"{}"),
        (b'[1,{"a":2}]', b'{"k":[1, {"a":2}]}'),
    ]


@pytest.mark.parametrize(
    ("content", "key", "sentence"),
    [
        (b"1\nnope\n", None, "line 2 isn't JSON"),
        (b"{}\n[1]\n", "k", "line 2 isn't a JSON object, so it has no field 'k'"),
    ],
)
def test_a_bad_json_line_is_named(content: bytes, key: str | None, sentence: str) -> None:
    with pytest.raises(BadRow, match=sentence):
        read(content, Format.JSON, key)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", Format.CSV), ("a.CSV.gz", Format.CSV), ("a.jsonl", Format.JSON),
        ("a.ndjson.gz", Format.JSON), ("a.json", Format.JSON), ("a.txt", Format.LINES),
        ("csv", Format.LINES),
    ],
)  # fmt: skip
def test_the_name_tells_the_format(name: str, form: Format) -> None:
    assert rows.format_of(name) is form


def test_a_record_line_is_what_consume_prints() -> None:
    row = Row("t", 1, 2, 3, b"k", b"\xff", [("h", b"x"), ("h", None), ("i", b"\xfe")])
    assert whole(json_line(row), Format.RECORD) == [
        (b"k", b"\xff", [("h", b"x"), ("h", None), ("i", b"\xfe")], 3)
    ]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b"{}", (None, None, [], 0)),
        (b'{"value":{"a": [1]},"key":7}', (b"7", b'{"a":[1]}', [], 0)),
        (b'{"headers":{"a":"b","c":null,"d":1}}', (None, None, [("a", b"b"), ("c", None), ("d", b"1")], 0)),
        (b'{"value":"v","timestamp":-1}', (None, b"v", [], 0)),
    ],
)  # fmt: skip
def test_a_record_line_may_be_written_by_hand(line: bytes, record: rows.Record) -> None:
    assert whole(line, Format.RECORD) == [record]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"[1]", "line 1 isn't a JSON object with the fields of a record"),
        (b'{"vlaue":1}', "line 1: a record has no field 'vlaue'; try: value"),
        (b'{"value_base64":"?"}', "line 1: value_base64 isn't base64"),
        (b'{"headers":["a"]}', "line 1: headers are an object, or a list of"),
        (b'{"timestamp":"now"}', "line 1: a timestamp is a number of ms since 1970"),
        (b'{"timestamp":true}', "line 1: a timestamp is a number"),
    ],
)
def test_a_bad_record_line_is_named(line: bytes, sentence: str) -> None:
    with pytest.raises(BadRow, match=re.escape(sentence)):
        whole(line, Format.RECORD)


def test_a_record_brings_its_own_key() -> None:
    with pytest.raises(BadInput, match="leave out --key"):
        whole(b"{}", Format.RECORD, "k")
