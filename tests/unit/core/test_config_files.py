"""Two forms of a configuration file, each to names and values."""

from __future__ import annotations

import pytest

from ottla.core.config import InvalidConfig
from ottla.core.config_files import from_properties, from_toml


def test_toml_tables_are_flattened_to_dotted_names() -> None:
    text = """
        num.partitions = 3
        [log]
        dir = "data"
        retention = { hours = 2 }
        [auto.create.topics]
        enable = false
        [log.cleaner]
        min.cleanable.ratio = 0.5
    """
    assert from_toml(text) == {
        "num.partitions": "3",
        "log.dir": "data",
        "log.retention.hours": "2",
        "auto.create.topics.enable": "false",
        "log.cleaner.min.cleanable.ratio": "0.5",
    }


def test_a_toml_list_becomes_items_between_commas() -> None:
    assert from_toml('log.cleanup.policy = ["compact", "delete"]') == {
        "log.cleanup.policy": "compact,delete"
    }


def test_a_name_that_continues_another_can_be_quoted_in_toml() -> None:
    text = 'max.connections = 5\n"max.connections.per.ip" = 2'
    assert from_toml(text) == {"max.connections": "5", "max.connections.per.ip": "2"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "not TOML"),
        ("max.connections = 5\nmax.connections.per.ip = 2", "quote the longer"),
        ('"a.b" = 1\n[a]\nb = 2', "a.b is given twice"),
        ("a = 2020-01-01", "takes text, a number, true or false"),
        ("a = [[1]]", "takes text, a number, true or false"),
    ],
)
def test_toml_that_makes_no_sense_is_refused_with_a_sentence(text: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        from_toml(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("a=1\nb = 2\n c:3\nd 4", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("# no\n! no\n\n   # no\na=1", {"a": "1"}),
        ("a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1\na=2", {"a": "2"}),
        ("a=x=y", {"a": "x=y"}),
        ("a=1,\\\n   2", {"a": "1,2"}),
        ("a=1\\\\\nb=2", {"a": "1\\", "b": "2"}),
        ("a=1\\", {"a": "1"}),
        ("k\\:k=\\u00e9\\tx", {"k:k": "é\tx"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("a=trailing  ", {"a": "trailing  "}),
        ("a=1\\\n# not a comment", {"a": "1# not a comment"}),
    ],
)
def test_properties_are_read_as_java_reads_them(text: str, given: dict[str, str]) -> None:
    assert from_properties(text) == given


def test_a_broken_escape_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="broken"):
        from_properties("a=\\u12")
