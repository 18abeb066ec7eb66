"""More partitions and segments than there are descriptors: all are written, read, and kept.

Scaled down here: 200 partitions under a limit of 256. OTTLA_SOAK=1 takes 2,000 under 1,024.
"""

from __future__ import annotations

import os
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.clients.clients import create_topic
from tests.processes import Broker

SOAK = os.environ.get("OTTLA_SOAK") == "1"
PARTITIONS, LIMIT = (2000, 1024) if SOAK else (200, 256)
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
