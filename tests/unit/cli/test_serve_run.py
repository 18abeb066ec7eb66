"""What `ottla serve` hands to the node, and what it makes of the node's refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

import pytest

from ottla.cli.main import main
from ottla.core.config import InvalidConfig

Serve = Callable[[Mapping[str, str], Callable[[str], None]], int]


class StartError(Exception):
    pass


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Callable[[Serve], None]:
    """Puts a function in the node's place."""

    def install(behaviour: Serve) -> None:
        def serve(given: Mapping[str, str], *, announce: Callable[[str], None]) -> int:
            return behaviour(given, announce)

        for name, value in (("ottla.process", serve), ("ottla.node", StartError)):
            module = ModuleType(name)
            setattr(module, value.__name__, value)
            monkeypatch.setitem(sys.modules, name, module)

    return install


def test_what_was_given_reaches_the_node_and_its_exit_code_comes_back(
    node: Callable[[Serve], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def behaviour(given: Mapping[str, str], announce: Callable[[str], None]) -> int:
        assert given == {"log.dirs": "d", "listeners": "PLAINTEXT://127.0.0.1:0"}
        announce("127.0.0.1:4711")
        return 3

    node(behaviour)
    assert main(["serve", "--data-dir", "d", "--listen", "127.0.0.1:0"]) == 3
    captured = capsys.readouterr()
    assert " ready on 127.0.0.1:4711, data in d (" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidConfig("no such thing"), 2),
        (StartError("no such thing"), 1),
        (OSError("no such thing"), 1),
    ],
)
def test_a_refusal_of_the_node_is_one_sentence(
    error: Exception, code: int, node: Callable[[Serve], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def behaviour(_given: Mapping[str, str], _announce: Callable[[str], None]) -> int:
        raise error

    node(behaviour)
    assert main(["serve"]) == code
    assert capsys.readouterr().err == "ottla: no such thing\n"


def test_where_json_is_asked_for_a_refusal_is_json_too(
    node: Callable[[Serve], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def behaviour(_given: Mapping[str, str], _announce: Callable[[str], None]) -> int:
        raise StartError("no such thing")

    node(behaviour)
    assert main(["serve", "--log-format", "json"]) == 1
    event = json.loads(capsys.readouterr().err)
    assert (event["level"], event["message"]) == ("critical", "no such thing")


def test_the_warning_about_a_wildcard_is_one_line_on_stderr(
    node: Callable[[Serve], None], capsys: pytest.CaptureFixture[str]
) -> None:
    node(lambda _given, _announce: 0)
    assert main(["serve", "--listen", "0.0.0.0:9092"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count(" WARNING  listening on every address, ") == 1
    assert captured.err.count("\n") == 1
