"""`ottla consume` while nothing comes: what it says, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ottla.cli import consume
from ottla.cli.arguments import Consume
from ottla.cli.client import Cluster
from ottla.cli.errors import CommandError


class Record:
    """A message of librdkafka's."""

    def __init__(self, partition: int, offset: int) -> None:
        self._partition, self._offset = partition, offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"%d" % self._offset

    def headers(self) -> None:
        return None


class Waiting:
    """A consumer, and the clock: each time it is asked and has nothing, a second goes by."""

    def __init__(self, *answers: list[Record]) -> None:
        self.now = 100.0
        self.answers = list(answers)

    def monotonic(self) -> float:
        return self.now

    def assign(self, _places: object) -> None:
        pass

    def consume(self, _count: int, timeout: float) -> list[Record]:
        assert timeout > 0
        if self.answers:
            return self.answers.pop(0)
        self.now += 1
        if self.now > 160:
            raise KeyboardInterrupt
        return []


@pytest.fixture
def printing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Print a topic of two partitions of two records each."""

    def run(consumer: Waiting, *, follow: bool = False, trouble: str = "") -> None:
        monkeypatch.setattr("ottla.cli.consume.time.monotonic", consumer.monotonic)
        cluster = Cluster("h:1", last_trouble=trouble)
        options = Consume(topic="t", follow=follow)
        source: Any = consumer
        consume._print(source, cluster, options, {0: 0, 1: 0}, {0: 2, 1: 2})

    return run


def test_it_says_once_that_it_waits_for_what_is_there_and_then_gives_up(
    printing: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    consumer = Waiting([Record(0, 0), Record(0, 1)])
    with pytest.raises(CommandError, match=r"gave up: nothing from t-1 for 30 s, .*\(no route\)"):
        printing(consumer, trouble="no route")
    out, err = capsys.readouterr()
    assert out == "0\n1\n"
    assert err == (
        "ottla: nothing from t-1 for 5 s, though there is more to read (no route); still trying\n"
    )


def test_it_says_so_too_while_it_follows_but_does_not_give_up(
    printing: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        printing(Waiting(), follow=True)
    assert capsys.readouterr().err == (
        "ottla: nothing from t-0 and 1 more for 5 s, though there is more to read; still trying\n"
    )


def test_who_has_read_all_and_follows_waits_without_a_word(
    printing: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    all_there_is = [Record(number, offset) for number in (0, 1) for offset in (0, 1)]
    with pytest.raises(KeyboardInterrupt):
        printing(Waiting(all_there_is), follow=True)
    assert capsys.readouterr().err == ""
