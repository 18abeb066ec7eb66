"""Clients and an embedded broker: what one writes the other reads, by assignment."""

import asyncio
import time

import pytest

import ottla
from tests.processes import Broker as Served

RECORDS = [(b"k%d" % number, b"v%d" % number, (("h", b"%d" % number),)) for number in range(100)]


def in_both_partitions(records):
    """What was written: every record to the partition of its number's parity."""
    return [[RECORDS[n] for n in range(len(RECORDS)) if n % 2 == p] for p in (0, 1)] == records


def read(broker) -> list[list[tuple]]:
    found = [list(broker.read("t", p, count=50, timeout=30)) for p in (0, 1)]
    return [[(one.key, one.value, one.headers) for one in records] for records in found]


def append(broker) -> None:
    broker.extend(
        "t",
        [ottla.Record(v, k, h, partition=number % 2) for number, (k, v, h) in enumerate(RECORDS)],
    )


@pytest.fixture
def topic(broker):
    broker.create_topic("t", partitions=2)
    return broker


def test_confluent_kafka_writes_and_the_handle_reads(topic):
    from confluent_kafka import Producer

    settings = {"bootstrap.servers": topic.bootstrap_servers, "compression.type": "lz4"}
    with Producer(settings) as producer:
        for number, (key, value, headers) in enumerate(RECORDS):
            producer.produce("t", value, key, partition=number % 2, headers=list(headers))
        assert producer.flush(30) == 0
    assert in_both_partitions(read(topic))


def test_the_handle_writes_and_confluent_kafka_reads(topic):
    from confluent_kafka import Consumer, TopicPartition

    append(topic)
    settings = {"group.id": "unused", "enable.auto.commit": False}  # there are no groups to ask
    consumer = Consumer({"bootstrap.servers": topic.bootstrap_servers, **settings})
    consumer.assign([TopicPartition("t", 0, 0), TopicPartition("t", 1, 0)])
    found = [[], []]
    for message in consumer.consume(len(RECORDS), timeout=30):
        record = (message.key(), message.value(), tuple(message.headers()))
        found[message.partition()].append(record)
    consumer.close()
    assert in_both_partitions(found)


def test_kafka_python_writes_and_the_handle_reads(topic):
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=topic.bootstrap_servers, compression_type="gzip")
    for number, (key, value, headers) in enumerate(RECORDS):
        producer.send("t", value, key, partition=number % 2, headers=list(headers))
    producer.flush(30)
    producer.close()
    assert in_both_partitions(read(topic))


def test_the_handle_writes_and_kafka_python_reads(topic):
    from kafka import KafkaConsumer, TopicPartition

    append(topic)
    consumer = KafkaConsumer(
        bootstrap_servers=topic.bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        consumer_timeout_ms=30_000,
    )
    consumer.assign([TopicPartition("t", 0), TopicPartition("t", 1)])
    found = [[], []]
    for _ in RECORDS:
        message = next(consumer)
        found[message.partition].append((message.key, message.value, tuple(message.headers)))
    consumer.close()
    assert in_both_partitions(found)


def test_aiokafka_writes_and_reads_beside_the_handle():
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

    async def use():
        async with ottla.Broker() as broker:
            broker.create_topic("t", partitions=2)
            where = {"bootstrap_servers": broker.bootstrap_servers}
            async with AIOKafkaProducer(**where, compression_type="snappy") as producer:
                for number, (key, value, headers) in enumerate(RECORDS):
                    await producer.send_and_wait("t", value, key, number % 2, headers=list(headers))
            assert in_both_partitions(read(broker))

            found = [[], []]
            consumer = AIOKafkaConsumer(**where, auto_offset_reset="earliest")
            consumer.assign([TopicPartition("t", 0), TopicPartition("t", 1)])
            async with consumer:
                for _ in RECORDS:
                    message = await asyncio.wait_for(consumer.getone(), 30)
                    record = (message.key, message.value, tuple(message.headers))
                    found[message.partition].append(record)
            assert in_both_partitions(found)

    asyncio.run(use())


def test_a_consumer_that_was_left_polling_does_not_hold_up_the_end():
    from confluent_kafka import Consumer, TopicPartition

    with ottla.Broker() as broker:
        broker.append("t", "x")
        settings = {"group.id": "unused", "enable.auto.commit": False, "log_level": 0}
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "fetch.wait.max.ms": 30_000,
                "socket.timeout.ms": 60_000,
                **settings,
            }
        )
        consumer.assign([TopicPartition("t", 0, 0)])
        assert len(consumer.consume(1, timeout=30)) == 1  # its next fetch waits for more
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    consumer.close()


def test_ottla_serve_and_an_embedded_broker_take_turns_with_a_directory(tmp_path):
    directory = tmp_path / "data"
    with ottla.Broker(directory) as broker:
        broker.append("t", "embedded")
    with Served(directory) as served:
        from confluent_kafka import Producer

        with Producer({"bootstrap.servers": served.bootstrap}) as producer:
            producer.produce("t", b"served")
            assert producer.flush(30) == 0
        with pytest.raises(ottla.StartError, match="in use by another process"):
            ottla.Broker(directory).start()
    with ottla.Broker(directory) as broker:
        assert [record.value for record in broker.read("t")] == [b"embedded", b"served"]
