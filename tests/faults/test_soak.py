"""Everything at once while the broker is killed again and again: nothing is lost, nothing is twice.

Idempotent writers with a ledger, a copier that works in transactions (and is killed, too), a
compacted topic with a dictionary beside it, readers of committed records. Some seconds;
OTTLA_SOAK=1: ten minutes, OTTLA_SOAK_S=n: n seconds. OTTLA_SEED=n repeats the order of the kills.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.clients.clients import create_topic
from tests.faults.soak import Actor, Numbers, Place, Reader, Sent, Table, Writer, read_all
from tests.faults.test_kill9_copiers import SEED, Copying, Watcher, in_python
from tests.processes import Broker, wait_until

SOAK = os.environ.get("OTTLA_SOAK") == "1"
SECONDS = float(os.environ.get("OTTLA_SOAK_S") or (600 if SOAK else 12))
PLAIN_PARTITIONS = 3
KEYS = 300
BETWEEN_S = (0.3, 3.0) if SECONDS < 60 else (0.3, 8.0)
OPTIONS = (
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=200",
    "log.cleaner.backoff.ms=200",
    "log.cleaner.min.cleanable.ratio=0.01",
    "log.segment.delete.delay.ms=500",
    "log.segment.bytes=1048576",
    "offsets.topic.num.partitions=2",
    "transaction.state.log.num.partitions=2",
)
COPIED_S = 300.0


class Stage:
    """Everybody, on one broker."""

    def __init__(self, broker: Broker) -> None:
        where = broker.bootstrap
        self.broker = broker
        self.chance = random.Random(SEED)
        self.plain = [
            Writer(where, f"writer {number}", "plain", PLAIN_PARTITIONS, 10) for number in (0, 1)
        ]
        self.table = Table(where, "table", SEED, KEYS)
        self.numbers = Numbers(where, "numbers", "in", 1, 2)
        self.readers = [Reader(where, "plain", PLAIN_PARTITIONS), Reader(where, "out", 2)]
        self.copying = Copying(in_python, broker)
        self.kills = 0
        self.kills_of_copiers = 0

    @property
    def actors(self) -> list[Actor]:
        return [*self.plain, self.table, self.numbers, *self.readers]

    def play(self) -> None:
        """Let all of them work, and kill at random, for as long as was asked."""
        for actor in self.actors:
            actor.start()
        until = time.monotonic() + SECONDS
        waiting = threading.Event()
        while time.monotonic() < until or self.kills == 0:
            self.copying.is_on()
            waiting.wait(self.chance.uniform(*BETWEEN_S))
            for actor in self.actors:
                assert actor.failure is None, (actor.name, actor.failure)
            if self.chance.random() < 0.2:
                self.copying.kill()
                self.kills_of_copiers += 1
            else:
                self.broker.kill()
                waiting.wait(self.chance.choice((0.0, 0.0, 0.5)))
                self.broker.restart()
                self.kills += 1

    def settle(self) -> None:
        """Writers get their last answers, and the copier copies the last number."""
        for writer in (*self.plain, self.table, self.numbers):
            writer.finish()
        watcher = Watcher(self.broker.bootstrap)
        wait_until(
            lambda: self.copying.is_on() and watcher.is_done(self.numbers.count),
            "the end of the copying",
            COPIED_S,
            lambda: "".join(self.copying.lines),
        )
        self.copying.kill()


def assert_plain_is_whole(stage: Stage) -> dict[Place, Sent]:
    found = read_all(stage.broker.bootstrap, "plain", PLAIN_PARTITIONS)
    for writer in stage.plain:
        assert writer.failed == []
        lost = {place: sent for place, sent in writer.ledger.items() if found.get(place) != sent}
        assert lost == {}, f"{len(lost)} of {len(writer.ledger)} acknowledged records"
        assert len(writer.ledger) == writer.count
    twice = [value for value, times in Counter(found.values()).items() if times > 1]
    assert twice == []
    assert len(found) == sum(writer.count for writer in stage.plain)
    return found


def assert_table_is_as_the_dictionary(stage: Stage) -> dict[Place, Sent]:
    table = stage.table
    assert table.failed == []
    assert len(table.ledger) == table.count
    wait_until(
        lambda: len(read_all(stage.broker.bootstrap, "table", 1)) < table.count,
        "something to be compacted",
        120,
    )
    found = read_all(stage.broker.bootstrap, "table", 1)
    strange = {place: sent for place, sent in found.items() if table.ledger.get(place) != sent}
    assert strange == {}
    rows: dict[bytes | None, bytes | None] = {}
    for place in sorted(found):
        rows[found[place].key] = found[place].value
    assert {key: value for key, value in rows.items() if value is not None} == table.rows
    return found


def assert_copied_once(stage: Stage) -> dict[Place, Sent]:
    assert stage.numbers.failed == []
    count = stage.numbers.count
    found = read_all(stage.broker.bootstrap, "out", 2)
    for partition in (0, 1):
        got = [found[place].value for place in sorted(found) if place.partition == partition]
        assert got == [b"%d" % number for number in range(partition, count, 2)]
    return found


@pytest.mark.timeout(int(2 * SECONDS + 600))
def test_nothing_is_lost_and_nothing_shown_twice_however_often_the_broker_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print(f"OTTLA_SEED={SEED}", flush=True)
    with Broker(tmp_path / "data", *OPTIONS) as broker:
        create_topic(broker.bootstrap, "plain", PLAIN_PARTITIONS)
        create_topic(broker.bootstrap, "table", 1, cleanup_policy="compact", segment_ms="2000")
        create_topic(broker.bootstrap, "in", 1)
        create_topic(broker.bootstrap, "out", 2)
        stage = Stage(broker)
        try:
            stage.play()
            stage.settle()
        finally:
            stage.copying.kill()
        plain = assert_plain_is_whole(stage)
        table = assert_table_is_as_the_dictionary(stage)
        out = assert_copied_once(stage)
        for reader, whole in zip(stage.readers, (plain, out), strict=True):
            reader.wait_for_something()
            reader.finish()
            assert reader.seen.items() <= whole.items(), f"{reader.name} was shown something else"
    with capsys.disabled():
        print(
            f"\nsoak of {SECONDS:g} s: the broker was killed {stage.kills} times, the copier "
            f"{stage.kills_of_copiers}; {len(plain):,} records, {len(out):,} copied in "
            f"transactions, {stage.table.count:,} of a table of which {len(table):,} are left; "
            f"OTTLA_SEED={SEED}"
        )
