"""One producer, ten consumers, all of them librdkafka's: each record is read ten times.

Owns those clients, of this process, and when a record counts: once all ten have it. Needs the
package confluent-kafka.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ottla.bench import pump
from ottla.bench.librdkafka import producer_of
from ottla.bench.shapes import SENT_BYTES_MAX

if TYPE_CHECKING:
    from confluent_kafka import Consumer

CONSUMERS = 10
_PARTITIONS = 4
_AT_ONCE = 500
_PER_TURN = 64
_AHEAD_MAX = 4000
_SLOW_S = 30.0


class _Reader:
    """A consumer in a thread, from the end of every partition on."""

    def __init__(self, address: tuple[str, int], topic: str, number: int) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer: Consumer = Consumer(
            {
                "bootstrap.servers": f"{address[0]}:{address[1]}",
                "group.id": f"fanout-{number}",
                "enable.auto.commit": False,
            }
        )
        ends = []
        for partition in range(_PARTITIONS):
            one = TopicPartition(topic, partition)
            one.offset = self._consumer.get_watermark_offsets(one, timeout=_SLOW_S)[1]
            ends.append(one)
        self._consumer.assign(ends)
        self.count = 0
        self.latencies: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.is_set():
            messages = self._consumer.consume(_AT_ONCE, timeout=0.1)
            if messages:
                self.count += len(messages)
                self.latencies.append(time.time() - messages[-1].timestamp()[1] / 1e3)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()


def run(
    address: tuple[str, int], topic: str, acks: int, seconds: float, value_bytes: int
) -> pump.Measured:
    """Produce until the time is over and all have been read by all. Raises LoadFailed.

    A latency is from a record's `produce` to its being in a consumer's hands, for the last record
    of each of its polls.
    """
    producer = producer_of(address, acks)
    readers: list[_Reader] = []
    try:
        while len(readers) < CONSUMERS:
            readers.append(_Reader(address, topic, len(readers)))
        value, sent = bytes(i * 7 % 251 for i in range(value_bytes)), 0
        begun, cpu_begun = time.perf_counter(), time.process_time()
        while time.perf_counter() - begun < seconds and sent * value_bytes < SENT_BYTES_MAX:
            for _ in range(_PER_TURN):
                producer.produce(topic, value, partition=sent % _PARTITIONS)
                sent += 1
            producer.poll(0)
            # A producer that runs ahead of its readers would measure how long a queue can get.
            while sent - min(reader.count for reader in readers) > _AHEAD_MAX:
                producer.poll(0.001)
                _still_in_time(begun)
        if left := producer.flush(_SLOW_S):
            raise pump.LoadFailed(f"{left} messages were not answered")
        while min(reader.count for reader in readers) < sent:
            time.sleep(0.001)
            _still_in_time(begun)
        took, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
    finally:
        for reader in readers:
            reader.close()
    return pump.Measured(
        answers=sent,
        bytes_in=sent * value_bytes * CONSUMERS,
        bytes_out=sent * value_bytes,
        seconds=took,
        latencies=sorted(latency for reader in readers for latency in reader.latencies),
        client_cpu_s=cpu_s,
    )


def _still_in_time(begun: float) -> None:
    if time.perf_counter() - begun > _SLOW_S * 2:
        raise pump.LoadFailed("the consumers do not get what was produced")
