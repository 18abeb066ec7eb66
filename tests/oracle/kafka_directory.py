"""A data directory with something of everything in it, filled by clients of Apache Kafka.

Owns what is written and the ledger of it, and how a broker is asked for all of it again. Must not
know which broker it speaks to, nor judge.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.clients.clients import CODECS, create_topic
from tests.clients.transactors import Confluent
from tests.processes import wait_until

PATIENCE_S = 180.0
COMPACTED = {"cleanup_policy": "compact", "segment_bytes": str(1 << 20)}
GROUPS = {"classic": "classic", "consumer": "consumer"}
"""Groups by name, and the protocol that each speaks: KIP-848's is the second one's."""
OLD_MS = 1_400_000_000_000
"""A timestamp of 2014: any retention by time would delete what has it."""


class Place(NamedTuple):
    topic: str
    partition: int


@dataclass
class Ledger:
    """What was written. Records are (offset, timestamp, key, value), as text: it goes to JSON."""

    partitions: dict[str, int] = field(default_factory=dict)
    records: dict[str, list[list[Any]]] = field(default_factory=dict)
    """By `topic-partition`, as a reader of committed records sees them."""
    committed: dict[str, dict[str, int]] = field(default_factory=dict)
    """Offsets of groups, by `topic-partition`."""
    cluster_id: str = ""
    hanging: str = ""
    """The transactional id whose transaction is open."""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Ledger:
        return cls(**json.loads(path.read_text()))


def fill(bootstrap: str, count: int, *, compact: bool = True) -> tuple[Ledger, Confluent]:
    """Topics in all codecs, a compacted one, transactions of every outcome, groups.

    The transaction of the producer that comes back is open. Close it when the broker is gone.
    """
    ledger = Ledger(partitions={"codecs": len(CODECS), "transactions": 2, "compacted": 1})
    for topic, partitions in ledger.partitions.items():
        create_topic(bootstrap, topic, partitions, **(COMPACTED if topic == "compacted" else {}))
    for number, codec in enumerate(CODECS):
        produce(bootstrap, "codecs", number, count, {"compression.codec": codec})
    if compact:
        # Three segments, so that there is something to compact below the last one.
        produce(bootstrap, "compacted", 0, 40 * count, {}, keys=50, size=60_000 // count)
    transactor = Confluent(bootstrap, "a transaction", 600_000)
    for number, ends in enumerate((transactor.commit, transactor.abort, transactor.commit)):
        transactor.begin()
        for partition in (0, 1):
            transactor.send("transactions", partition, f"transaction {number}".encode())
        transactor.send_offsets("of transactions", {("codecs", 0): number + 1})
        transactor.flush()
        ends()
    consume(bootstrap, "classic", "classic", count // 2)
    consume(bootstrap, "consumer", "consumer", count // 3)
    transactor.begin()
    transactor.send("transactions", 0, b"never ended")
    transactor.flush()
    ledger.hanging = "a transaction"
    return ledger, transactor


def produce(
    bootstrap: str,
    topic: str,
    partition: int,
    count: int,
    config: dict[str, Any],
    *,
    keys: int = 0,
    size: int = 0,
) -> list[int]:
    """`count` records in batches of some, idempotent; their offsets."""
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "batch.num.messages": 40,
            "linger.ms": 5,
            **config,
        }
    )
    offsets: list[int] = []
    for number in range(count):
        producer.produce(
            topic,
            key=b"key %d" % (number % keys if keys else number),
            value=(b"value %d of %s. " % (number, topic.encode())).ljust(size, b"."),
            partition=partition,
            timestamp=OLD_MS + number,
            on_delivery=lambda error, message: offsets.append(message.offset()),
        )
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0
    assert -1001 not in offsets
    return offsets


def consume(bootstrap: str, group: str, protocol: str, count: int) -> dict[tuple[str, int], int]:
    """Read so many records as a member of the group, commit, leave; what its first were."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    first: dict[tuple[str, int], int] = {}
    following: dict[tuple[str, int], int] = {}
    try:
        consumer.subscribe(["codecs"])
        for _ in range(count):
            message = consumer.poll(PATIENCE_S)
            assert message is not None, "the group gets no record"
            assert message.error() is None
            place = (message.topic(), message.partition())
            first.setdefault(place, message.offset())
            following[place] = message.offset() + 1
        places = [TopicPartition(*place, offset) for place, offset in following.items()]
        consumer.commit(offsets=places, asynchronous=False)
    finally:
        consumer.close()
    return first


def look(bootstrap: str, ledger: Ledger) -> None:
    """Write down what a broker shows: records, committed offsets, who it is."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    ledger.cluster_id = admin.list_topics(timeout=PATIENCE_S).cluster_id
    for topic, count in ledger.partitions.items():
        for partition in range(count):
            ledger.records[f"{topic}-{partition}"] = read(bootstrap, topic, partition)
    for group in (*GROUPS, "of transactions"):
        ledger.committed[group] = committed(bootstrap, group)


def read(bootstrap: str, topic: str, partition: int) -> list[list[Any]]:
    """All that a reader of committed records gets of a partition, below its last stable offset."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
            "check.crcs": True,
        }
    )
    found: list[list[Any]] = []
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        while (message := consumer.poll(PATIENCE_S)) is not None and not message.error():
            key, value = message.key(), message.value()
            texts = [None if one is None else one.decode() for one in (key, value)]
            found.append([message.offset(), message.timestamp()[1], *texts])
        assert message is not None, f"the end of {topic}-{partition} does not come"
        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
    finally:
        consumer.close()
    return found


def committed(bootstrap: str, group: str) -> dict[str, int]:
    """What a group has committed of the topic that groups read here."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        places = [TopicPartition("codecs", number) for number in range(len(CODECS))]
        found = consumer.committed(places, PATIENCE_S)
        return {f"{one.topic}-{one.partition}": one.offset for one in found if one.offset >= 0}
    finally:
        consumer.close()


def await_compaction(bootstrap: str, data: Path) -> None:
    """Until Kafka's cleaner has written down that it was at the topic."""

    def is_there() -> bool:
        path = data / "cleaner-offset-checkpoint"
        return path.exists() and "compacted 0 " in path.read_text()

    wait_until(is_there, f"a compaction by the broker at {bootstrap}", PATIENCE_S)
