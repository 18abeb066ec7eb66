"""More partitions and segments than there are descriptors: all are written, read, and kept.

Scaled down here: 200 partitions under a limit of 256, 40 of 20 segments (2,400 files) under 512. OTTLA_SOAK=1 takes
2,000 under 1,024, 1,000 of 100 segments under 4,096, and says how long each step took.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from ottla.bench import asking
from ottla.bench.even import Growing
from ottla.protocol.messages import fetch as messages
from tests.clients.clients import create_topic
from tests.processes import Broker

SOAK = os.environ.get("OTTLA_SOAK") == "1"
PARTITIONS, LIMIT = (2000, 1024) if SOAK else (200, 256)
SEGMENTED, SEGMENTS, SEGMENTED_LIMIT = (1000, 100, 4096) if SOAK else (40, 20, 512)
AT_ONCE = 100


def under(limit: int) -> tuple[str, ...]:
    """A program that starts another with so many descriptors, and no way to more."""
    return ("/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh")


def write(bootstrap: str) -> None:
    failed: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5})
    for number in range(2 * PARTITIONS):
        producer.produce(
            "t",
            b"%d" % number,
            partition=number % PARTITIONS,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(120) == 0
    assert failed == []


def read(bootstrap: str) -> dict[int, list[int]]:
    """What is in each partition; some at a time, as a group's members would."""
    found: dict[int, list[int]] = {number: [] for number in range(PARTITIONS)}
    for first in range(0, PARTITIONS, AT_ONCE):
        consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "g", "enable.auto.commit": False}
        )
        some = range(first, min(first + AT_ONCE, PARTITIONS))
        consumer.assign([TopicPartition("t", number, 0) for number in some])
        while any(len(found[number]) < 2 for number in some):
            messages = consumer.consume(AT_ONCE, timeout=60)
            assert messages, "nothing more comes"
            for message in messages:
                assert message.error() is None, message.error()
                found[message.partition()].append(int(message.value()))
        consumer.close()
    return found


def test_more_partitions_than_descriptors_are_served_with_a_warning_that_says_what_to_raise(
    tmp_path: Path,
) -> None:
    broker = Broker(tmp_path / "data", wrapper=under(LIMIT))
    with broker:
        create_topic(broker.bootstrap, "t", PARTITIONS)
        write(broker.bootstrap)
        wanted = {number: [number, number + PARTITIONS] for number in range(PARTITIONS)}
        assert read(broker.bootstrap) == wanted
        assert broker.terminate() == 0
        broker.start()
        assert "ulimit -n" in broker.said()
        assert read(broker.bootstrap) == wanted
        assert len(os.listdir(f"/proc/{broker.pid}/fd")) < LIMIT
        assert "ERROR" not in broker.said()


class Watched:
    """A broker whose descriptors are counted after each step, and the step timed."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.most = 0
        self._begun = time.perf_counter()

    def done(self, step: str) -> None:
        count = len(os.listdir(f"/proc/{self.broker.pid}/fd"))
        self.most = max(self.most, count)
        took_s = time.perf_counter() - self._begun
        print(f"{step}: {took_s:.1f} s, {count} descriptors, load {os.getloadavg()[0]:.1f}")
        self._begun = time.perf_counter()


def first_offsets(address: tuple[str, int], offset: int) -> list[int]:
    """The base offset of the first batch that each partition gives from an offset on."""
    found: dict[int, int] = {}
    for first in range(0, SEGMENTED, AT_ONCE):
        some = range(first, min(first + AT_ONCE, SEGMENTED))
        while missing := [number for number in some if number not in found]:
            wanted = [
                messages.FetchPartition(partition=p, fetch_offset=offset, partition_max_bytes=1)
                for p in missing
            ]
            topic = messages.FetchTopic(topic="s", partitions=wanted)
            request = messages.FetchRequest(max_wait_ms=500, min_bytes=1, topics=[topic])
            answer = asking.ask(address, request, 12, messages.FetchResponse)
            for one in answer.responses[0].partitions:
                assert one.error_code == 0, one
                if one.records:
                    assert isinstance(one.records, memoryview)
                    found[one.partition_index] = int.from_bytes(one.records[:8], "big")
    return [found[number] for number in range(SEGMENTED)]


def test_many_segments_are_read_from_old_offsets_and_written_on_under_few_descriptors(
    tmp_path: Path,
) -> None:
    broker = Broker(tmp_path / "data", wrapper=under(SEGMENTED_LIMIT))
    with broker:
        address = (broker.host, broker.port)
        growing = Growing("s", SEGMENTED, batch=(1, 100), step_ms=10)
        asking.create_topic(address, "s", SEGMENTED, segment_ms="1")
        watched = Watched(broker)
        for _ in range(10):
            growing.grow(address, SEGMENTS // 10, acks=-1)
            watched.done(f"{growing.batches} segments in each of {SEGMENTED:,} partitions")
        assert len(list((tmp_path / "data" / "s-7").glob("*.log"))) >= SEGMENTS
        assert broker.terminate() == 0
        watched = Watched(broker)
        broker.start()
        assert growing.is_whole(address)
        watched.done("a start, and the ends of all")
        for offset in (1, SEGMENTS // 2):
            assert first_offsets(address, offset) == [offset] * SEGMENTED
            watched.done(f"a fetch from offset {offset} of all")
        growing.grow(address, 1, acks=-1)
        assert growing.is_whole(address)
        watched.done("a record to all")
        assert watched.most < SEGMENTED_LIMIT
        assert "ERROR" not in broker.said()
