"""Rows of the hostile table about topics, their settings, and the deletion of records.

One request can show each; the broker, and what must hold after each row, is in rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages import alter_configs, incremental_alter_configs
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreateTopicsRequest,
)
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from tests.hostile.conftest import Start
from tests.hostile.rows import (
    AUTO_MAX,
    broker_of_rows,
)
from tests.hostile.wire import (
    WELL,
    Victim,
    create,
    delete,
)


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    return broker_of_rows(start)


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


# --- topics -----------------------------------------------------------------------------------

NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "a\0b",
    "x" * 250,
    "ä",
    "a b",
    "a\n",
    "a_b",
    "%2e%2e",
]


@pytest.mark.parametrize("name", NAMES)
def test_h74_a_name_that_is_no_topics_is_refused(broker: Victim, name: str) -> None:
    """`a_b` collides with `a.b`, which is there."""
    with broker.peer() as peer:
        (topic,) = peer.ask(create(name), 5).topics
        assert topic.error_code == E.INVALID_TOPIC_EXCEPTION
        asked = MetadataRequest(topics=[MetadataRequestTopic(name=name)])
        (topic,) = peer.ask(asked, 9).topics
        assert topic.error_code == E.INVALID_TOPIC_EXCEPTION
    assert not (broker.broker.directory.parent / "x-0").exists()


def _creating(*topics: CreatableTopic) -> CreateTopicsRequest:
    return CreateTopicsRequest(topics=list(topics))


def test_h75_topics_named_twice_are_refused(broker: Victim) -> None:
    twice = [CreatableTopic(name="twice", num_partitions=1, replication_factor=1)] * 2
    with broker.peer() as peer:
        answer = peer.ask(_creating(*twice), 5)
        assert {topic.error_code for topic in answer.topics} == {E.INVALID_REQUEST}


def _with(partitions: int, factor: int, *replicas: list[int]) -> CreatableTopic:
    assignments = [
        CreatableReplicaAssignment(partition_index=index, broker_ids=ids)
        for index, ids in enumerate(replicas)
    ]
    return CreatableTopic(
        name="h76", num_partitions=partitions, replication_factor=factor, assignments=assignments
    )


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        (_with(0, 1), E.INVALID_PARTITIONS),
        (_with(-5, 1), E.INVALID_PARTITIONS),
        (_with(10**9, 1), E.POLICY_VIOLATION),
        (_with(41, 1), E.POLICY_VIOLATION),
        (_with(1, 0), E.INVALID_REPLICATION_FACTOR),
        (_with(1, 2), E.INVALID_REPLICATION_FACTOR),
        (_with(1, 1, [0]), E.INVALID_REQUEST),
        (_with(-1, -1, [0, 0]), E.INVALID_REPLICA_ASSIGNMENT),
        (_with(-1, -1, [7]), E.INVALID_REPLICA_ASSIGNMENT),
        (_with(-1, -1, []), E.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_h76_counts_that_no_topic_has_are_refused(
    broker: Victim, topic: CreatableTopic, error: E
) -> None:
    with broker.peer() as peer:
        (result,) = peer.ask(_creating(topic), 5).topics
        assert E(result.error_code) == error


def test_h76_partitions_of_all_topics_together_are_capped(broker: Victim) -> None:
    names = [f"many{number}" for number in range(5)]
    with broker.peer() as peer:
        topics = [CreatableTopic(name=n, num_partitions=40, replication_factor=1) for n in names]
        errors = {topic.error_code for topic in peer.ask(_creating(*topics), 5).topics}
        assert E.POLICY_VIOLATION in errors
        peer.ask(delete(*names), 6)


SETTINGS = {
    "an unknown key": ("no.such.config", "1"),
    "a class": ("metric.reporters", "com.example.Evil"),
    "a class of a topic": ("topic.creation.policy.class.name", "com.example.Evil"),
    "a file": ("ssl.keystore.location", "/etc/passwd"),
    "a path of the data": ("log.dir", "/etc"),
    "a negative size": ("max.message.bytes", "-5"),
    "no number": ("segment.bytes", "1e9"),
    "a word": ("cleanup.policy", "shred"),
    "a name of 30000 characters": ("x" * 30_000, "1"),
    "a name with NUL": ("retention.ms\0", "1"),
}
TOPIC, BROKER_ITSELF, DEFAULT_OF_BROKERS = (2, WELL), (4, "0"), (4, "")


@pytest.mark.parametrize("resource", [TOPIC, BROKER_ITSELF, DEFAULT_OF_BROKERS], ids=str)
@pytest.mark.parametrize(("name", "value"), SETTINGS.values(), ids=SETTINGS)
def test_h78_only_known_settings_with_sound_values_are_taken(
    broker: Victim, resource: tuple[int, str], name: str, value: str
) -> None:
    kind, who = resource
    whole = alter_configs.AlterConfigsRequest(
        resources=[
            alter_configs.AlterConfigsResource(
                resource_type=kind,
                resource_name=who,
                configs=[alter_configs.AlterableConfig(name=name, value=value)],
            )
        ]
    )
    one = incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[
            incremental_alter_configs.AlterConfigsResource(
                resource_type=kind,
                resource_name=who,
                configs=[incremental_alter_configs.AlterableConfig(name=name, value=value)],
            )
        ]
    )
    with broker.peer() as peer:
        for asked in (whole, one):
            (answer,) = peer.ask(asked, 1).responses
            # Kafka's own code for a broker's setting that can't be changed is INVALID_REQUEST.
            allowed = {E.INVALID_CONFIG} if kind == TOPIC[0] else _BROKER_REFUSALS
            assert E(answer.error_code) in allowed
        (made,) = peer.ask(create("h78", **{name.replace(".", "_"): value}), 5).topics
        assert made.error_code == E.INVALID_CONFIG


_BROKER_REFUSALS = {E.INVALID_CONFIG, E.INVALID_REQUEST}


@pytest.mark.parametrize(
    ("offset", "error"), [(10**9, E.OFFSET_OUT_OF_RANGE), (-2, E.OFFSET_OUT_OF_RANGE)]
)
def test_h79_records_that_are_not_there_are_not_deleted(
    broker: Victim, offset: int, error: E
) -> None:
    with broker.peer() as peer:
        assert _deleted(peer.ask(_delete_records(WELL, offset), 2)) == error


def test_h79_a_compacted_topic_keeps_its_records(broker: Victim) -> None:
    with broker.peer() as peer:
        assert _deleted(peer.ask(_delete_records("compacted", 0), 2)) == E.POLICY_VIOLATION


def _delete_records(topic: str, offset: int) -> DeleteRecordsRequest:
    part = DeleteRecordsPartition(partition_index=0, offset=offset)
    topics = [DeleteRecordsTopic(name=topic, partitions=[part])]
    return DeleteRecordsRequest(topics=topics, timeout_ms=1000)


def _deleted(answer: Any) -> int:
    return int(answer.topics[0].partitions[0].error_code)


def test_h81_asking_for_topics_makes_only_so_many(broker: Victim) -> None:
    names = [f"auto{number}" for number in range(1000)]
    asked = MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in names])
    with broker.peer() as peer:
        topics = peer.ask(asked, 9).topics
        made = [topic.name for topic in topics if topic.error_code == 0]
        assert len(made) == AUTO_MAX
        rest = {topic.error_code for topic in topics if topic.error_code}
        assert rest == {E.UNKNOWN_TOPIC_OR_PARTITION}
        peer.ask(delete(*made), 6)
