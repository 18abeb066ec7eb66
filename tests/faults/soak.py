"""Who takes part in the soak: writers with a ledger, one of a table, readers that watch.

Owns what each of them does and what it remembers. Must not start or kill anybody, nor judge: that
is `test_soak.py`'s. Each is a thread that goes on until it is told to finish.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.processes import wait_until

PATIENCE_S = 120.0
PAUSE_S = 0.01
WAITING_MAX = 2_000
"""Records of one writer that are sent and not acknowledged: the broker may be dead for seconds."""


class Place(NamedTuple):
    partition: int
    offset: int


class Sent(NamedTuple):
    """What a writer sent: of a key, if there are keys, and None for a tombstone."""

    key: bytes | None
    value: bytes | None


class Actor(threading.Thread):
    """Repeats `step` until `finish`, then does `end`. A failure is kept for the test."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.failure: BaseException | None = None
        self._over = threading.Event()

    def run(self) -> None:
        try:
            while not self._over.wait(PAUSE_S):
                self.step()
            self.end()
        except BaseException as error:  # raised where the thread is joined
            self.failure = error

    def step(self) -> None:
        raise NotImplementedError

    def end(self) -> None: ...

    def finish(self) -> None:
        """Returns when it has done its last. Raises what went wrong in it."""
        self._over.set()
        self.join(2 * PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        assert not self.is_alive(), f"{self.name} does not come to an end"


class Writer(Actor):
    """An idempotent producer with acks=all. `ledger` has what was acknowledged, by its place."""

    def __init__(
        self, bootstrap: str, name: str, topic: str, partitions: int, at_once: int, **config: Any
    ) -> None:
        from confluent_kafka import Producer

        super().__init__(name)
        self.topic = topic
        self.partitions = partitions
        self.at_once = at_once
        self.count = 0
        """Records that were sent."""
        self.ledger: dict[Place, Sent] = {}
        self.failed: list[str] = []
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                "delivery.timeout.ms": int(PATIENCE_S * 1000),
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
                **config,
            }
        )

    def step(self) -> None:
        if len(self.producer) < WAITING_MAX:
            for _ in range(self.at_once):
                self.send(self.content())
        self.producer.poll(0)

    def end(self) -> None:
        left = self.producer.flush(PATIENCE_S)
        assert left == 0, f"{self.name}: {left} records were never answered"

    def content(self) -> Sent:
        return Sent(None, b"%s %d" % (self.name.encode(), self.count))

    def send(self, sent: Sent) -> None:
        def told(error: object, message: Any) -> None:
            if error is not None:
                self.failed.append(str(error))
                return
            place = Place(message.partition(), message.offset())
            assert place not in self.ledger, f"{place} was given out twice"
            self.ledger[place] = sent

        number = self.count % self.partitions
        self.count += 1
        self.producer.produce(
            self.topic, key=sent.key, value=sent.value, partition=number, on_delivery=told
        )


class Numbers(Writer):
    """Plain numbers, for the copier; the offset of each is the number itself."""

    def content(self) -> Sent:
        return Sent(None, b"%d" % self.count)


class Table(Writer):
    """Writes a compacted topic; `rows` is what it must come to, tombstones being gone."""

    def __init__(self, bootstrap: str, topic: str, seed: int, keys: int) -> None:
        super().__init__(bootstrap, "table", topic, 1, 8)
        self.random = random.Random(seed)
        self.keys = keys
        self.rows: dict[bytes, bytes] = {}

    def content(self) -> Sent:
        key = b"key %d" % self.random.randrange(self.keys)
        if self.random.random() < 0.1:
            self.rows.pop(key, None)
            return Sent(key, None)
        self.rows[key] = (b"%d " % self.count).ljust(1000, b".")
        return Sent(key, self.rows[key])


class Reader(Actor):
    """Follows a topic as it grows, committed records only. `seen` has what it was shown."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__(f"reader of {topic}")
        self.consumer = consumer_of(bootstrap, topic, range(partitions))
        self.seen: dict[Place, Sent] = {}
        self._following = [0] * partitions

    def step(self) -> None:
        self.take(self.consumer.consume(2_000, timeout=0.2))

    def take(self, messages: Iterable[Any]) -> None:
        for message in messages:
            if message.error():
                continue  # the broker is away; what counts is what is shown
            place = Place(message.partition(), message.offset())
            assert place.offset >= self._following[place.partition], f"{self.name}: {place} again"
            self._following[place.partition] = place.offset + 1
            self.seen[place] = Sent(message.key(), message.value())

    def wait_for_something(self) -> None:
        """One that is slow may have been shown nothing yet, although there is something."""
        wait_until(
            lambda: bool(self.seen or self.failure), f"what the {self.name} is shown", PATIENCE_S
        )

    def end(self) -> None:
        self.consumer.close()


def consumer_of(bootstrap: str, topic: str, partitions: Iterable[int], **config: Any) -> Any:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "check.crcs": True,
            "fetch.wait.max.ms": 100,
            "reconnect.backoff.max.ms": 200,
            "log_level": 0,
            **config,
        }
    )
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    return consumer


def read_all(bootstrap: str, topic: str, partitions: int) -> dict[Place, Sent]:
    """All that a reader of committed records gets now; each place once, or the test fails."""
    from confluent_kafka import KafkaError

    found: dict[Place, Sent] = {}
    consumer = consumer_of(bootstrap, topic, range(partitions), **{"enable.partition.eof": True})
    left = partitions
    patience = PATIENCE_S
    try:
        while left:
            # It waits for as many as it was asked for, be there an end or not.
            messages = consumer.consume(10_000, timeout=0.5)
            patience = PATIENCE_S if messages else patience - 0.5
            assert patience > 0, f"the end of {topic} does not come"
            for message in messages:
                if error := message.error():
                    left -= error.code() == KafkaError._PARTITION_EOF
                    continue
                place = Place(message.partition(), message.offset())
                assert place not in found, f"{place} of {topic} was shown twice"
                found[place] = Sent(message.key(), message.value())
    finally:
        consumer.close()
    return found
