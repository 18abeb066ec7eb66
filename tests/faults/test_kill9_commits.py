"""kill -9 under clients that commit: no offset that was acknowledged is lost (I35)."""

from __future__ import annotations

import os
import random
import threading
from typing import Any

import pytest

from tests.clients.clients import create_topic
from tests.processes import Broker, wait_until

SOAK = os.environ.get("OTTLA_SOAK") == "1"
ROUNDS = range(20 if SOAK else 2)
CLIENTS_COUNT = 4
COMMITS_MAX = 5_000
NOTHING = -1
"""In the place of an offset: none was committed. A slow client may not have got to its first."""


class Committing(threading.Thread):
    """One client that commits ever higher offsets of its own partition, one after the other."""

    def __init__(
        self, bootstrap: str, number: int, stop: threading.Event, committed: int = NOTHING
    ) -> None:
        """`committed` is how far its group is."""
        super().__init__(daemon=True)
        self.group = f"group-{number}"
        self.number = number
        self.acknowledged = committed
        self.asked = committed
        self.address = bootstrap
        self.ended = stop

    def consumer(self) -> Any:
        from confluent_kafka import Consumer

        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": self.group,
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        consumer = self.consumer()
        try:
            for offset in range(self.asked + 1, self.asked + 1 + COMMITS_MAX):
                if self.ended.is_set():
                    return
                self.asked = offset
                wanted = [TopicPartition("t", self.number, offset)]
                try:
                    [done] = consumer.commit(offsets=wanted, asynchronous=False)
                except KafkaException:
                    continue  # the broker is gone for the moment; nobody knows of this one
                if done.error is None:
                    self.acknowledged = offset
        finally:
            consumer.close()

    def wait_for(self, count: int) -> None:
        offset = self.acknowledged + count
        wait_until(
            lambda: self.acknowledged >= offset or not self.is_alive(), "acknowledged commits", 60
        )

    def committed(self) -> int:
        from confluent_kafka import OFFSET_INVALID, TopicPartition

        consumer = self.consumer()
        try:
            [told] = consumer.committed([TopicPartition("t", self.number)], timeout=60)
            assert told.error is None
            return NOTHING if told.offset == OFFSET_INVALID else int(told.offset)
        finally:
            consumer.close()


@pytest.mark.parametrize("number", ROUNDS)
def test_i35_kill_9_loses_no_acknowledged_commit(tmp_path, number):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")  # shown with a failure
    chance = random.Random(seed)
    with Broker(tmp_path / "data") as broker:
        create_topic(broker.bootstrap, "t", CLIENTS_COUNT)
        told = [NOTHING] * CLIENTS_COUNT
        for _life in range(2):
            stop, enough = threading.Event(), chance.randint(1, 400)
            clients = [Committing(broker.bootstrap, n, stop, at) for n, at in enumerate(told)]
            for client in clients:
                client.start()
            clients[0].wait_for(enough)
            broker.kill()
            broker.restart()
            stop.set()
            for client in clients:
                client.join(60)
                assert not client.is_alive()
            told = [client.committed() for client in clients]
            for client, at in zip(clients, told, strict=True):
                assert client.acknowledged <= at <= client.asked, client.group
