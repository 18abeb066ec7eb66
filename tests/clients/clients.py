"""Four clients, each as a function that writes and one that reads: the same records, the same shape.

Owns how each client is asked. Must not judge what comes back. Readers read by assignment, from the
beginning to the counts they are told, and check that the log ends there.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.clients.flights import Partitions, Record

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
READ_S = 120.0


@dataclass(frozen=True)
class Client:
    """`write(bootstrap, topic, codec, partitions)` and `read(bootstrap, topic, counts)`."""

    name: str
    write: Callable[[str, str, str, Partitions], None]
    read: Callable[[str, str, Sequence[int]], list[list[Record]]]
    keeps_timestamps: bool = True
    keeps_headers: bool = True
    program: str | None = None
    """What it takes beside the packages that are there with every test."""

    @property
    def is_there(self) -> bool:
        return self.program is None or shutil.which(self.program) is not None

    def skip_where_missing(self) -> None:
        if not self.is_there:
            pytest.skip(f"{self.program} is not installed: apt-get install {self.program}")


def create_topic(bootstrap: str, topic: str, partitions: int, **configs: str) -> None:
    """Through librdkafka. Records of 2013 must outlive a retention of a week."""
    from confluent_kafka.admin import AdminClient, NewTopic

    wanted = {"retention.ms": "-1", **{name.replace("_", "."): v for name, v in configs.items()}}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=wanted)
    for made in admin.create_topics([new], request_timeout=120).values():
        made.result()


def _confluent_write(bootstrap: str, topic: str, codec: str, partitions: Partitions) -> None:
    from confluent_kafka import Producer

    failures: list[object] = []

    def delivered(error: object, message: object) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.codec": codec,
            "acks": "all",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for partition, records in enumerate(partitions):
        for number, record in enumerate(records):
            producer.produce(
                topic,
                value=record.value,
                key=record.key,
                partition=partition,
                on_delivery=delivered,
                timestamp=record.timestamp,
                headers=list(record.headers),
            )
            if number % 1000 == 0:
                producer.poll(0)
    left = producer.flush(120)
    assert (left, failures[:3]) == (0, [])


def _confluent_read(bootstrap: str, topic: str, counts: Sequence[int]) -> list[list[Record]]:
    from confluent_kafka import Consumer, TopicPartition

    found: list[list[Record]] = [[] for _ in counts]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused: partitions are assigned",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "check.crcs": True,
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        for partition, count in enumerate(counts):
            ends = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=120)
            assert ends == (0, count)
        consumer.assign([TopicPartition(topic, p, 0) for p, n in enumerate(counts) if n])
        missing = sum(counts)
        while missing > 0:
            messages = consumer.consume(min(missing, 10_000), timeout=READ_S)
            assert messages, f"{missing} records did not come"
            for message in messages:
                assert message.error() is None, message.error()
                records = found[message.partition()]
                assert message.offset() == len(records)
                headers = tuple(message.headers() or ())
                records.append(
                    Record(message.timestamp()[1], message.key(), message.value(), headers)
                )
            missing -= len(messages)
    finally:
        consumer.close()
    return found


def _kafka_python_write(bootstrap: str, topic: str, codec: str, partitions: Partitions) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        acks="all",
        linger_ms=20,
        batch_size=128 * 1024,
    )
    try:
        futures = [
            producer.send(
                topic, record.value, record.key, list(record.headers), partition, record.timestamp
            )
            for partition, records in enumerate(partitions)
            for record in records
        ]
        producer.flush(120)
        for future in futures:
            future.get(10)
    finally:
        producer.close(timeout=10)


def _kafka_python_read(bootstrap: str, topic: str, counts: Sequence[int]) -> list[list[Record]]:
    from kafka import KafkaConsumer, TopicPartition

    found: list[list[Record]] = [[] for _ in counts]
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        check_crcs=True,
        max_poll_records=10_000,
        fetch_max_wait_ms=50,
    )
    try:
        every = [TopicPartition(topic, partition) for partition in range(len(counts))]
        ends = consumer.end_offsets(every)
        assert [ends[one] for one in every] == list(counts)
        consumer.assign(every)
        consumer.seek_to_beginning()
        missing = sum(counts)
        while missing > 0:
            polled = consumer.poll(timeout_ms=int(READ_S * 1000))
            assert polled, f"{missing} records did not come"
            for one, messages in polled.items():
                records = found[one.partition]
                assert messages[0].offset == len(records)
                missing -= len(messages)
                records.extend(
                    Record(m.timestamp, m.key, m.value, tuple(m.headers)) for m in messages
                )
    finally:
        consumer.close()
    return found


def _aiokafka_write(bootstrap: str, topic: str, codec: str, partitions: Partitions) -> None:
    from aiokafka import AIOKafkaProducer

    async def write() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if codec == "none" else codec,
            acks="all",
            linger_ms=20,
            max_batch_size=128 * 1024,
        )
        await producer.start()
        try:
            futures = [
                await producer.send(
                    topic,
                    record.value,
                    record.key,
                    partition,
                    record.timestamp,
                    list(record.headers),
                )
                for partition, records in enumerate(partitions)
                for record in records
            ]
            await producer.flush()
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    asyncio.run(write())


def _aiokafka_read(bootstrap: str, topic: str, counts: Sequence[int]) -> list[list[Record]]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    found: list[list[Record]] = [[] for _ in counts]

    async def read() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            check_crcs=True,
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        try:
            every = [TopicPartition(topic, partition) for partition in range(len(counts))]
            ends = await consumer.end_offsets(every)
            assert [ends[one] for one in every] == list(counts)
            consumer.assign(every)
            await consumer.seek_to_beginning()
            missing = sum(counts)
            while missing > 0:
                polled = await consumer.getmany(timeout_ms=int(READ_S * 1000))
                assert polled, f"{missing} records did not come"
                for one, messages in polled.items():
                    records = found[one.partition]
                    assert messages[0].offset == len(records)
                    missing -= len(messages)
                    records.extend(
                        Record(m.timestamp, m.key, m.value, tuple(m.headers)) for m in messages
                    )
        finally:
            await consumer.stop()

    asyncio.run(read())
    return found


def _kcat(*arguments: str, stdin: bytes = b"") -> bytes:
    CLIENTS["kcat"].skip_where_missing()
    done = subprocess.run(
        ["kcat", *arguments], input=stdin, capture_output=True, timeout=READ_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout


KCAT_HEADERS = (("sent", b"by kcat"),)


def _kcat_write(bootstrap: str, topic: str, codec: str, partitions: Partitions) -> None:
    """kcat gives every record the same headers and the time of now."""
    for partition, records in enumerate(partitions):
        lines = b"".join(b"%s\t%s\n" % (record.key, record.value) for record in records)
        to = ("-b", bootstrap, "-P", "-t", topic, "-p", str(partition), "-z", codec)
        how = ("-K", "\t", "-H", "sent=by kcat", "-X", "acks=all", "-X", "linger.ms=20")
        _kcat(*to, *how, stdin=lines)


def _kcat_read(bootstrap: str, topic: str, counts: Sequence[int]) -> list[list[Record]]:
    found: list[list[Record]] = [[] for _ in counts]
    each = "%p\\t%o\\t%T\\t%k\\t%h\\t%s\\n"
    to = ("-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q")
    output = _kcat(*to, "-X", "check.crcs=true", "-X", "fetch.wait.max.ms=50", "-f", each)
    for line in output.splitlines():
        partition, offset, timestamp, key, headers, value = line.split(b"\t", 5)
        records = found[int(partition)]
        assert int(offset) == len(records)
        pairs = (pair.partition(b"=") for pair in headers.split(b",") if pair)
        named = tuple((name.decode(), text) for name, _, text in pairs)
        records.append(Record(int(timestamp), key, value, named))
    assert [len(records) for records in found] == list(counts)
    return found


CLIENTS = {
    client.name: client
    for client in (
        Client("confluent-kafka", _confluent_write, _confluent_read),
        Client("kafka-python", _kafka_python_write, _kafka_python_read),
        Client("aiokafka", _aiokafka_write, _aiokafka_read),
        Client(
            "kcat",
            _kcat_write,
            _kcat_read,
            keeps_timestamps=False,
            keeps_headers=False,
            program="kcat",
        ),
    )
}
