"""Produce and Fetch as a client would ask them of a simulated node, with as little as can be said.

Owns short forms of requests, batches and answers. Must not judge an answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ottla.protocol.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from ottla.records.batch import BatchView
from ottla.records.builder import NO_PRODUCER, Producer, build_batch
from ottla.records.reader import Record, pairs_of
from ottla.testing.simnode import Call, SimNode

NOW_MS = 1_700_000_000_000


def ask(node: SimNode, body: Any, version: int) -> Any:
    """The answer to one request over a connection of its own."""
    connection = node.connect()
    answer = node.answer(connection.ask(body, version))
    connection.close()
    return answer


def batch(*values: bytes, producer: Producer = NO_PRODUCER, timestamp: int = NOW_MS, **more: Any):
    """A batch of records without keys, one for each value."""
    records = [Record(None, value, timestamp) for value in values]
    return build_batch(records, producer=producer, **more)


def produce(
    parts: dict[tuple[str, int], bytes | None], acks: int = -1, timeout_ms: int = 30_000
) -> ProduceRequest:
    """A request by name; topics in order of first mention."""
    topics: dict[str, list[PartitionProduceData]] = {}
    for (topic, number), records in parts.items():
        topics.setdefault(topic, []).append(PartitionProduceData(index=number, records=records))
    return ProduceRequest(
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[TopicProduceData(name=t, partition_data=p) for t, p in topics.items()],
    )


def produced(call: Call) -> PartitionProduceResponse:
    """The one partition of an answer to Produce."""
    ((part,),) = (topic.partition_responses for topic in call.answer.responses)
    return part


def put(
    node: SimNode,
    records: bytes | None,
    acks: int = -1,
    *,
    topic: str = "t",
    partition: int = 0,
    version: int = 9,
) -> PartitionProduceResponse:
    """Produce one batch and wait for the answer."""
    connection = node.connect()
    call = connection.ask(produce({(topic, partition): records}, acks), version)
    node.settle()
    connection.close()
    return produced(call)


class Want(NamedTuple):
    """One partition of a fetch."""

    offset: int = 0
    topic: str | bytes = "t"
    """By name or, from version 13 on, by id."""
    partition: int = 0
    bytes_max: int = 1 << 20
    epoch: int = -1
    fetched_epoch: int = -1


def fetch(
    *wants: Want,
    session: tuple[int, int] = (0, -1),
    forget: tuple[Want, ...] = (),
    **more: Any,
) -> FetchRequest:
    """A fetch that does not wait, unless told to; `session` is (id, epoch)."""
    topics: dict[str | bytes, list[FetchPartition]] = {}
    for want in wants:
        part = FetchPartition(
            partition=want.partition,
            current_leader_epoch=want.epoch,
            fetch_offset=want.offset,
            last_fetched_epoch=want.fetched_epoch,
            partition_max_bytes=want.bytes_max,
        )
        topics.setdefault(want.topic, []).append(part)
    return FetchRequest(
        **{"max_wait_ms": 0, "min_bytes": 1, **more},
        session_id=session[0],
        session_epoch=session[1],
        topics=[FetchTopic(**_named(t), partitions=parts) for t, parts in topics.items()],
        forgotten_topics_data=[
            ForgottenTopic(**_named(w.topic), partitions=[w.partition]) for w in forget
        ],
    )


def _named(topic: str | bytes) -> dict[str, Any]:
    return {"topic": topic} if isinstance(topic, str) else {"topic_id": topic}


def fetched(call: Call) -> list[PartitionData]:
    """Every partition of an answer to Fetch, in its order."""
    return [part for topic in call.answer.responses for part in topic.partitions]


def get(node: SimNode, want: Want | None = None, version: int = 12, **more: Any) -> PartitionData:
    """Fetch one partition and wait for the answer."""
    connection = node.connect()
    call = connection.ask(fetch(want or Want(), **more), version)
    node.settle()
    connection.close()
    (part,) = fetched(call)
    return part


def batches(part: PartitionData) -> list[BatchView]:
    """The batches that came; each must be whole."""
    raw = memoryview(bytes(part.records))
    found = []
    at = 0
    while at < len(raw):
        found.append(BatchView(raw, at))
        at += found[-1].length
    assert at == len(raw), "a batch was cut"
    return found


def stored(raw: bytes) -> bytes:
    """What of a batch stays as it was sent: all but base offset and leader epoch."""
    return raw[8:12] + raw[16:]


def committed_values(node: SimNode, topic: str = "t", partition: int = 0) -> list[bytes]:
    """Every value under read_committed, as a consumer sorts out what it was sent."""
    want = Want(0, topic, partition, bytes_max=1 << 24)
    part = get(node, want, isolation_level=1, max_bytes=1 << 24)
    aborted = sorted((one.first_offset, one.producer_id) for one in part.aborted_transactions or ())
    skipped: set[int] = set()
    found: list[bytes] = []
    for one in batches(part):
        while aborted and aborted[0][0] <= one.base_offset:
            skipped.add(aborted.pop(0)[1])
        if one.is_control:
            skipped.discard(one.producer_id)
        elif one.producer_id not in skipped or not one.is_transactional:
            found += [value or b"" for _, value in pairs_of(one)]
    return found
