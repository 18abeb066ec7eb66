"""Admin clients do their whole job: topics, partitions, settings of topics and brokers.

And what they set takes effect at once, and outlives a restart.
"""

import socket

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from ottla.protocol.client import ClientConnection
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)
from tests import reference
from tests.clients.clients import create_topic
from tests.processes import RunningBroker

NODE = "0"


def admin_of(broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap})


def entries(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, ConfigEntry]:
    resource = ConfigResource(kind, name)
    [future] = admin.describe_configs([resource], request_timeout=120).values()
    return future.result()


def alter(admin: AdminClient, kind: ResourceType, name: str, op: AlterConfigOpType, **configs):
    changes = [
        ConfigEntry(key.replace("_", "."), value, incremental_operation=op)
        for key, value in configs.items()
    ]
    resource = ConfigResource(kind, name, incremental_configs=changes)
    [future] = admin.incremental_alter_configs([resource], request_timeout=120).values()
    return future.result()


def set_for_all_brokers(broker, name: str, value: str) -> None:
    """In raw bytes: both Python clients refuse a broker without a number."""
    config = AlterableConfig(name=name, config_operation=0, value=value)
    resource = AlterConfigsResource(resource_type=4, resource_name="", configs=[config])
    (body,) = encoder(IncrementalAlterConfigsRequest, 1)(
        IncrementalAlterConfigsRequest(resources=[resource])
    )
    client = ClientConnection("test")
    with socket.create_connection((broker.host, broker.port), timeout=120) as one:
        one.sendall(client.request(44, 1, [body]))
        while not (answers := list(client.answers(one.recv_into(client.room())))):
            pass
    [(_, answer)] = answers
    response, _ = decoder(IncrementalAlterConfigsResponse, 1)(answer, 0)
    assert [one.error_code for one in response.responses] == [0]


def produce(broker, topic: str, size: int) -> KafkaError | None:
    """What became of one record of so many bytes that don't compress."""
    told = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 10_000_000})
    producer.produce(topic, bytes(size), partition=0, on_delivery=lambda *one: told.append(one))
    assert producer.flush(120) == 0
    return told[0][0]


def test_confluent_kafka_makes_grows_describes_and_deletes_topics(broker):
    admin = admin_of(broker)
    new = NewTopic("t", num_partitions=2, replication_factor=1, config={"retention.ms": "1000"})
    [made] = admin.create_topics([new], request_timeout=120).values()
    made.result()
    [grown] = admin.create_partitions([NewPartitions("t", 5)], request_timeout=120).values()
    grown.result()
    assert len(admin.list_topics("t", timeout=120).topics["t"].partitions) == 5
    [refused] = admin.create_partitions([NewPartitions("t", 5)], request_timeout=120).values()
    with pytest.raises(KafkaException) as caught:
        refused.result()
    assert caught.value.args[0].code() == KafkaError.INVALID_PARTITIONS
    assert produce(broker, "t", 10) is None
    [gone] = admin.delete_topics(["t"], request_timeout=120).values()
    gone.result()
    assert "t" not in admin.list_topics(timeout=120).topics


def test_confluent_kafka_describes_and_alters_the_settings_of_a_topic(broker):
    admin = admin_of(broker)
    create_topic(broker.bootstrap, "t", 1)
    told = entries(admin, ResourceType.TOPIC, "t")
    assert (told["retention.ms"].value, told["retention.ms"].source) == ("-1", 1)
    assert (told["segment.bytes"].value, told["segment.bytes"].is_default) == ("1073741824", True)
    alter(admin, ResourceType.TOPIC, "t", AlterConfigOpType.SET, segment_bytes="2000000")
    alter(admin, ResourceType.TOPIC, "t", AlterConfigOpType.APPEND, cleanup_policy="compact")
    alter(admin, ResourceType.TOPIC, "t", AlterConfigOpType.DELETE, retention_ms=None)
    told = entries(admin, ResourceType.TOPIC, "t")
    assert told["segment.bytes"].value == "2000000"
    assert told["cleanup.policy"].value == "delete,compact"
    assert told["retention.ms"].source == 5
    with pytest.raises(KafkaException) as caught:
        alter(admin, ResourceType.TOPIC, "t", AlterConfigOpType.SET, segment_bytes="1")
    error = caught.value.args[0]
    assert error.code() == KafkaError.INVALID_CONFIG
    assert "Value must be at least 1048576" in error.str()


def test_the_older_request_of_confluent_kafka_replaces_all(broker):
    admin = admin_of(broker)
    create_topic(broker.bootstrap, "t", 1)
    resource = ConfigResource(ResourceType.TOPIC, "t", set_config={"max.message.bytes": "5000"})
    with pytest.deprecated_call():
        [future] = admin.alter_configs([resource], request_timeout=120).values()
    future.result()
    told = entries(admin, ResourceType.TOPIC, "t")
    assert told["max.message.bytes"].value == "5000"
    assert told["retention.ms"].source == 5


def test_what_is_set_for_a_topic_holds_at_once_and_after_a_restart(broker):
    admin = admin_of(broker)
    create_topic(broker.bootstrap, "t", 1)
    assert produce(broker, "t", 100_000) is None
    alter(admin, ResourceType.TOPIC, "t", AlterConfigOpType.SET, max_message_bytes="5000")
    assert produce(broker, "t", 100_000).code() == KafkaError.MSG_SIZE_TOO_LARGE
    if isinstance(broker, RunningBroker):
        return
    broker.kill()
    broker.restart()
    assert produce(broker, "t", 100_000).code() == KafkaError.MSG_SIZE_TOO_LARGE
    alter(admin, ResourceType.TOPIC, "t", AlterConfigOpType.DELETE, max_message_bytes=None)
    assert produce(broker, "t", 100_000) is None


def test_what_is_set_for_brokers_holds_at_once_and_after_a_restart(broker):
    if isinstance(broker, RunningBroker):
        pytest.skip("this changes and restarts the broker")
    admin = admin_of(broker)
    create_topic(broker.bootstrap, "t", 1)
    # For all brokers, then for this one, which is stronger.
    set_for_all_brokers(broker, "message.max.bytes", "5000")
    assert produce(broker, "t", 100_000).code() == KafkaError.MSG_SIZE_TOO_LARGE
    alter(admin, ResourceType.BROKER, NODE, AlterConfigOpType.SET, message_max_bytes="200000")
    assert produce(broker, "t", 100_000) is None
    broker.kill()
    broker.restart()
    assert produce(broker, "t", 100_000) is None
    told = entries(admin, ResourceType.BROKER, NODE)["message.max.bytes"]
    assert (told.value, told.source) == ("200000", 2)
    alter(admin, ResourceType.BROKER, NODE, AlterConfigOpType.DELETE, message_max_bytes=None)
    assert produce(broker, "t", 100_000).code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert entries(admin, ResourceType.TOPIC, "t")["max.message.bytes"].value == "5000"


def test_a_limit_of_connections_holds_at_once(broker):
    if isinstance(broker, RunningBroker):
        pytest.skip("this closes the connections of others")
    admin = admin_of(broker)
    limit = {"max_connections_per_ip_overrides": "127.0.0.1:0"}
    alter(admin, ResourceType.BROKER, NODE, AlterConfigOpType.SET, **limit)

    def is_refused() -> bool:
        with socket.create_connection((broker.host, broker.port), timeout=120) as one:
            try:
                return one.recv(1) == b""
            except ConnectionResetError:
                return True

    assert is_refused()
    # Who is connected already stays, and can take it back.
    limit = dict.fromkeys(limit)
    alter(admin, ResourceType.BROKER, NODE, AlterConfigOpType.DELETE, **limit)
    assert admin_of(broker).list_topics(timeout=120).brokers


def test_a_read_only_option_of_the_broker_is_refused(broker):
    admin = admin_of(broker)
    told = entries(admin, ResourceType.BROKER, NODE)
    assert told["num.partitions"].is_read_only
    assert not told["max.connections"].is_read_only
    with pytest.raises(KafkaException, match="Cannot update these configs dynamically"):
        alter(admin, ResourceType.BROKER, NODE, AlterConfigOpType.SET, num_partitions="7")


def test_kafka_python_does_topics_partitions_and_settings(broker):
    from kafka.admin import ConfigResource as Resource
    from kafka.admin import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.create_topics({"kp": {"num_partitions": 2, "replication_factor": 1}})
        admin.create_partitions({"kp": 4})
        [topic] = admin.describe_topics(["kp"])
        assert len(topic["partitions"]) == 4
        admin.alter_configs([Resource("TOPIC", "kp", {"retention.ms": "1234"})])
        [told] = admin.describe_configs([Resource("TOPIC", "kp")])["topic"].values()
        assert told["retention.ms"]["value"] in (1234, "1234")
        every = admin.describe_configs([Resource("BROKER", NODE)], config_filter="all")
        assert "max.connections" in every["broker"][NODE]
        admin.delete_topics(["kp"])
        assert "kp" not in admin.list_topics()
    finally:
        admin.close()


@pytest.mark.reference
def test_kafkas_own_tools_grow_alter_and_describe(broker):
    tools = "org.apache.kafka.tools"
    server = ("--bootstrap-server", broker.bootstrap)

    def run(tool: str, *arguments: str) -> str:
        return reference.run("tool", tool, *server, *arguments).stdout

    create_topic(broker.bootstrap, "jt", 2)
    run(f"{tools}.TopicCommand", "--alter", "--topic", "jt", "--partitions", "3")
    run("kafka.admin.ConfigCommand", "--entity-type", "topics", "--entity-name", "jt", "--alter",
        "--add-config", "segment.bytes=2000000,cleanup.policy=[compact,delete]")  # fmt: skip
    told = run(f"{tools}.TopicCommand", "--describe", "--topic", "jt")
    assert "PartitionCount: 3" in told
    assert "segment.bytes=2000000" in told
    set_for_all_brokers(broker, "max.connections", "500")
    told = run("kafka.admin.ConfigCommand", "--entity-type", "brokers", "--describe")
    assert "DYNAMIC_DEFAULT_BROKER_CONFIG:max.connections=500" in told
    assert run(f"{tools}.GetOffsetShell", "--topic", "jt") == "jt:0:0\njt:1:0\njt:2:0\n"
