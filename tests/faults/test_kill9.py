"""kill -9 in the middle of writing: nothing that was acknowledged is lost, nothing is there twice.

With OTTLA_SOAK=1 the tests of kill -9 in this folder kill a broker more than 200 times: 64 times here
under producers and rolls, 40 under commits, 80 under compaction, 20 to 40 under transactions.

The page cache survives kill -9; that acks=all also waits for the disk is shown by the recording
disk in tests/sim and by test_strace.py.
"""

import contextlib
import os
import random
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.clients.clients import create_topic
from tests.processes import Broker

SOAK = os.environ.get("OTTLA_SOAK") == "1"
ROUNDS = range(30 if SOAK else 5)
RECORDS_COUNT = 100_000
PARTITIONS_COUNT = 3
SEGMENT_BYTES = str(1 << 20)  # some rolls in each partition


class Acknowledged:
    """What the producer was told: number of the record -> (partition, offset)."""

    def __init__(self) -> None:
        self.places: dict[int, tuple[int, int]] = {}
        self.failed: set[int] = set()
        self.enough = threading.Event()
        self._wanted = RECORDS_COUNT

    def kill_at(self, count: int) -> None:
        self._wanted = count

    def note(self, number: int, error: object, message) -> None:
        if error is not None:
            self.failed.add(number)
            return
        assert number not in self.places, "acknowledged twice"
        self.places[number] = (message.partition(), message.offset())
        if len(self.places) >= self._wanted:
            self.enough.set()


def write_until_the_end(bootstrap: str, topic: str, idempotent: bool, told: Acknowledged) -> None:
    """Send every record with several requests in flight; returns when each is answered or given up."""
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": idempotent,
            "max.in.flight.requests.per.connection": 5,
            "linger.ms": 1,
            "batch.num.messages": 500,
            "queue.buffering.max.messages": 2 * RECORDS_COUNT,
            "delivery.timeout.ms": 120_000,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,
        }
    )
    for number in range(RECORDS_COUNT):
        producer.produce(
            topic,
            struct.pack(">q", number) + bytes(92),
            partition=number % PARTITIONS_COUNT,
            on_delivery=lambda error, message, number=number: told.note(number, error, message),
        )
        producer.poll(0)
    producer.flush(120)


@contextlib.contextmanager
def writing(bootstrap: str, topic: str, idempotent: bool, told: Acknowledged) -> Iterator[None]:
    """Writes in a thread of its own; at the end waits until every record is answered."""
    writer = threading.Thread(
        target=write_until_the_end, args=(bootstrap, topic, idempotent, told), daemon=True
    )
    writer.start()
    yield
    writer.join(180)
    assert not writer.is_alive()


def read_numbers(bootstrap: str, topic: str) -> dict[tuple[int, int], int]:
    """Everything in the topic: (partition, offset) -> number of the record."""
    from confluent_kafka import Consumer, TopicPartition

    found: dict[tuple[int, int], int] = {}
    # Without committing: there are no groups yet, and close() would look for one for 45 s.
    settings = {"group.id": "unused", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
    try:
        ends = {}
        for partition in range(PARTITIONS_COUNT):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
            assert low == 0
            ends[partition] = high
        consumer.assign([TopicPartition(topic, p, 0) for p in ends if ends[p]])
        while missing := sum(ends.values()) - len(found):
            messages = consumer.consume(min(missing, 10_000), timeout=30)
            assert messages, f"{missing} records below the end did not come"
            for message in messages:
                assert message.error() is None
                place = (message.partition(), message.offset())
                assert place not in found
                found[place] = struct.unpack_from(">q", message.value())[0]
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
def test_kill_9_loses_no_acknowledged_record(tmp_path, idempotent, number):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # shown with a failure
    told = Acknowledged()
    told.kill_at(random.Random(seed).randint(1_000, RECORDS_COUNT * 9 // 10))
    with Broker(tmp_path / "data") as broker:
        create_topic(broker.bootstrap, "kept", PARTITIONS_COUNT, **{"segment.bytes": SEGMENT_BYTES})
        with writing(broker.bootstrap, "kept", idempotent, told):
            assert told.enough.wait(60), "the producer got no answers"
            broker.kill()
            broker.restart()
        found = read_numbers(broker.bootstrap, "kept")

    lost = [number for number, place in told.places.items() if found.get(place) != number]
    assert lost == [], f"{len(lost)} of {len(told.places)} acknowledged records are not there"
    assert told.failed == set(), "the producer gave up on records although the broker came back"
    times = Counter(found.values())
    assert set(times) == set(range(RECORDS_COUNT))
    if idempotent:
        assert [number for number, count in times.items() if count > 1] == [], "stored twice"


def test_records_survive_several_kills_in_a_row(tmp_path):
    """What one restart recovered, the next must find again, also when it is killed early."""
    places: dict[tuple[int, int], int] = {}
    with Broker(tmp_path / "data") as broker:
        create_topic(broker.bootstrap, "kept", PARTITIONS_COUNT)
        for turn in range(4):
            told = Acknowledged()
            told.kill_at(5_000)
            with writing(broker.bootstrap, "kept", True, told):
                assert told.enough.wait(60), "the producer got no answers"
                broker.kill()
                broker.restart()
            places |= {place: number for number, place in told.places.items()}
            found = read_numbers(broker.bootstrap, "kept")
            assert places.items() <= found.items(), f"after kill number {turn + 1}"
