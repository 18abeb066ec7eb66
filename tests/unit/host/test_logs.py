"""How an event of the broker becomes a line: readable, or JSON, and never two."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from ottla.host import logs, terminal

NASTY = "id\n2026-01-01 00:00:00 CRITICAL forged\x1b[2J\r\x00\u202e\u2028\x85tail"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was before, after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    ours = logging.getLogger("ottla")
    level_of_ours = ours.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(level_of_ours)


def logged(log: logging.Logger, *, as_json: bool = False, verbose: bool = False) -> io.StringIO:
    """Where `log` writes from now on."""
    out = io.StringIO()
    logs.configure(as_json=as_json, verbose=verbose, stream=out)
    return out


def test_an_event_is_a_line_with_time_and_level(root):
    out = logged(root)
    logging.getLogger("ottla.x").info("opened %s", "d")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d{4} INFO     opened d\n", out.getvalue()
    )


def test_what_a_client_sent_cannot_begin_a_line_nor_move_the_cursor(root):
    out = logged(root)
    logging.getLogger("ottla.x").warning("%s: bad frame", NASTY)
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert r"id\n2026-01-01 00:00:00 CRITICAL forged\x1b[2J\r\x00\u202e\u2028\x85tail" in text


def test_the_same_holds_for_json_and_its_fields(root):
    out = logged(root, as_json=True)
    fields = {"event": "bad frame", "peer": NASTY, "count": 3, "nothing": None}
    logging.getLogger("ottla.x").warning("%s", NASTY, extra={"fields": fields})
    assert out.getvalue().count("\n") == 1
    event = json.loads(out.getvalue())
    assert event["level"] == "warning"
    assert event["logger"] == "ottla.x"
    assert (event["event"], event["count"], event["nothing"]) == ("bad frame", 3, None)
    assert event["message"].isprintable()
    assert event["peer"] == event["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])


def test_a_message_without_end_is_cut(root):
    out = logged(root)
    logging.getLogger("ottla.x").warning("%s", "x" * 100_000)
    assert len(out.getvalue()) < 2_100


def test_a_traceback_is_indented_so_that_no_line_of_it_passes_for_an_event(root):
    out = logged(root)
    try:
        raise ValueError(NASTY)
    except ValueError:
        logging.getLogger("ottla.x").exception("failed")
    first, *rest = out.getvalue().splitlines()
    assert first.endswith("ERROR    failed")
    assert "Traceback (most recent call last):" in rest[0]
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_in_json_a_traceback_is_a_field(root):
    out = logged(root, as_json=True)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("ottla.x").exception("failed")
    assert json.loads(out.getvalue())["traceback"][-1] == "ValueError: no"


def test_details_and_the_chatter_of_libraries_need_asking_for(root):
    out = logged(root)
    logging.getLogger("ottla.x").debug("connected")
    logging.getLogger("asyncio").info("selector")
    assert out.getvalue() == ""
    out = logged(root, verbose=True)
    logging.getLogger("ottla.x").debug("connected")
    logging.getLogger("asyncio").info("selector")
    assert out.getvalue().count("\n") == 1


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Screen(), {"TERM": "xterm"}, True),
        (Screen(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Screen(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_where_nobody_objects(stream, environment, coloured, monkeypatch):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.is_coloured(stream) is coloured
    assert ("\x1b[31m" in terminal.painted("x", terminal.RED, stream)) is coloured


def test_a_closed_stream_is_not_coloured():
    stream = io.StringIO()
    stream.close()
    assert not terminal.is_coloured(stream)


def test_stderr_is_where_it_goes_by_itself(root):
    logs.configure()
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    assert handler.stream is sys.stderr
