"""What consumers of the classic protocol put into its opaque bytes: subscriptions, assignments.

Owns their way from and to bytes, for groups in which both protocols meet; a group that is all
classic never needs it. Source: ConsumerProtocolSubscription and ConsumerProtocolAssignment of
Apache Kafka's clients. A later version than is known is read as the last one known.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct as Packing
from typing import TypeVar

from ottla.protocol import schema as t
from ottla.protocol.codec import CodecError, decoder, encoder

VERSION_LAST = 3
_VERSION = Packing(">h")

M = TypeVar("M", bound=t.Message)


class OwnedPartitions(t.Struct):
    topic: str = t.string()
    partitions: list[int] = t.array(t.int32)


class ConsumerProtocolSubscription(
    t.Message, key=-1, kind="data", versions=(0, VERSION_LAST), flexible=None
):
    topics: list[str] = t.array(t.string)
    user_data: bytes | None = t.bytestring(default=None, null_since=0)
    owned_partitions: list[OwnedPartitions] = t.array(OwnedPartitions, since=1)
    generation_id: int = t.int32(default=-1, since=2)
    rack_id: str | None = t.string(default=None, since=3, null_since=3)


class AssignedPartitions(t.Struct):
    topic: str = t.string()
    partitions: list[int] = t.array(t.int32)


class ConsumerProtocolAssignment(
    t.Message, key=-1, kind="data", versions=(0, VERSION_LAST), flexible=None
):
    assigned_partitions: list[AssignedPartitions] = t.array(AssignedPartitions)
    user_data: bytes | None = t.bytestring(default=None, null_since=0)


def read_subscription(data: bytes) -> ConsumerProtocolSubscription | None:
    """None where the bytes are something else."""
    return _read(ConsumerProtocolSubscription, data)


def read_assignment(data: bytes) -> ConsumerProtocolAssignment | None:
    """None where the bytes are something else; no bytes are no partitions."""
    return _read(ConsumerProtocolAssignment, data) if data else ConsumerProtocolAssignment()


def _read(kind: type[M], data: bytes) -> M | None:
    version = version_of(data)
    if version < 0:
        return None
    try:
        return decoder(kind, version)(memoryview(data), _VERSION.size)[0]
    except CodecError:
        return None


def version_of(data: bytes) -> int:
    """The version of such bytes, as far as it is known; -1 where there is none."""
    if len(data) < _VERSION.size:
        return -1
    (version,) = _VERSION.unpack_from(data)
    return min(int(version), VERSION_LAST)


def write_assignment(partitions: Iterable[tuple[str, Iterable[int]]], version: int) -> bytes:
    """(topic, partitions) as the bytes that SyncGroup answers."""
    message = ConsumerProtocolAssignment(
        assigned_partitions=[
            AssignedPartitions(topic=topic, partitions=sorted(numbers))
            for topic, numbers in partitions
        ]
    )
    version = max(version, 0)
    chunks = encoder(ConsumerProtocolAssignment, version)(message)
    return _VERSION.pack(version) + b"".join(bytes(chunk) for chunk in chunks)  # type: ignore[arg-type]  # no slices in it
