"""`ottla txn`, and what `ottla topic describe` says, while a transaction is open and when it hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.clients.clients import create_topic
from tests.clients.test_cli import objects, ottla, sentence
from tests.clients.transactors import Confluent
from tests.processes import Broker, wait_until


@contextmanager
def opened(broker: Broker, name: str) -> Iterator[str]:
    """A topic with a transaction of five records in partition 0, and nothing in partition 1."""
    topic = f"{name}-{os.getpid()}"
    create_topic(broker.bootstrap, topic, 2)
    one = Confluent(broker.bootstrap, topic)
    one.begin()
    for _ in range(5):
        one.send(topic, 0, b"open")
    one.flush()
    yield topic
    one.close()


def test_an_open_transaction_is_listed_and_described(shared_broker: Broker) -> None:
    with opened(shared_broker, "described") as name:
        out, _ = ottla("txn", "list", "--state", "ongoing", "--json", broker=shared_broker)
        assert [one["state"] for one in objects(out) if one["transactional_id"] == name] == [
            "ongoing"
        ]
        assert name in ottla("txn", "list", broker=shared_broker)[0]
        out, _ = ottla("txn", "list", "--older-than", "3000", broker=shared_broker)
        assert name not in out
        [told] = objects(ottla("txn", "describe", name, "--json", broker=shared_broker)[0])
        assert (told["state"], told["timeout_ms"]) == ("ongoing", 60_000)
        assert told["partitions"] == [f"{name}-0"]
        assert told["since_ms"] > 1_600_000_000_000
        out, _ = ottla("txn", "describe", name, broker=shared_broker)
        assert out.startswith(f"{name}: ongoing, producer {told['producer_id']} in epoch 0\n")
        assert out.splitlines()[1].endswith(", aborted after 60 s")


def test_who_holds_back_readers_is_said_where_a_topic_is_described(shared_broker: Broker) -> None:
    with opened(shared_broker, "held-back") as name:
        out, _ = ottla("topic", "describe", name, broker=shared_broker)
        line = " ".join(out[out.index("partition 0 holds") :].split())
        assert line.startswith("partition 0 holds back 5 records from offset 0 on, behind a ")
        assert f"transaction of '{name}' (producer " in line
        assert line.endswith(f"; try: ottla txn describe {name}")
        [told] = objects(ottla("topic", "describe", name, "--json", broker=shared_broker)[0])
        first, second = told["partitions"]
        assert "held_back_by" not in second
        held = first["held_back_by"]
        assert (held["transactional_id"], held["first_offset"], held["records"]) == (name, 0, 5)


def test_a_transaction_is_aborted_in_one_partition_when_it_is_meant(shared_broker: Broker) -> None:
    with opened(shared_broker, "aborted") as name:
        place = f"{name}:0"
        out, _ = ottla("txn", "abort", place, broker=shared_broker)
        assert out.startswith("would abort the transaction of producer ")
        assert out.endswith("nothing was changed; --execute does it\n")
        words = ("txn", "abort", place, "--start-offset", "0", "--execute", "--json")
        [told] = objects(ottla(*words, broker=shared_broker)[0])
        assert (told["first_offset"], told["done"]) == (0, True)
        out, _ = ottla("topic", "describe", name, broker=shared_broker)
        assert "holds back" not in out
        _, err = ottla(*words, broker=shared_broker, code=1)
        assert "no such transaction is open" in sentence(err)


def test_of_several_open_transactions_one_must_be_named(shared_broker: Broker) -> None:
    with opened(shared_broker, "several") as name:
        other = Confluent(shared_broker.bootstrap, f"{name}-other")
        other.begin()
        other.send(name, 0, b"open")
        other.flush()
        _, err = ottla("txn", "abort", f"{name}:0", broker=shared_broker, code=2)
        assert "2 transactions are open" in sentence(err)
        words = ("--start-offset", "5", "--execute")
        ottla("txn", "abort", f"{name}:0", *words, broker=shared_broker)
        held, _ = ottla("topic", "describe", name, broker=shared_broker)
        assert held.endswith(f"  ottla txn describe {name}\n")
        other.close()


def test_what_is_not_there_is_said_with_what_was_meant(shared_broker: Broker) -> None:
    with opened(shared_broker, "meant") as name:
        for words, said in (
            (("describe", name[:-1]), f"try: {name}"),
            (("list", "--state", "ongong"), "try: --state ongoing"),
            (("abort", name), f"try: {name}:0"),
            (("abort", f"{name}:9"), f"try: {name}:1"),
            (("abort", "nowhere-at-all:0"), "try: ottla topic list"),
        ):
            _, err = ottla("txn", *words, broker=shared_broker, code=2)
            assert said in sentence(err)
        tls = ("txn", "list", "-X", "security.protocol=SSL")
        assert "without TLS" in sentence(ottla(*tls, broker=shared_broker, code=1)[1])


def test_the_end_of_a_transaction_shows_in_the_list(shared_broker: Broker) -> None:
    name = f"ended-{os.getpid()}"
    create_topic(shared_broker.bootstrap, name, 1)
    one = Confluent(shared_broker.bootstrap, name)
    one.begin()
    one.send(name, 0, b"a")
    one.commit()

    def is_complete() -> bool:
        out, _ = ottla("txn", "list", "--state", "complete-commit", "--json", broker=shared_broker)
        return name in {told["transactional_id"] for told in objects(out)}

    wait_until(is_complete, "the end of the transaction")
    out, _ = ottla("txn", "describe", name, broker=shared_broker)
    first, second = out.splitlines()
    assert first.startswith(f"{name}: complete-commit, producer ")
    assert second.startswith("  begun ")
    assert "aborted" not in out, "what has ended is not threatened with a timeout"
    out, _ = ottla("txn", "list", "--older-than", "0", broker=shared_broker)
    assert name not in out, "only what is still open has been open for so long"
    one.close()
