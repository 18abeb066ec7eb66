"""One question to a broker and its answer, decoded: for what is set up before a measurement.

Owns the topics and producer ids that measurements use. Must not be used while one runs: each
question takes a connection of its own.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from typing import TypeVar

from ottla.bench import pump, wire
from ottla.protocol.apis import FIRST_FLEXIBLE
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.protocol.messages import create_topics as ct
from ottla.protocol.messages import delete_topics as dt
from ottla.protocol.messages import init_producer_id as ip
from ottla.protocol.schema import Message

Address = tuple[str, int]
Answer = TypeVar("Answer", bound=Message)

_API_VERSIONS = 18
_NOT_YET = {3, 5, 6, 14, 15, 16}  # no topic yet, no leader yet, still loading
_TRIES, _REST_S = 200, 0.05


def frame(message: Message, version: int) -> bytes:
    """A whole request, its size included."""
    header = RequestHeader(message.KEY, version, 0, "load")
    # A request has no file slices, so its encoder gives bytes alone.
    body = [bytes(part) for part in encoder(type(message), version)(message)]  # type: ignore[arg-type]
    return request_frame(header, body)


def ask(address: Address, message: Message, version: int, kind: type[Answer]) -> Answer:
    """The decoded answer. Raises pump.LoadFailed, OSError."""
    answer = memoryview(pump.ask(address, frame(message, version)))
    flexible = FIRST_FLEXIBLE.get(message.KEY)
    tags = flexible is not None and version >= flexible and message.KEY != _API_VERSIONS
    return decoder(kind, version)(answer, 4 + tags)[0]


def create_topic(address: Address, name: str, partitions_count: int, **configs: str) -> None:
    """Make a topic, one replica each, with configs by Kafka's names, dots as underscores."""
    entries = [
        ct.CreatableTopicConfig(name=key.replace("_", "."), value=value)
        for key, value in configs.items()
    ]
    topic = ct.CreatableTopic(
        name=name, num_partitions=partitions_count, replication_factor=1, configs=entries
    )
    request = ct.CreateTopicsRequest(topics=[topic], timeout_ms=60_000)
    [result] = ask(address, request, 5, ct.CreateTopicsResponse).topics
    if result.error_code:
        raise pump.LoadFailed(f"the broker made no topic: {result.error_message}")


def delete_topic(address: Address, name: str) -> None:
    request = dt.DeleteTopicsRequest(topic_names=[name], timeout_ms=60_000)
    ask(address, request, 4, dt.DeleteTopicsResponse)


@contextlib.contextmanager
def new_topic(address: Address, partitions_count: int, **configs: str) -> Iterator[str]:
    """A topic that is gone afterwards."""
    name = f"load-{os.getpid():x}-{time.monotonic_ns():x}"
    create_topic(address, name, partitions_count, **configs)
    try:
        yield name
    finally:
        with contextlib.suppress(OSError, pump.LoadFailed):
            delete_topic(address, name)


def settle(address: Address, topic: str, request: bytes, error_at: int) -> None:
    """Send a request until it is answered: a broker may take its time to have a leader.

    `error_at` is where an answer has its error code, its size included.
    """
    error = 0
    for _ in range(_TRIES):
        answer = pump.ask(address, request)
        error = struct.unpack_from(">h", answer, error_at - 4)[0]
        if error not in _NOT_YET:
            break
        time.sleep(_REST_S)
    if error:
        raise pump.LoadFailed(f"a request about {topic} was answered with error {error}")


def producer_id(address: Address) -> tuple[int, int]:
    """A new id and its epoch, for an idempotent producer."""
    for _ in range(_TRIES):
        request = ip.InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        answer = ask(address, request, 2, ip.InitProducerIdResponse)
        if answer.error_code not in _NOT_YET:
            break
        time.sleep(_REST_S)
    if answer.error_code:
        raise pump.LoadFailed(f"the broker gives no producer id: error {answer.error_code}")
    return answer.producer_id, answer.producer_epoch


def until_ready(address: Address, topic: str, partitions_count: int) -> None:
    """Put one small record into every partition, so that each has a leader and files."""
    records = wire.batch(1, 100, int(time.time() * 1000))
    for partition in range(partitions_count):
        settle(
            address,
            topic,
            wire.produce(topic, partition, records, 1),
            wire.produce_error_at(topic),
        )
