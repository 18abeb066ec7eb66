"""The load as librdkafka makes it: messages of 1 KiB, which it gathers into batches for 5 ms.

Owns that one producer, of this process. Needs the package confluent-kafka; without it every load
fails with that sentence.
"""

from __future__ import annotations

import time

from ottla.bench import pump
from ottla.bench.shapes import SENT_BYTES_MAX

VALUE_BYTES = 1024
_LINGER_MS = 5
_CHECK_EVERY = 256  # messages between two looks at the clock
_FLUSH_S = 30
_MESSAGES_MAX = SENT_BYTES_MAX // VALUE_BYTES


def run(address: tuple[str, int], topic: str, acks: int, seconds: float) -> pump.Measured:
    """Produce until the time is over, then wait for what is on the way. Raises LoadFailed."""
    try:
        from confluent_kafka import Producer
    except ImportError:
        raise pump.LoadFailed("needs confluent-kafka: pip install 'ottla[client]'") from None
    failures: list[str] = []

    def told(error: object, _message: object) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": f"{address[0]}:{address[1]}",
            "linger.ms": _LINGER_MS,
            "acks": acks,
            "queue.buffering.max.messages": 100_000,
        }
    )
    value = bytes(i * 7 % 251 for i in range(VALUE_BYTES))
    producer.list_topics(topic, timeout=_FLUSH_S)
    begun, cpu_begun, sent = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds and sent < _MESSAGES_MAX:
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
        bytes_out=sent * VALUE_BYTES,
        seconds=time.perf_counter() - begun,
        latencies=[],
        client_cpu_s=time.process_time() - cpu_begun,
    )
