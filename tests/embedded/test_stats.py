"""Figures of a running node: from Python, and over HTTP."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

import ottla
from tests.processes import free_port


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[ottla.Broker, str]]:
    """A broker with records in it, and where its pages are."""
    place = f"127.0.0.1:{free_port()}"
    with ottla.Broker(config={"admin.listener": place}) as broker:
        broker.create_topic("t", partitions=2)
        for number in range(10):
            broker.append("t", f"value {number}", partition=number % 2)
        assert len(list(broker.read("t"))) == 10
        yield broker, f"http://{place}"


def fetched(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_what_was_appended_and_read_is_counted(watched: tuple[ottla.Broker, str]) -> None:
    stats = watched[0].stats()
    assert stats["batching"]["records"] == 10
    assert stats["batching"]["batches_by_codec"] == {"none": 10}
    assert stats["sequential_io"]["writes"] == 10
    mine = [one for one in stats["partitions"] if one["topic"] == "t"]
    assert [one["records_in"] for one in mine] == [5, 5]
    assert sum(one["size_bytes"] for one in mine) == stats["sequential_io"]["appended_bytes"]
    assert stats["page_cache"]["fetches"] >= 2
    assert sum(one["load_share"] for one in mine) == pytest.approx(1.0)


def test_the_same_stands_at_stats(watched: tuple[ottla.Broker, str]) -> None:
    broker, url = watched
    kind, body = fetched(f"{url}/stats")
    assert kind == "application/json"
    assert json.loads(body)["batching"] == broker.stats()["batching"]


def test_prometheus_finds_the_names_of_kafkas_exporter(watched: tuple[ottla.Broker, str]) -> None:
    kind, body = fetched(f"{watched[1]}/metrics")
    assert kind.startswith("text/plain; version=0.0.4")
    assert 'kafka_server_brokertopicmetrics_messagesin_total{topic="t"} 10\n' in body


def test_health_is_asked_of_the_loop_itself(watched: tuple[ottla.Broker, str]) -> None:
    assert fetched(f"{watched[1]}/health")[1] == "ok\n"


def test_another_page_is_not_there(watched: tuple[ottla.Broker, str]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetched(f"{watched[1]}/etc/passwd")
    with refused.value as answer:
        assert answer.code == 404


def test_the_nodes_sums_do_not_fall_when_a_topic_is_deleted_and_made_again() -> None:
    with ottla.Broker() as broker:
        broker.create_topic("t")
        for number in range(7):
            broker.append("t", f"value {number}")
        assert len(list(broker.read("t"))) == 7
        before = broker.stats()
        broker.delete_topic("t")
        broker.create_topic("t")
        broker.append("t", "again")
        after = broker.stats()
    assert after["deleted"]["records_in"] == 7
    assert after["batching"]["records"] == 8
    assert after["batching"]["batches_by_codec"] == {"none": 8}
    assert after["sent_bytes"] >= before["sent_bytes"] > 0
    [mine] = [one for one in after["partitions"] if one["topic"] == "t"]
    assert mine["records_in"] == 1


def test_a_broker_that_is_gone_has_no_figures() -> None:
    broker = ottla.Broker()
    with broker:
        broker.stats()
    with pytest.raises(RuntimeError, match="not running"):
        broker.stats()
