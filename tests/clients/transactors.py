"""Three clients that write in transactions, in one shape, and their readers of either isolation.

Owns how each client is asked. Must not judge what comes back. `Fenced` is what each of them says
in its own words when a later producer has taken its id, or its transaction was ended for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

PATIENCE_S = 120.0


class Fenced(Exception):
    """The producer is of no use any more."""


class Transactor(Protocol):
    """A producer with a transactional id. Its id and epoch are there once it is made."""

    def begin(self) -> None: ...

    def send(self, topic: str, partition: int, value: bytes) -> None: ...

    def flush(self) -> None:
        """All that was sent is in the log."""

    def send_offsets(self, group: str, offsets: dict[tuple[str, int], int]) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Confluent:
    """librdkafka: Produce to version 10, EndTxn to 1, AddPartitionsToTxn 0: the old flow."""

    def __init__(self, bootstrap: str, transactional_id: str, timeout_ms: int = 60_000) -> None:
        from confluent_kafka import Producer

        self._bootstrap = bootstrap
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": timeout_ms,
                # librdkafka wants it below the timeout of the transaction.
                "message.timeout.ms": min(timeout_ms, 30_000),
                "linger.ms": 0,
            }
        )
        self._producer.init_transactions(PATIENCE_S)
        self.failures: list[Any] = []

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        from confluent_kafka import KafkaException

        try:
            call(*arguments)
        except KafkaException as error:
            why = error.args[0]
            if why.fatal() or why.txn_requires_abort():
                raise Fenced(str(why)) from None
            raise

    def begin(self) -> None:
        self._try(self._producer.begin_transaction)

    def send(self, topic: str, partition: int, value: bytes) -> None:
        self._try(lambda: self._producer.produce(topic, value, partition=partition))

    def flush(self) -> None:
        assert self._producer.flush(PATIENCE_S) == 0

    def send_offsets(self, group: str, offsets: dict[tuple[str, int], int]) -> None:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": group})
        places = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        try:
            metadata = consumer.consumer_group_metadata()
            self._try(self._producer.send_offsets_to_transaction, places, metadata, PATIENCE_S)
        finally:
            consumer.close()

    def commit(self) -> None:
        self._try(self._producer.commit_transaction, PATIENCE_S)

    def abort(self) -> None:
        self._try(self._producer.abort_transaction, PATIENCE_S)

    def close(self) -> None:
        self._producer.purge()


class KafkaPython:
    """kafka-python 3: Produce to 9, EndTxn to 3, AddPartitionsToTxn to 3."""

    def __init__(self, bootstrap: str, transactional_id: str, timeout_ms: int = 60_000) -> None:
        from kafka import KafkaProducer

        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap,
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
            max_block_ms=int(PATIENCE_S * 1000),
        )
        self._producer.init_transactions()

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        from kafka import errors

        try:
            call(*arguments)
        except errors.KafkaError as error:
            raise Fenced(repr(error)) from None

    def begin(self) -> None:
        self._try(self._producer.begin_transaction)

    def send(self, topic: str, partition: int, value: bytes) -> None:
        self._try(lambda: self._producer.send(topic, value, partition=partition))

    def flush(self) -> None:
        self._producer.flush(PATIENCE_S)

    def send_offsets(self, group: str, offsets: dict[tuple[str, int], int]) -> None:
        from kafka import TopicPartition
        from kafka.structs import OffsetAndMetadata

        places = {
            TopicPartition(*place): OffsetAndMetadata(offset, "", -1)
            for place, offset in offsets.items()
        }
        self._try(self._producer.send_offsets_to_transaction, places, group)

    def commit(self) -> None:
        self._try(self._producer.commit_transaction)

    def abort(self) -> None:
        self._try(self._producer.abort_transaction)

    def close(self) -> None:
        self._producer.close(timeout=1)


class Aiokafka:
    """aiokafka: Produce to 8, version 0 of all that is about transactions."""

    def __init__(self, bootstrap: str, transactional_id: str, timeout_ms: int = 60_000) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start(bootstrap, transactional_id, timeout_ms))

    async def _start(self, bootstrap: str, transactional_id: str, timeout_ms: int) -> None:
        from aiokafka import AIOKafkaProducer

        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
        )
        await self._producer.start()

    def _try(self, call: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> None:
        from aiokafka import errors

        try:
            self._loop.run_until_complete(asyncio.wait_for(call(*arguments), PATIENCE_S))
        except errors.KafkaError as error:
            raise Fenced(repr(error)) from None

    def begin(self) -> None:
        self._try(self._producer.begin_transaction)

    def send(self, topic: str, partition: int, value: bytes) -> None:
        async def send() -> None:
            await self._producer.send(topic, value, partition=partition)

        self._try(send)

    def flush(self) -> None:
        self._try(self._producer.flush)

    def send_offsets(self, group: str, offsets: dict[tuple[str, int], int]) -> None:
        from aiokafka import TopicPartition

        places = {TopicPartition(*place): offset for place, offset in offsets.items()}
        self._try(self._producer.send_offsets_to_transaction, places, group)

    def commit(self) -> None:
        self._try(self._producer.commit_transaction)

    def abort(self) -> None:
        self._try(self._producer.abort_transaction)

    def close(self) -> None:
        self._loop.run_until_complete(self._producer.stop())
        self._loop.close()


TRANSACTORS: dict[str, Callable[..., Transactor]] = {
    "confluent-kafka": Confluent,
    "kafka-python": KafkaPython,
    "aiokafka": Aiokafka,
}


# --- readers -------------------------------------------------------------------------------


def read_confluent(
    bootstrap: str, topic: str, partitions: int, committed: bool
) -> list[list[bytes]]:
    """The values of each partition, up to where a reader of this isolation may read."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused: partitions are assigned",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
        }
    )
    found: list[list[bytes]] = [[] for _ in range(partitions)]
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    ends: set[int] = set()
    try:
        while len(ends) < partitions:
            message = consumer.poll(PATIENCE_S)
            assert message is not None, f"no end of {topic}"
            if message.error() is None:
                found[message.partition()].append(message.value())
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ends.add(message.partition())
    finally:
        consumer.close()
    return found


def read_kafka_python(
    bootstrap: str, topic: str, partitions: int, committed: bool
) -> list[list[bytes]]:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        fetch_max_wait_ms=20,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    try:
        every = [TopicPartition(topic, number) for number in range(partitions)]
        ends = consumer.end_offsets(every)
        consumer.assign(every)
        consumer.seek_to_beginning()
        found: list[list[bytes]] = [[] for _ in every]
        deadline = time.monotonic() + PATIENCE_S
        while any(consumer.position(one) < ends[one] for one in every):
            assert time.monotonic() < deadline, f"no end of {topic}: {ends}"
            for one, messages in consumer.poll(timeout_ms=50).items():
                found[one.partition].extend(message.value for message in messages)
    finally:
        consumer.close()
    return found


def read_aiokafka(
    bootstrap: str, topic: str, partitions: int, committed: bool
) -> list[list[bytes]]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    async def read() -> list[list[bytes]]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            fetch_max_wait_ms=20,
            isolation_level="read_committed" if committed else "read_uncommitted",
        )
        await consumer.start()
        try:
            every = [TopicPartition(topic, number) for number in range(partitions)]
            ends = await consumer.end_offsets(every)
            consumer.assign(every)
            await consumer.seek_to_beginning()
            found: list[list[bytes]] = [[] for _ in every]
            deadline = time.monotonic() + PATIENCE_S
            while any([await consumer.position(one) < ends[one] for one in every]):
                assert time.monotonic() < deadline, f"no end of {topic}: {ends}"
                for one, messages in (await consumer.getmany(timeout_ms=50)).items():
                    found[one.partition].extend(message.value for message in messages)
        finally:
            await consumer.stop()
        return found

    return asyncio.run(read())


READERS: dict[str, Callable[[str, str, int, bool], list[list[bytes]]]] = {
    "confluent-kafka": read_confluent,
    "kafka-python": read_kafka_python,
    "aiokafka": read_aiokafka,
}
