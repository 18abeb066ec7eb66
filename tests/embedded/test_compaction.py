"""A compacted topic of a broker: it converges, says what keys say, and takes no record without one.

The broker looks every 20 ms here, and segments are as small as Kafka allows.
"""

import random
import subprocess
from collections.abc import Callable

import pytest

import ottla
from ottla import ErrorCode, KafkaError, Record
from tests.processes import OTTLA, wait_until

CONFIGS = {
    "cleanup.policy": "compact",
    "segment.bytes": 1 << 20,
    "min.cleanable.dirty.ratio": 0.01,
    "delete.retention.ms": 0,
}
FAST = {"log.cleaner.backoff.ms": 20}


def wait_for(broker: ottla.Broker, holds: Callable[[list[Record]], bool], what: str) -> None:
    wait_until(lambda: holds(list(broker.read("t"))), what)


def fill(broker: ottla.Broker, chance: random.Random, state: dict[bytes, bytes | None]) -> None:
    """Two segments and more, of a hundred keys."""
    for _ in range(25):
        records = []
        for _ in range(100):
            key = b"key-%d" % chance.randrange(100)
            value = None if chance.random() < 0.1 else chance.randbytes(1000)
            state[key] = value
            records.append(Record(value=value, key=key))
        broker.extend("t", records)


def test_a_compacted_topic_converges_to_the_last_word_on_every_key():
    chance, state = random.Random(5), {}
    with ottla.Broker(config=FAST) as broker:
        broker.create_topic("t", configs=CONFIGS)
        for _ in range(4):
            fill(broker, chance, state)
            written = broker.offsets("t").high_watermark
            wait_for(broker, lambda found: len(found) < 1500, "compaction")
            found = list(broker.read("t"))
            assert [record.offset for record in found] == sorted({r.offset for r in found})
            assert broker.offsets("t") == (0, written)
            says = {record.key: record.value for record in found}
            assert {k: v for k, v in says.items() if v} == {k: v for k, v in state.items() if v}


def test_a_record_without_a_key_is_refused_on_a_compacted_topic(broker):
    broker.create_topic("t", configs=CONFIGS)
    with pytest.raises(KafkaError) as raised:
        broker.append("t", "no key")
    assert raised.value.code == ErrorCode.INVALID_RECORD
    broker.append("t", "a key", key="k")
    assert [record.offset for record in broker.read("t")] == [0]


def test_a_topic_that_is_compacted_later_loses_what_has_no_key():
    with ottla.Broker(config=FAST) as broker:
        broker.create_topic("t", configs={**CONFIGS, "cleanup.policy": "delete"})
        for number in range(3000):
            broker.append("t", bytes(1000), key=None if number % 2 else b"k")
        broker.set_topic_configs("t", {"cleanup.policy": "compact"})
        wait_for(broker, lambda found: len(found) < 1500, "compaction")
        assert sum(record.key == b"k" for record in broker.read("t")) > 0


def test_a_topic_that_is_compacted_is_found_again_after_a_restart_and_offline(tmp_path):
    chance, state = random.Random(6), {}
    data = tmp_path / "data"
    with ottla.Broker(data, config=FAST) as broker:
        broker.create_topic("t", configs=CONFIGS)
        fill(broker, chance, state)
        wait_for(broker, lambda found: len(found) < 1500, "compaction")
    for command in (["compact", data], ["verify", data], ["compact", data / "t-0"]):
        done = subprocess.run(
            [OTTLA, "log", *command], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    with ottla.Broker(data, config=FAST) as broker:
        found = list(broker.read("t"))
        assert len(found) <= 100  # offline the last segment is closed and compacted, too
        says = {record.key: record.value for record in found if record.value}
        assert says == {key: value for key, value in state.items() if value}
        assert broker.append("t", "x", key="y").offset == 2500


def test_offline_a_directory_that_a_broker_has_is_refused(tmp_path):
    with ottla.Broker(tmp_path):
        done = subprocess.run(
            [OTTLA, "log", "compact", tmp_path], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "can't be compacted" in done.stderr
    done = subprocess.run(
        [OTTLA, "log", "compact", "/no/such"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "no data directory" in done.stderr) == (2, True)
