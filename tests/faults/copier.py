"""A copier as a process of its own, so that a test can kill it: numbers from `in` to `out`, by
librdkafka, each step one transaction with the offsets of what it has read.

Says after each transaction how far it is. Ends with 1 where its producer is of no use any more.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

PATIENCE_S = 60.0
STEP_S, STUCK_S = 2.0, 4.0
AT_ONCE_MAX = 40


class Copier:
    def __init__(self, bootstrap: str, seed: int) -> None:
        self.random = random.Random(seed)
        shared = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 200}
        self.consumer = Consumer(
            shared
            | {
                "group.id": "copying",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )
        self.producer = Producer(
            shared
            | {"transactional.id": "copier", "transaction.timeout.ms": 30_000, "linger.ms": 1}
        )
        self.producer.init_transactions(PATIENCE_S)
        self.go_back()

    def go_back(self) -> None:
        """Read on where the group has got to: what is pending there is waited for."""
        [at] = self.consumer.committed([TopicPartition("in", 0)], PATIENCE_S)
        self.consumer.assign([TopicPartition("in", 0, max(at.offset, 0))])

    def step(self) -> None:
        messages = self.consumer.consume(self.random.randint(1, AT_ONCE_MAX), timeout=0.5)
        taken = [message for message in messages if message.error() is None]
        if not taken:
            return
        self.producer.begin_transaction()
        try:
            for message in taken:
                value = message.value()
                self.producer.produce("out", value, partition=int(value) % 2)
            offsets = [TopicPartition("in", 0, taken[-1].offset() + 1)]
            self.insist(
                self.producer.send_offsets_to_transaction,
                offsets,
                self.consumer.consumer_group_metadata(),
            )
            if self.random.random() < 0.2:
                self.insist(self.producer.abort_transaction)
                self.go_back()
                return
            self.insist(self.producer.commit_transaction)
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            self.insist(self.producer.abort_transaction)
            self.go_back()
            return
        sys.stdout.write(f"{taken[-1].offset() + 1}\n")
        sys.stdout.flush()

    def insist(self, call: Any, *arguments: Any) -> None:
        """As often as the client says that it may help.

        Not without end: librdkafka forgets a TxnOffsetCommit whose connection breaks, and waits for
        its answer past the timeout that it was given.
        """
        watch = threading.Timer(STUCK_S, end, ("it is stuck",))
        watch.daemon = True
        watch.start()
        while True:
            try:
                call(*arguments, STEP_S)
                break
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
        watch.cancel()


def end(why: object) -> None:
    """Leave at once. librdkafka's handles may wait without end for a broker that is not there."""
    sys.stderr.write(f"it is over: {why}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    try:
        copier = Copier(sys.argv[1], int(sys.argv[2]))
        while True:
            copier.step()
    except KafkaException as error:
        end(error)
