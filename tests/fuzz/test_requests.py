"""Requests of every advertised version, bent at random, to a whole node without sockets.

Whatever arrives, an answer or a CodecError or PeerError is all that comes out, and memory taken
on the way is bounded by what was sent. A failure prints the seed and the frame that repeat it:
OTTLA_FUZZ_SEED=… repeats a run. OTTLA_SOAK=1 makes it long.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from importlib import import_module
from typing import Any

import pytest

from ottla.handlers.registry import APIS, Api
from ottla.protocol.codec import encoder
from ottla.protocol.frame import RequestHeader, request_frame
from ottla.protocol.schema import FIXED, Field, Struct
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record
from ottla.testing.simnode import SimNode

SOAK = os.environ.get("OTTLA_SOAK") == "1"
SEED = int(os.environ.get("OTTLA_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
CASES = 20_000 if SOAK else 400
"""Of each key; some of them are not bent at all."""

NODE_CASES = 250
"""After so many a new node, since the old one's topics may be gone by then."""

BYTES_MAX = 8 << 20
BYTES_EACH_MAX = 400
"""What a request may take for a while: so much, and so much for each of its bytes."""

LIMITS = {
    "max_partitions_per_topic": "20",
    "max_partitions_total": "100",
    "auto_create_topics_request_max": "3",
    "auto_create_topics_total_max": "20",
}
NAMES = ["t", "t", "compacted", "new", "", "../x", "__consumer_offsets", "x" * 300, "ä", "0", "a\0"]
SETTINGS = ["cleanup.policy", "retention.ms", "max.message.bytes", "record.validation"]
VALUES = ["compact", "delete", "1", "-1", "records", "", "9" * 30]
HINTS: dict[str, list[Any]] = {
    "acks": [-1, 0, 1],
    "config_operation": [0, 1, 2, 3],
    "count": [3, 4],
    "max_bytes": [1 << 20],
    "num_partitions": [1, 2, -1],
    "partition_max_bytes": [1 << 20],
    "replication_factor": [1, -1],
    "resource_type": [2, 4],
    "session_epoch": [0, -1, 1],
    "timeout_ms": [0, 1000],
    "timestamp": [-1, -2, -3, 1_700_000_000_000],
}
"""Numbers by a field's name with which a request gets further."""
SMALL = [0, 0, 0, 1, -1, 2, 3, 5]
EDGES = [0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF]


class Maker:
    """Makes messages that make sense here and there, and bends their bytes."""

    def __init__(self, rng: random.Random, topic_id: bytes) -> None:
        self.rng = rng
        self.topic_id = topic_id
        self.in_config = False

    def message(self, cls: type[Struct], version: int) -> Any:
        made = cls()
        self.in_config = cls.__name__.endswith("Config")
        for field in cls.FIELDS:
            if field.is_in(version) and (field.tag is None or self.rng.random() < 0.3):
                setattr(made, field.name, self._value(field, version))
        return made

    def bent(self, body: bytes) -> bytes:
        rng = self.rng
        out = bytearray(body)
        for _ in range(rng.choice([1, 1, 1, 1, 2, 4])):
            at = rng.randrange(len(out) + 1)
            kind = rng.choice([0, 0, 0, 0, 1, 1, 2, 3, 4, 5])
            if kind == 0 and at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            elif kind == 1 and at < len(out):
                out[at] = rng.choice(EDGES)
            elif kind == 2:
                del out[at:]
            elif kind == 3:
                out[at:at] = rng.randbytes(rng.choice([1, 2, 4, 8, 64]))
            elif kind == 4:
                del out[at : at + rng.choice([1, 2, 4, 8])]
            else:
                piece = rng.choice([b"\xff" * 5, b"\x7f\xff\xff\xff", b"\x80" * 9, b"\xff\xff"])
                out[at : at + len(piece)] = piece
        return bytes(out)

    def _value(self, field: Field, version: int) -> Any:
        if field.is_nullable(version) and self.rng.random() < 0.1:
            return None
        if field.is_array:
            count = self.rng.choice([0, 1, 1, 1, 2, 3])
            return [self._one(field, version) for _ in range(count)]
        return self._one(field, version)

    def _one(self, field: Field, version: int) -> Any:
        rng = self.rng
        kind = field.kind
        if kind == "struct":
            assert field.struct is not None
            return self.message(field.struct, version)
        if kind == "string":
            return self._text(field.name)
        if kind == "bytes":
            return rng.randbytes(rng.randrange(20))
        if kind == "records":
            return self._records()
        if kind == "boolean":
            return rng.random() < 0.5
        if kind == "uuid":
            return rng.choice([self.topic_id, self.topic_id, bytes(16), rng.randbytes(16)])
        if kind == "float64":
            return rng.choice([0.0, -1.0, float("inf"), float("nan"), 1e300])
        if field.name in HINTS and rng.random() < 0.8:
            return rng.choice(HINTS[field.name])
        return self._number(FIXED[kind])

    def _text(self, name: str) -> str:
        rng = self.rng
        if name == "value":
            return rng.choice(VALUES)
        if self.in_config:
            return rng.choice(SETTINGS)
        return rng.choice(NAMES) if rng.random() < 0.9 else f"new{rng.randrange(1000)}"

    def _number(self, letter: str) -> int:
        bits = {"b": 8, "h": 16, "H": 16, "i": 32, "I": 32, "q": 64}[letter]
        if letter.isupper():
            return self.rng.choice([0, 1, (1 << bits) - 1])
        if self.rng.random() < 0.8:
            return self.rng.choice(SMALL)
        return self.rng.choice(
            [(1 << bits - 1) - 1, -(1 << bits - 1), self.rng.getrandbits(bits - 1)]
        )

    def _records(self) -> bytes | None:
        rng = self.rng
        producer = Producer(rng.choice([-1, -1, 7]), rng.choice([0, 1]), rng.choice([0, 1, 2]))
        records = [
            Record(rng.choice([None, b"k"]), rng.randbytes(rng.randrange(40)), 1_700_000_000_000)
            for _ in range(rng.choice([1, 1, 3]))
        ]
        whole = build_batch(records, codec=rng.randrange(5), producer=producer)
        return rng.choice([whole, whole, whole, self.bent(whole), whole * 2, b"", None])


def a_node(seed: int) -> tuple[SimNode, bytes]:
    node = SimNode(seed, **LIMITS)
    topic_id = node.create_topic("t", 2)
    node.create_topic("compacted", 1, cleanup_policy="compact")
    return node, topic_id


def put(node: SimNode, frame: bytes) -> None:
    """One connection with one frame; time passes until it is answered, refused or waits long."""
    connection = node.connect()
    connection.stalled = True  # what it would read is not looked at
    connection.send(frame)
    node.settle()
    node.advance(1)
    if not connection.closed:
        connection.close()
    node.connections.remove(connection)
    node.settle()


@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])
def test_whatever_arrives_is_answered_or_refused(api: Api) -> None:
    rng = random.Random(f"{SEED}/{api.key}")
    cls = getattr(import_module(f"ottla.protocol.messages.{api.module}"), f"{api.name}Request")
    node, topic_id = a_node(SEED)
    maker = Maker(rng, topic_id)
    for case in range(CASES):
        if case % NODE_CASES == NODE_CASES - 1:
            node, maker.topic_id = a_node(SEED + case)
        version = rng.randint(api.accepted, api.highest)
        (body,) = encoder(cls, version)(maker.message(cls, version)) or (b"",)
        frame = request_frame(RequestHeader(api.key, version, case, "fuzz"), [bytes(body)])
        if rng.random() < 0.6:
            inner = maker.bent(frame[4:])
            frame = len(inner).to_bytes(4, "big") + inner
        tracemalloc.start()
        try:
            put(node, frame)
            peak = tracemalloc.get_traced_memory()[1]
        except BaseException:
            print(f"OTTLA_FUZZ_SEED={SEED}, case {case}: {frame.hex()}")
            raise
        finally:
            tracemalloc.stop()
        assert peak <= BYTES_MAX + BYTES_EACH_MAX * len(frame), f"seed {SEED}: {frame.hex()}"
