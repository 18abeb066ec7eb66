"""What the codec costs: three messages, decoded or encoded in this process, without sockets.

Owns the messages and the timing. The least of some runs is the figure: noise only adds.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ottla.bench import wire
from ottla.bench.stats import Spread, number, spread
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.frame import decode_request_header
from ottla.protocol.messages import api_versions, metadata, produce

_RUN_S = 0.15

EXPLANATION = """\
µs of one message in this process, header of the request and frame not included. The least is the
figure to compare: what else the machine does can only add to it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds of one operation, and the most that its budget allows."""

    name: str
    budget_us: float
    found: Spread

    def as_json(self) -> dict[str, Any]:
        return {"what": self.name, "budget_us": self.budget_us, "us": self.found.as_json()}


def _produce_decode() -> Callable[[], object]:
    batch = wire.batch(160, 100, 1_700_000_000_000)
    view = memoryview(wire.produce("topic", 3, batch, 1))[4:]
    _, at = decode_request_header(view)
    decode = decoder(produce.ProduceRequest, 9)
    return lambda: decode(view, at)


def metadata_response(topics_count: int, partitions_count: int) -> metadata.MetadataResponse:
    """Of one broker that leads everything."""
    topics = [
        metadata.MetadataResponseTopic(
            name=f"topic-{number:03}",
            topic_id=number.to_bytes(16, "big"),
            partitions=[
                metadata.MetadataResponsePartition(
                    partition_index=index, leader_id=1, replica_nodes=[1], isr_nodes=[1]
                )
                for index in range(partitions_count)
            ],
        )
        for number in range(topics_count)
    ]
    broker = metadata.MetadataResponseBroker(node_id=1, host="127.0.0.1", port=9092)
    return metadata.MetadataResponse(brokers=[broker], cluster_id="c" * 22, topics=topics)


def _metadata_encode() -> Callable[[], object]:
    message, encode = metadata_response(100, 12), encoder(metadata.MetadataResponse, 12)
    return lambda: encode(message)


def _api_versions() -> Callable[[], object]:
    """A response of 60 APIs. The broker encodes it once and keeps that."""
    keys = [api_versions.ApiVersion(api_key=k, min_version=0, max_version=9) for k in range(60)]
    message = api_versions.ApiVersionsResponse(api_keys=keys)
    encode = encoder(api_versions.ApiVersionsResponse, 3)
    return lambda: encode(message)


CASES: tuple[tuple[str, float, Callable[[], Callable[[], object]]], ...] = (
    ("Produce 9, one 16 KiB batch: decode", 6.0, _produce_decode),
    ("Metadata 12, 100 topics × 12 partitions: encode", 2_000.0, _metadata_encode),
    ("ApiVersions 3, 60 keys: encode", 20.0, _api_versions),
)


def time_us(operation: Callable[[], object], seconds: float) -> float:
    """Microseconds of one call, over as many as fit into about `seconds`."""
    repeat, elapsed = 1, 0.0
    while elapsed < seconds / 4:
        repeat *= 2
        begun = time.perf_counter()
        for _ in range(repeat):
            operation()
        elapsed = time.perf_counter() - begun
    repeat = max(1, int(repeat * seconds / elapsed))
    begun = time.perf_counter()
    for _ in range(repeat):
        operation()
    return (time.perf_counter() - begun) / repeat * 1e6


def timings(rounds: int) -> list[Timing]:
    """Each case, in turn, `rounds` times; without a collection in between, as in `serve`."""
    operations = [make() for _, _, make in CASES]
    gc.disable()
    try:
        runs = [[time_us(operation, _RUN_S) for operation in operations] for _ in range(rounds)]
    finally:
        gc.enable()
    found = []
    for (name, budget_us, _), values in zip(CASES, zip(*runs, strict=True), strict=True):
        measured = spread(values)
        assert measured is not None
        found.append(Timing(name, budget_us, measured))
    return found


def rows(found: Sequence[Timing]) -> list[list[str]]:
    table = [["", "least µs", "median", "most", "budget", "met"]]
    for timing in found:
        measured = timing.found
        table.append(
            [
                timing.name,
                *(number(value) for value in (measured.least, measured.median, measured.most)),
                f"≤ {number(timing.budget_us)}",
                "yes" if measured.least <= timing.budget_us else "no",
            ]
        )
    return table
