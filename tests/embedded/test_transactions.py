"""Transactions as the embedding program sees them: what it reads, and what is still open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

import ottla
from ottla.handlers import listing


@pytest.fixture
def producer(broker: ottla.Broker) -> Iterator[Producer]:
    broker.create_topic("t", partitions=2)
    one = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "mine"})
    one.init_transactions(30)
    yield one
    one.flush(10)


def write(producer: Producer, *values: str) -> None:
    for value in values:
        producer.produce("t", value, partition=0)
    assert producer.flush(30) == 0


def values(broker: ottla.Broker, **how: object) -> list[str]:
    return [record.value.decode() for record in broker.read("t", **how)]


def test_what_is_read_was_committed_unless_all_is_asked_for(broker, producer):
    producer.begin_transaction()
    write(producer, "one", "two")
    assert values(broker) == []
    assert values(broker, isolation="read_uncommitted") == ["one", "two"]
    producer.commit_transaction(30)
    assert values(broker, count=2, timeout=30) == ["one", "two"]
    producer.begin_transaction()
    write(producer, "no")
    producer.abort_transaction(30)
    broker.append("t", "plain", partition=0)
    assert values(broker, count=3, timeout=30) == ["one", "two", "plain"]
    assert values(broker, isolation="read_uncommitted") == ["one", "two", "no", "plain"]


def test_an_open_transaction_is_told_of_with_its_owner_and_its_beginning(broker, producer):
    broker.append("t", "before", partition=0)
    producer.begin_transaction()
    write(producer, "one")
    (there,) = broker.open_transactions("t")
    assert (there.partition, there.first_offset, there.transactional_id) == (0, 1, "mine")
    assert abs(there.since_ms - broker.append("t", "after", partition=1).timestamp) < 30_000
    assert broker.open_transactions("t", 1) == []
    producer.abort_transaction(30)
    assert values(broker, count=1, timeout=30) == ["before"]
    with pytest.raises(ottla.KafkaError):
        broker.open_transactions("nowhere")


def test_an_isolation_that_does_not_exist_is_named(broker):
    broker.create_topic("t")
    with pytest.raises(ValueError, match="read_uncommitted"):
        broker.read("t", isolation="serializable")


def test_who_embeds_a_broker_is_told_of_more_transactions_than_fit_into_a_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "SLICE_COUNT", 1)
    with ottla.Broker() as broker:
        broker.create_topic("t")
        producers = [
            Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": name})
            for name in ("a", "b", "c")
        ]
        for producer in producers:
            producer.init_transactions(30)
            producer.begin_transaction()
            producer.produce("t", b"x")
            producer.flush(30)
        told = broker.open_transactions("t")
        assert {one.transactional_id for one in told} == {"a", "b", "c"}
        for producer in producers:
            producer.abort_transaction(30)
