"""Groups of an embedded broker."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

import ottla
from tests.processes import wait_until

OFFSETS_TOPIC = "__consumer_offsets"


def commit_and_look(broker: ottla.Broker) -> int:
    """Commit an offset; how many partitions the topic of offsets has."""
    broker.create_topic("t")
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "g"}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("t", 0, 7)], asynchronous=False)
    [told] = consumer.committed([TopicPartition("t", 0)], timeout=30)
    consumer.close()
    assert told.offset == 7
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    return len(admin.list_topics(timeout=30).topics[OFFSETS_TOPIC].partitions)


def test_the_topic_of_offsets_has_one_partition_unless_it_is_told() -> None:
    with ottla.Broker() as broker:
        assert commit_and_look(broker) == 1
        assert OFFSETS_TOPIC not in broker.topics()


def test_an_option_of_groups_is_taken_as_it_is_given() -> None:
    with ottla.Broker(config={"offsets.topic.num.partitions": 3}) as broker:
        assert commit_and_look(broker) == 3


def test_a_second_life_in_the_same_directory_knows_what_was_committed(tmp_path) -> None:
    with ottla.Broker(data_dir=tmp_path) as broker:
        commit_and_look(broker)
    with ottla.Broker(data_dir=tmp_path) as broker:
        settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "g"}
        consumer = Consumer({**settings, "enable.auto.commit": False})
        [told] = consumer.committed([TopicPartition("t", 0)], timeout=30)
        consumer.close()
        assert told.offset == 7


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_of_either_protocol_tells_what_happened_to_it(protocol: str) -> None:
    with ottla.Broker() as broker:
        broker.create_topic("t")
        settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "g"}
        consumer = Consumer({**settings, "group.protocol": protocol})
        consumer.subscribe(["t"])
        while not consumer.assignment():
            consumer.poll(0.1)
        kinds = [event["kind"] for event in broker.group_timeline("g")]
        assert (kinds[0], kinds[-1]) == ("joined", "stable")
        consumer.close()
        wait_until(  # a client that closes need not wait for the answer
            lambda: "left" in [event["kind"] for event in broker.group_timeline("g")],
            "the group to hear that its member has left",
        )
        assert broker.group_timeline("another") == []
