"""kill -9 of a broker that compacts while it is written to, at moments drawn from a seed.

The last acknowledged value of every key is there afterwards, or a later one that was sent; offsets
rise; the files are sound. The worker process ends with its broker. OTTLA_SEED=n repeats the moments.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.clients.clients import create_topic
from tests.processes import OTTLA, Broker, wait_until

SOAK = os.environ.get("OTTLA_SOAK") == "1"
KILLS = 80 if SOAK else 3
SEED = int(os.environ.get("OTTLA_SEED") or random.SystemRandom().randrange(1 << 32))
CONFIG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.01",
    "file.delete.delay.ms": "200",
}
FAST = ("log.cleaner.backoff.ms=20",)
GONE = (FileNotFoundError, ProcessLookupError)
"""What a look into /proc raises: the one before its file is opened, the other before it is read."""


class Keys:
    """What was sent of each key, and what was acknowledged: rising numbers."""

    def __init__(self) -> None:
        self.chance = random.Random(SEED)
        self.sent = 0
        self.acknowledged: dict[bytes, int] = {}

    def write(self, bootstrap: str, seconds: float) -> Any:
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "message.timeout.ms": 3000,
                "linger.ms": 1,
                "queue.buffering.max.messages": 2000,
                "log_level": 0,
            }
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            key = b"key-%d" % self.chance.randrange(300)
            self.sent += 1
            value = b"%d " % self.sent + os.urandom(700)
            try:
                producer.produce(
                    "t", key=key, value=value, partition=0, on_delivery=self._told(key, self.sent)
                )
            except BufferError:
                producer.poll(0.01)
            producer.poll(0)
        return producer

    def _told(self, key: bytes, number: int) -> Any:
        def told(error: object, _message: object) -> None:
            if error is None:
                self.acknowledged[key] = max(number, self.acknowledged.get(key, 0))

        return told

    def check(self, bootstrap: str) -> int:
        """How many records there are."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "none",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        found: dict[bytes, int] = {}
        offsets: list[int] = []
        try:
            place = TopicPartition("t", 0, OFFSET_BEGINNING)
            consumer.assign([place])
            while (message := consumer.poll(60)) is not None and message.error() is None:
                offsets.append(message.offset())
                found[message.key()] = int(message.value().split(b" ", 1)[0])
            end = consumer.get_watermark_offsets(place, timeout=30)[1]
        finally:
            consumer.close()
        assert message is not None, f"nothing came within a minute after offset {offsets[-1:]}"
        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
        assert offsets == sorted(set(offsets))
        lost = {k: n for k, n in self.acknowledged.items() if found.get(k, -1) < n}
        assert not lost, f"read to {offsets[-1:]} of {end}; OTTLA_SEED={SEED}"
        return len(offsets)


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(*GONE):  # a thread may end between
            found += map(int, path.read_text().split())
    return found


def test_kill_9_in_the_midst_of_compaction_loses_no_key(tmp_path):
    keys = Keys()
    broker = Broker(tmp_path / "data", *FAST)
    with broker:
        create_topic(broker.bootstrap, "t", 1, **CONFIG)
        for _ in range(KILLS):
            producer = keys.write(broker.bootstrap, keys.chance.uniform(1.0, 2.5))
            workers = children(broker.pid)
            os.kill(broker.pid, signal.SIGKILL)  # the broker alone: its worker is to notice
            wait_until(lambda: not any(map(running, workers)), "the workers to end")  # noqa: B023
            broker.kill()
            producer.flush(4)
            broker.restart()
            keys.check(broker.bootstrap)
        wait_until(lambda: keys.check(broker.bootstrap) < 6000, "compaction to catch up", 120)
    done = subprocess.run(
        [OTTLA, "log", "verify", tmp_path / "data"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except GONE:
        return False
    return state != "Z"
