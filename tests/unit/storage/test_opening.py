"""The order in which logs are opened: the next are on their way from the disk meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pytest

from ottla.core.model import Offset, TopicPartition
from ottla.core.ports import Disk
from ottla.storage import opening


class Reading:
    """A disk that notes what it is asked to read ahead, and who waits for it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.certain: list[Offset | None] = []

    def read_ahead(self, logs: Sequence[tuple[str, Offset | None]]) -> Callable[[], None]:
        name = "".join(path for path, _ in logs)
        self.certain += [certain for _, certain in logs]
        self.seen.append(f"begin {name}")
        return lambda: self.seen.append(f"wait {name}")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Reading:
    monkeypatch.setattr(opening, "_READ_AHEAD", 2)
    return Reading()


LOGS = [(TopicPartition("t", number), "abc"[number]) for number in range(3)]


def test_logs_are_opened_in_order_while_the_disk_reads_those_behind_them(disk: Reading) -> None:
    for _, path in opening.ahead_of(cast("Disk", disk), LOGS, None):
        disk.seen.append(path)
    assert disk.seen == [
        *("begin ab", "wait ab", "begin c", "a", "b"),
        *("wait c", "begin ", "c"),
    ]
    assert disk.certain == [None, None, None]


def test_the_disk_is_told_from_where_each_log_is_read_again(disk: Reading) -> None:
    certain = {LOGS[1][0]: Offset(7)}
    assert list(opening.ahead_of(cast("Disk", disk), LOGS, certain)) == LOGS
    assert disk.certain == [0, 7, 0]


def test_a_directory_without_logs_is_nothing_to_open(disk: Reading) -> None:
    assert list(opening.ahead_of(cast("Disk", disk), [], {})) == []
