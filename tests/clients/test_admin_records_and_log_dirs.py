"""Admin clients find offsets, delete records, and see what a log takes of the disk."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.clients.clients import create_topic


def fill(bootstrap: str, topic: str, count: int) -> None:
    """Records with times of 1000, 1001, ... in partition 0 of two."""
    create_topic(bootstrap, topic, 2)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(count):
        producer.produce(topic, b"value", partition=0, timestamp=1000 + number)
    assert producer.flush(120) == 0


def test_confluent_kafka_lists_offsets_and_deletes_records(shared_broker):
    admin = AdminClient({"bootstrap.servers": shared_broker.bootstrap})
    fill(shared_broker.bootstrap, "ck-records", 5)
    first, second = (TopicPartition("ck-records", number) for number in (0, 1))

    def listed(partition: TopicPartition, spec: OffsetSpec) -> int:
        [future] = admin.list_offsets({partition: spec}, request_timeout=120).values()
        return future.result().offset

    def deleted(offset: int) -> int:
        there = TopicPartition("ck-records", 0, offset)
        [future] = admin.delete_records([there], request_timeout=120).values()
        return future.result().low_watermark

    specs = (OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp())
    assert [listed(first, spec) for spec in specs] == [0, 5, 4]
    assert [listed(second, spec) for spec in specs] == [0, 0, -1]
    assert listed(first, OffsetSpec.for_timestamp(1003)) == 3
    assert deleted(2) == 2
    assert listed(first, OffsetSpec.earliest()) == 2
    with pytest.raises(KafkaException) as caught:
        deleted(6)
    assert caught.value.args[0].code() == KafkaError.OFFSET_OUT_OF_RANGE
    assert deleted(-1) == 5


def test_kafka_python_lists_offsets_and_deletes_records(shared_broker):
    from kafka import TopicPartition as Partition
    from kafka.admin import KafkaAdminClient, OffsetSpec

    fill(shared_broker.bootstrap, "kp-records", 5)
    there = Partition("kp-records", 0)
    admin = KafkaAdminClient(bootstrap_servers=shared_broker.bootstrap)
    try:
        specs = (OffsetSpec.EARLIEST, OffsetSpec.LATEST, 1003)
        found = [admin.list_partition_offsets({there: spec})[there].offset for spec in specs]
        assert found == [0, 5, 3]
        assert admin.delete_records({there: 2})[there]["low_watermark"] == 2
        found = admin.list_partition_offsets({there: OffsetSpec.EARLIEST})
        assert found[there].offset == 2
    finally:
        admin.close()


def test_kafka_python_sees_what_each_log_takes(shared_broker):
    from kafka.admin import KafkaAdminClient

    fill(shared_broker.bootstrap, "kp-sizes", 5)
    admin = KafkaAdminClient(bootstrap_servers=shared_broker.bootstrap)
    try:
        [told] = admin.describe_log_dirs()
    finally:
        admin.close()
    [directory] = told["log_dirs"]
    assert (told["broker"], directory["error_code"]) == (0, 0)
    assert 0 < directory["usable_bytes"] < directory["total_bytes"]
    [topic] = [one for one in directory["topics"] if one["name"] == "kp-sizes"]
    first, second = (one["partition_size"] for one in topic["partitions"])
    assert first > 0 == second
