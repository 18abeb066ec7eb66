"""A real file system that runs full under real producers (I33).

On a tmpfs of its own, so that nothing else is harmed; skipped where mounting is not allowed. Twice:
with the soft threshold, and without it, so that writes find no room. Whatever happens the process
lives, reading and commits go on, room that comes back is used by itself, and what was acknowledged
is there, once.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.clients.clients import create_topic
from tests.processes import Broker, wait_until

SIZE_MIB = 28
RECORD = bytes(9992)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 28 MiB."""
    where = tmp_path / "small"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(where)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"mounting is not allowed: {done.stderr.strip()}")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


class Sent:
    """Numbered records, and what became of each."""

    def __init__(self, bootstrap: str, **more: object) -> None:
        settings = {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 1,
            "message.timeout.ms": 300_000,
            "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 200,
            "topic.metadata.refresh.interval.ms": 1000,
            "log_level": 0,
        }
        self.producer = Producer({**settings, **more})
        self.acknowledged: set[int] = set()
        self.failed: dict[int, KafkaError] = {}
        self.count = 0

    def send(self, topic: str, count: int) -> None:
        for _ in range(count):
            number = self.count
            self.count += 1

            def told(error: KafkaError | None, _message: object, number: int = number) -> None:
                if error is None:
                    self.acknowledged.add(number)
                else:
                    self.failed[number] = error

            self.producer.produce(topic, struct.pack(">q", number) + RECORD, on_delivery=told)
            self.producer.poll(0)

    def moved(self, before: int) -> bool:
        """Whether more is acknowledged than before."""
        self.producer.poll(0)
        return len(self.acknowledged) > before

    def stuck(self) -> bool:
        """Whether nothing was acknowledged for a second, and something waits."""
        before = len(self.acknowledged)
        self.producer.flush(1.0)
        return len(self.acknowledged) == before and len(self.producer) > 0


def fill(broker: Broker, sent: Sent, times: int) -> None:
    """Send as long as it is taken, a megabyte at a time: it stops when the disk is full."""

    def full() -> bool:
        if len(sent.producer) == 0:
            sent.send("t", 100)
        sent.producer.flush(0.05)
        sent.producer.poll(0.05)  # slowly: such a disk is full in an instant
        said = broker.said()
        return max(map(said.count, ("little room", "disk is full"))) >= times and sent.stuck()

    wait_until(full, "the disk to be full")


def numbers(bootstrap: str, topic: str) -> list[int]:
    """All that is in the topic's one partition, in order."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False}
    )
    place = TopicPartition(topic, 0)
    low, high = consumer.get_watermark_offsets(place, timeout=10)
    place.offset = low
    consumer.assign([place])
    found: list[int] = []
    while len(found) < high - low:
        for message in consumer.consume(500, timeout=0.2):
            assert message.error() is None, message.error()
            found.append(struct.unpack_from(">q", message.value())[0])
    consumer.close()
    return found


def commit(bootstrap: str, topic: str, offset: int) -> int:
    """Commit an offset and ask for it."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "committer"})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    [place] = consumer.committed([TopicPartition(topic, 0)], timeout=10)
    consumer.close()
    return place.offset


def fill_up(path: Path) -> None:
    """Leave no byte free."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("threshold", ["8388608", "0"], ids=["soft", "hard"])
def test_i33_a_disk_that_runs_full_loses_nothing_and_is_used_again_by_itself(
    small: Path, tmp_path: Path, threshold: str
) -> None:
    options = (f"log.free.bytes.min={threshold}", "log.segment.bytes=2097152",
               "offsets.topic.num.partitions=1", "offsets.topic.segment.bytes=1048576")  # fmt: skip
    others = small / "somebody else's"
    others.write_bytes(bytes(2 << 20))
    with Broker(small / "data", *options, output=tmp_path) as broker:
        where = broker.bootstrap
        create_topic(where, "ballast", 1)
        create_topic(where, "t", 1)
        commit(where, "t", 1)  # its own topic is there before the disk is full
        ballast = Sent(where)
        ballast.send("ballast", 800)
        ballast.producer.flush(60)
        assert len(ballast.acknowledged) == 800

        sent = Sent(where)
        fill(broker, sent, 1)
        assert sent.failed == {}, "clients retry what is refused"
        before = len(sent.acknowledged)
        assert free_bytes(small) < (9 << 20 if threshold != "0" else 1 << 20)
        assert len(numbers(where, "t")) >= before, "reading goes on"
        if threshold != "0":
            assert commit(where, "t", 7) == 7, "and so do commits"
            assert broker.said().count("log.free.bytes.min") == 1

        admin = AdminClient({"bootstrap.servers": where})
        admin.delete_topics(["ballast"])["ballast"].result(30)
        wait_until(lambda: sent.moved(before), "produce to be taken again")
        fill(broker, sent, 2)
        assert broker.process is not None
        assert broker.process.poll() is None
        assert sent.failed == {}
        found = numbers(where, "t")
        assert len(found) == len(set(found)), "nothing is there twice"
        assert found == sorted(found)
        assert sent.acknowledged <= set(found)

        broker.kill()
        filler = small / "the last bytes"
        fill_up(filler)
        starting = broker.launch()
        assert starting.wait(60) == 1
        assert "disk is full: free some space there" in broker.said()
        broker.kill()
        filler.unlink()
        others.unlink()  # with no byte free its store can't note that the node is there
        broker.start()
        again = numbers(broker.bootstrap, "t")
        assert sent.acknowledged <= set(again)
        assert again[: len(found)] == found
        del sent.producer
