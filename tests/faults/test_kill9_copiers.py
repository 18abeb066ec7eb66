"""I42: kill -9 of the copier and of the broker, and what comes out is what went in, each once.

OTTLA_SEED=n repeats the order of the kills; OTTLA_SOAK=1 kills many more times.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests import reference
from tests.clients.clients import create_topic
from tests.clients.transactors import read_confluent
from tests.leash import leashed
from tests.processes import Broker, wait_until

SOAK = os.environ.get("OTTLA_SOAK") == "1"
KILLS = 40 if SOAK else 4
COUNT = 12_000 if SOAK else 1_500
COPIER = Path(__file__).with_name("copier.py")
SEED = int(os.environ.get("OTTLA_SEED", random.SystemRandom().randrange(1 << 32)))
OPTIONS = ("transaction.abort.timed.out.transaction.cleanup.interval.ms=200",)


def in_python(bootstrap: str, number: int) -> list[str]:
    return [sys.executable, str(COPIER), bootstrap, str(SEED + number)]


def in_java(bootstrap: str, _number: int) -> list[str]:
    """Kafka's own, which its system tests kill."""
    run = str(reference.REFERENCE / "run.sh")
    copier = "org.apache.kafka.tools.TransactionalMessageCopier"
    words = ["bash", run, "tool", copier, "--broker-list", bootstrap]
    words += ["--input-topic", "in", "--input-partition", "0", "--output-topic", "out"]
    words += ["--transactional-id", "copier", "--consumer-group", "copying"]
    # The next copier asks where its group is before it fences this one, and what this one leaves
    # pending is not told: it waits for the timeout.
    words += ["--transaction-timeout", "3000"]
    return [*words, "--transaction-size", "20", "--enable-random-aborts"]


class Copying:
    """The copier that lives now. It is started again whenever it has ended."""

    def __init__(self, command: Callable[[str, int], Sequence[str]], broker: Broker) -> None:
        self.command = command
        self.broker = broker
        self.number = 0
        self.said = 0
        """Transactions that it has told of."""
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.number += 1
        self.process = subprocess.Popen(
            leashed(self.command(self.broker.bootstrap, self.number)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines = [*self.lines[-30:], line]
                self.said += line[0].isdecimal() or '"ProcessLoop"' in line

    def is_on(self) -> bool:
        """Start it again if it has ended; always True, for `wait_until`."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        return True

    def kill(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(30)
            self.process = None


class Watcher:
    """Asks how far the group is; what is pending is left out, or a question would wait for it."""

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka import Consumer

        shared = {"bootstrap.servers": bootstrap, "group.id": "copying", "log_level": 0}
        isolation = {"isolation.level": "read_uncommitted", "reconnect.backoff.max.ms": 200}
        self._consumer = Consumer(shared | isolation)

    def is_done(self, count: int = COUNT) -> bool:
        from confluent_kafka import KafkaException, TopicPartition

        try:
            [told] = self._consumer.committed([TopicPartition("in", 0)], timeout=1)
        except KafkaException:
            return False
        return told.error is None and bool(told.offset == count)


def fill(bootstrap: str) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(COUNT):
        producer.produce("in", b"%d" % number, partition=0)
    assert producer.flush(60) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "data", *OPTIONS) as one:
        create_topic(one.bootstrap, "in", 1)
        create_topic(one.bootstrap, "out", 2)
        fill(one.bootstrap)
        yield one


def run(command: Callable[[str, int], Sequence[str]], broker: Broker, kills: int) -> None:
    print(f"OTTLA_SEED={SEED}")
    chance = random.Random(SEED)
    copying = Copying(command, broker)
    watcher = Watcher(broker.bootstrap)
    try:
        for number in range(kills):
            until = copying.said + chance.randint(1, 8)
            wait_until(
                lambda until=until: copying.is_on() and copying.said >= until,
                "a copier that gets on",
                90,
                lambda: "".join(copying.lines),
            )
            if watcher.is_done():
                break
            if number % 2 == 0:
                copying.kill()
            else:
                broker.kill()
                broker.restart()
        wait_until(
            lambda: copying.is_on() and watcher.is_done(),
            "the end of the copying",
            180,
            lambda: "".join(copying.lines),
        )
    finally:
        copying.kill()
    numbers = [b"%d" % number for number in range(COUNT)]
    found = read_confluent(broker.bootstrap, "out", 2, True)
    # Kafka's copier leaves it to the partitioner where a number goes.
    assert sorted(found[0] + found[1], key=int) == numbers


def test_i42_what_librdkafka_copies_is_there_once_whatever_is_killed(broker: Broker) -> None:
    run(in_python, broker, KILLS)


@pytest.mark.reference
def test_i42_what_kafkas_own_copier_copies_is_there_once_whatever_is_killed(
    broker: Broker,
) -> None:
    run(in_java, broker, KILLS if SOAK else 2)
