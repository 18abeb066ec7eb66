"""Offsets committed by hand, of partitions that a client assigns itself: three clients.

Each commits, asks what is committed, and asks again after kill -9 and a restart of the broker.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable

import pytest

from tests.clients.clients import create_topic
from tests.processes import Broker

TOPIC = "committed"


@pytest.fixture(autouse=True)
def _a_topic_for_each_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is somebody else's keeps what the tests before have left."""
    monkeypatch.setitem(globals(), "TOPIC", f"committed-{secrets.token_hex(4)}")


# What a client's function is given: bootstrap, group, and offsets by partition to commit, if any.
# It returns the offsets that are committed afterwards by partition, None where nothing is.
Told = dict[int, int | None]
Ask = Callable[[str, str, dict[int, int]], Told]


def confluent(bootstrap: str, group: str, offsets: dict[int, int], **more: str) -> Told:
    from confluent_kafka import Consumer, TopicPartition

    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        **more,
    }
    consumer = Consumer(settings)
    try:
        consumer.assign([TopicPartition(TOPIC, number) for number in range(3)])
        if offsets:
            wanted = [TopicPartition(TOPIC, n, offset) for n, offset in offsets.items()]
            for done in consumer.commit(offsets=wanted, asynchronous=False):
                assert done.error is None
        asked = [TopicPartition(TOPIC, number) for number in range(3)]
        told = consumer.committed(asked, timeout=120)
        assert all(one.error is None for one in told)
        return {one.partition: None if one.offset < 0 else one.offset for one in told}
    finally:
        consumer.close()


def kafka_python(bootstrap: str, group: str, offsets: dict[int, int]) -> Told:
    from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    try:
        places = [TopicPartition(TOPIC, number) for number in range(3)]
        consumer.assign(places)
        if offsets:
            consumer.commit(
                {
                    TopicPartition(TOPIC, number): OffsetAndMetadata(offset, f"m{offset}", -1)
                    for number, offset in offsets.items()
                }
            )
        return {place.partition: consumer.committed(place) for place in places}
    finally:
        consumer.close(autocommit=False)


def aiokafka(bootstrap: str, group: str, offsets: dict[int, int]) -> Told:
    return asyncio.run(_aiokafka(bootstrap, group, offsets))


async def _aiokafka(bootstrap: str, group: str, offsets: dict[int, int]) -> Told:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        places = [TopicPartition(TOPIC, number) for number in range(3)]
        consumer.assign(places)
        if offsets:
            await consumer.commit(
                {TopicPartition(TOPIC, n): (offset, f"m{offset}") for n, offset in offsets.items()}
            )
        return {place.partition: await consumer.committed(place) for place in places}
    finally:
        await consumer.stop()


CLIENTS: dict[str, Ask] = {
    "confluent-kafka": confluent,
    "kafka-python": kafka_python,
    "aiokafka": aiokafka,
}


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_commits_is_there_before_and_after_kill_9(broker: Broker, name: str) -> None:
    ask = CLIENTS[name]
    create_topic(broker.bootstrap, TOPIC, 3)
    assert ask(broker.bootstrap, "g", {}) == {0: None, 1: None, 2: None}
    told = ask(broker.bootstrap, "g", {0: 7, 2: 0})
    assert told == {0: 7, 1: None, 2: 0}
    broker.kill()
    broker.restart()
    assert ask(broker.bootstrap, "g", {}) == told
    assert ask(broker.bootstrap, "g", {0: 3}) == {0: 3, 1: None, 2: 0}
    assert ask(broker.bootstrap, "another", {}) == {0: None, 1: None, 2: None}


def test_every_client_reads_what_another_has_committed(broker: Broker) -> None:
    create_topic(broker.bootstrap, TOPIC, 3)
    for at, ask in enumerate(CLIENTS.values()):
        ask(broker.bootstrap, "g", {at: 10 + at})
    for ask in CLIENTS.values():
        assert ask(broker.bootstrap, "g", {}) == {0: 10, 1: 11, 2: 12}


def test_what_is_committed_beside_an_offset_is_told_with_it(broker: Broker) -> None:
    from kafka import KafkaConsumer, TopicPartition

    create_topic(broker.bootstrap, TOPIC, 3)
    aiokafka(broker.bootstrap, "g", {0: 7})
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, group_id="g", enable_auto_commit=False
    )
    told = consumer.committed(TopicPartition(TOPIC, 0), metadata=True)
    consumer.close(autocommit=False)
    assert (told.offset, told.metadata) == (7, "m7")


def test_a_fresh_broker_takes_its_first_commit_without_a_client_waiting_to_try_again(
    broker: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    """By what librdkafka logs of it: Apache Kafka has no coordinator to tell at first."""
    if "OTTLA_TEST_BOOTSTRAP" in os.environ:
        pytest.skip("this broker is somebody else's, and not fresh")
    create_topic(broker.bootstrap, TOPIC, 3)
    confluent(broker.bootstrap, "g", {0: 1}, debug="protocol,cgrp")
    logged = capfd.readouterr().err
    assert logged.count("Sent OffsetCommitRequest") == 1, logged
    for refusal in ("COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "LOAD_IN_PROGRESS"):
        assert refusal not in logged


def test_the_admin_client_lists_alters_and_deletes_what_a_group_has_committed(
    broker: Broker,
) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import AdminClient

    create_topic(broker.bootstrap, TOPIC, 3)
    confluent(broker.bootstrap, "g", {0: 7, 1: 8})
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})

    def listed() -> dict[int, int]:
        [found] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("g")]).values()
        there = found.result().topic_partitions
        return {one.partition: one.offset for one in there if one.topic == TOPIC}

    assert listed() == {0: 7, 1: 8}
    wanted = ConsumerGroupTopicPartitions("g", [TopicPartition(TOPIC, 0, 2)])
    [altered] = admin.alter_consumer_group_offsets([wanted]).values()
    assert all(one.error is None for one in altered.result().topic_partitions)
    assert listed() == {0: 2, 1: 8}
    admin.delete_topics([TOPIC])[TOPIC].result()
    assert listed() == {}


def test_kafka_python_deletes_single_offsets(broker: Broker) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    create_topic(broker.bootstrap, TOPIC, 3)
    confluent(broker.bootstrap, "g", {0: 7, 1: 8})
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.delete_group_offsets("g", [TopicPartition(TOPIC, 0)])
    finally:
        admin.close()
    assert confluent(broker.bootstrap, "g", {}) == {0: None, 1: 8, 2: None}
