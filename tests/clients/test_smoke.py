"""The shortest whole story: a topic, records, a kill, the same records. Also run with every fallback forced."""

import pytest

from tests.clients import flights
from tests.clients.clients import CLIENTS, create_topic


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_a_client_reads_its_own_records_before_and_after_kill_9(broker, client):
    topic = f"smoke-{client.name}"
    partitions = flights.by_partition(count=1000)
    counts = [len(records) for records in partitions]
    create_topic(broker.bootstrap, topic, len(partitions))
    client.write(broker.bootstrap, topic, "zstd", partitions)
    before = client.read(broker.bootstrap, topic, counts)
    values = [[record.value for record in records] for records in before]
    assert values == [[record.value for record in records] for records in partitions]

    broker.kill()
    broker.restart()
    assert client.read(broker.bootstrap, topic, counts) == before


def test_a_topic_is_created_by_the_first_record(broker):
    from confluent_kafka import Consumer, Producer, TopicPartition

    results = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    producer.produce(
        "made-on-the-way", b"first", on_delivery=lambda *report: results.append(report)
    )
    assert producer.flush(120) == 0
    [(error, message)] = results
    assert (error, message.offset()) == (None, 0)

    settings = {"group.id": "unused", "enable.auto.commit": False}  # there are no groups to ask
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, **settings})
    consumer.assign([TopicPartition("made-on-the-way", message.partition(), 0)])
    [record] = consumer.consume(1, timeout=120)
    consumer.close()
    assert record.value() == b"first"
