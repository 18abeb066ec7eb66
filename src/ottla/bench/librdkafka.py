"""The load as librdkafka makes it: messages that it gathers into batches for 5 ms.

Owns that one producer, of this process. Needs the package confluent-kafka; without it every load
fails with that sentence.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ottla.bench import pump
from ottla.bench.shapes import SENT_BYTES_MAX

if TYPE_CHECKING:
    from confluent_kafka import Message, Producer

_LINGER_MS = 5
_CHECK_EVERY = 256  # messages between two looks at the clock
_FLUSH_S = 30
_LATENCY_EVERY = 8  # messages of which one's latency is kept


def producer_of(address: tuple[str, int], acks: int) -> Producer:
    """Raises LoadFailed where the client is not installed."""
    try:
        from confluent_kafka import Producer
    except ImportError:
        raise pump.LoadFailed("needs confluent-kafka: pip install 'ottla[client]'") from None
    return Producer(
        {
            "bootstrap.servers": f"{address[0]}:{address[1]}",
            "linger.ms": _LINGER_MS,
            "acks": acks,
            "queue.buffering.max.messages": 100_000,
        }
    )


def run(
    address: tuple[str, int], topic: str, acks: int, seconds: float, value_bytes: int
) -> pump.Measured:
    """Produce until the time is over, then wait for what is on the way. Raises LoadFailed.

    A message's latency is from its `produce` to its acknowledgement, the wait for others included.
    """
    failures: list[str] = []
    latencies: list[float] = []
    messages_max, told_count = SENT_BYTES_MAX // value_bytes, 0

    def told(error: object, message: Message) -> None:
        nonlocal told_count
        told_count += 1
        if error is not None:
            failures.append(str(error))
        elif told_count % _LATENCY_EVERY == 0:
            latencies.append(message.latency() or 0.0)

    producer = producer_of(address, acks)
    value = bytes(i * 7 % 251 for i in range(value_bytes))
    producer.list_topics(topic, timeout=_FLUSH_S)
    begun, cpu_begun, sent = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds and sent < messages_max:
        for _ in range(_CHECK_EVERY):
            try:
                producer.produce(topic, value, partition=sent & 3, on_delivery=told)
            except BufferError:
                producer.poll(0.01)
                break
            sent += 1
        producer.poll(0)
    left = producer.flush(_FLUSH_S)
    if left or failures:
        raise pump.LoadFailed(failures[0] if failures else f"{left} messages were not answered")
    return pump.Measured(
        answers=sent,
        bytes_in=0,
        bytes_out=sent * value_bytes,
        seconds=time.perf_counter() - begun,
        latencies=sorted(latencies),
        client_cpu_s=time.process_time() - cpu_begun,
    )
