"""A member of a group as a process of its own, so that a test can kill it without a goodbye.

Prints a line for each record it has read, [partition, value], and for each assignment,
{"assigned": [...]}; commits after each poll, or after a later one where the group rebalances;
leaves the group on SIGTERM. What its client logs goes to stderr.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

HEARTBEAT_MS = 400
stopped = threading.Event()


def say(line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def assigned(partitions: Iterable[Any]) -> None:
    say({"assigned": sorted(one.partition for one in partitions)})


def confluent(
    bootstrap: str, group: str, topic: str, session_ms: int, more: dict[str, Any]
) -> None:
    from confluent_kafka import Consumer, KafkaError, KafkaException

    later = (
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
    )
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": HEARTBEAT_MS,
        }
        | more
    )

    def on_assign(_: Any, partitions: Any) -> None:
        if more.get("partition.assignment.strategy") == "cooperative-sticky":
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        assigned(consumer.assignment())

    def has_committed() -> bool:
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as refused:
            code = refused.args[0].code()
            if code not in (*later, KafkaError._NO_OFFSET):
                raise
            return code not in later  # else the next poll goes on with the rebalance
        return True

    consumer.subscribe([topic], on_assign=on_assign)
    commits = not more.get("enable.auto.commit")
    is_saved = True
    while not stopped.is_set():
        messages = consumer.consume(20, timeout=0.1)
        for message in messages:
            assert message.error() is None, message.error()
            say([message.partition(), int(message.value())])
        if commits and (messages or not is_saved):
            is_saved = has_committed()
    consumer.close()


def kafka_python(
    bootstrap: str, group: str, topic: str, session_ms: int, more: dict[str, Any]
) -> None:
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.errors import CommitFailedError, RebalanceInProgressError

    cooperative = more.pop("cooperative", False)
    if cooperative:
        more["partition_assignment_strategy"] = [CooperativeStickyAssignor]

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked: Any) -> None:
            if cooperative:
                assigned(consumer.assignment() - set(revoked))

        def on_partitions_assigned(self, given: Any) -> None:
            assigned(consumer.assignment() | set(given))

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=HEARTBEAT_MS,
        max_poll_records=20,
        **more,
    )
    consumer.subscribe([topic], listener=Listener())
    # A leader of kafka-python 3.0 that joins again because its metadata changed is lost where a
    # poll ends before it is through (its need_rejoin() has forgotten the join by then), and the
    # first metadata to come would be such a change. So it is here before the first join.
    assert consumer.partitions_for_topic(topic)
    is_saved = True
    while not stopped.is_set():
        found = consumer.poll(timeout_ms=100)
        for records in found.values():
            for record in records:
                say([record.partition, int(record.value)])
        if found or not is_saved:
            is_saved = False
            # A poll may end while it joins; the next one goes on with that.
            with suppress(CommitFailedError, RebalanceInProgressError):
                consumer.commit()
                is_saved = True
    consumer.close()


def aiokafka(bootstrap: str, group: str, topic: str, session_ms: int, more: dict[str, Any]) -> None:
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
    from aiokafka.errors import CommitFailedError

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked: Any) -> None:
            pass

        def on_partitions_assigned(self, given: Any) -> None:
            assigned(given)

    async def run() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=HEARTBEAT_MS,
            **more,
        )
        await consumer.start()
        consumer.subscribe([topic], listener=Listener())
        is_saved = True
        try:
            while not stopped.is_set():
                found = await consumer.getmany(timeout_ms=100, max_records=20)
                for records in found.values():
                    for record in records:
                        say([record.partition, int(record.value)])
                if found or not is_saved:
                    is_saved = False
                    with suppress(CommitFailedError):  # it joins again behind our back
                        await consumer.commit()
                        is_saved = True
        finally:
            await consumer.stop()

    asyncio.run(run())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    kind, where, name, what, timeout, extra = sys.argv[1:]
    clients = {"confluent": confluent, "kafka-python": kafka_python, "aiokafka": aiokafka}
    clients[kind](where, name, what, int(timeout), json.loads(extra))
