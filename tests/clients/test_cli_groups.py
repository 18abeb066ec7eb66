"""`ottla group`, on a broker with groups that live and groups that are done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.clients.test_cli import ottla
from tests.processes import Broker


def write(bootstrap: str, topic: str, count: int = 100) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(count):
        producer.produce(topic, str(number), partition=0)
    assert producer.flush(120) == 0


@contextmanager
def member(bootstrap: str, group: str, topic: str, count: int = 100, **more: str) -> Iterator[Any]:
    """A member that has read and committed everything."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **more,
        }
    )
    consumer.subscribe([topic])
    while count:
        count -= len(consumer.consume(count, 120))
    consumer.commit(asynchronous=False)
    yield consumer
    consumer.close()


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_group_is_listed_described_and_deleted(shared_broker: Broker) -> None:
    write(shared_broker.bootstrap, "looked-at")
    with member(shared_broker.bootstrap, "looking", "looked-at"):
        assert "looking" in ottla("group", "list", broker=shared_broker)[0].splitlines()
        words = ("group", "describe", "looking", "--timeline", "--json")
        [told] = lines(ottla(*words, broker=shared_broker)[0])
        assert told["state"] == "stable"
        assert "looked-at-0" in told["members"][0]["partitions"]
        kinds = [event["kind"] for event in told["timeline"]]
        assert kinds[-4:] == ["joined", "preparing", "completing", "stable"]
        refused = ottla("group", "delete", "looking", broker=shared_broker, code=1)
        assert "has members" in refused[1]
    assert ottla("group", "delete", "looking", broker=shared_broker)[0] == "deleted looking\n"
    missing = ottla("group", "describe", "looking", broker=shared_broker, code=2)
    assert "there is no group" in missing[1]


def test_a_group_of_the_new_protocol_has_a_timeline_too(shared_broker: Broker) -> None:
    write(shared_broker.bootstrap, "watched")
    new = {"group.protocol": "consumer"}
    with member(shared_broker.bootstrap, "watching", "watched", **new):
        words = ("group", "describe", "watching", "--timeline", "--json")
        [told] = lines(ottla(*words, broker=shared_broker)[0])
        assert told["state"] == "stable"
        kinds = [event["kind"] for event in told["timeline"]]
        assert (kinds[0], kinds[-1]) == ("joined", "stable")
        assert "watching: stable, 1 member" in ottla(*words[:-1], broker=shared_broker)[0]


def test_offsets_are_shown_and_reset_when_it_is_meant(shared_broker: Broker) -> None:
    write(shared_broker.bootstrap, "read-again")
    with member(shared_broker.bootstrap, "reading", "read-again"):
        busy = ottla(
            "group", "reset", "reading", "--to", "end", "--execute", broker=shared_broker, code=1
        )
        assert "has members" in busy[1]

    def committed() -> int:
        told = lines(ottla("group", "offsets", "reading", "--json", broker=shared_broker)[0])
        return next(one["committed"] for one in told if one["partition"] == 0)

    assert (
        "nothing was changed"
        in ottla("group", "reset", "reading", "--shift", "-1", broker=shared_broker)[0]
    )
    assert committed() == 100
    for words, offset in (
        (("--shift", "-10"), 90),
        (("--to", "earliest"), 0),
        (("--to", "42"), 42),
        (("--to", "1d", "--topic", "read-again:0"), None),
        (("--to", "-1h", "--topic", "read-again:0"), 0),
        (("--to", "latest"), 100),
        (("--shift", "7"), 100),
    ):
        command = ("group", "reset", "reading", *words, "--execute")
        ottla(*command, broker=shared_broker, code=0 if offset is not None else 2)
        if offset is not None:
            assert committed() == offset
