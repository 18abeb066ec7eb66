"""The records of __consumer_offsets, in Apache Kafka 4.3.1's own formats.

Owns their declarations, which version of each is written, and the way between entries and bytes.
Must not know what an entry means. Source: the message definitions of Kafka's group coordinator.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct as Packing
from typing import TypeAlias

from ottla.coordinator.decision import Brief, Entry
from ottla.coordinator.entries.versioned import (
    decode_key,
    decode_value,
    encode_key,
    encode_value,
    kind_of,
)
from ottla.protocol import schema as t
from ottla.protocol.primitives import write_uvarint

# --- offsets -------------------------------------------------------------------------------


class LegacyOffsetCommitKey(t.Message, key=0, kind="key", versions=(0, 0), flexible=None):
    group: str = t.string()
    topic: str = t.string()
    partition: int = t.int32()


class OffsetCommitKey(t.Message, key=1, kind="key", versions=(0, 0), flexible=None):
    group: str = t.string()
    topic: str = t.string()
    partition: int = t.int32()


class OffsetCommitValue(t.Message, key=1, kind="value", versions=(0, 4), flexible=4):
    """Written in version 4; in 3 where the topic's id is not known, and in 1 with an expiry."""

    offset: int = t.int64()
    leader_epoch: int = t.int32(default=-1, since=3)
    metadata: str = t.string()
    commit_timestamp: int = t.int64()
    expire_timestamp: int = t.int64(default=-1, since=1, until=1)
    topic_id: bytes = t.uuid(since=4, tag=0)


# --- classic groups ------------------------------------------------------------------------


class GroupMetadataKey(t.Message, key=2, kind="key", versions=(0, 0), flexible=None):
    group: str = t.string()


class MemberMetadata(t.Struct):
    member_id: str = t.string()
    group_instance_id: str | None = t.string(default=None, since=3, null_since=3)
    client_id: str = t.string()
    client_host: str = t.string()
    rebalance_timeout: int = t.int32(default=-1, since=1)
    session_timeout: int = t.int32()
    subscription: bytes = t.bytestring()
    assignment: bytes = t.bytestring()


class GroupMetadataValue(t.Message, key=2, kind="value", versions=(0, 4), flexible=4):
    protocol_type: str = t.string()
    generation: int = t.int32()
    protocol: str | None = t.string(null_since=0)
    leader: str | None = t.string(null_since=0)
    current_state_timestamp: int = t.int64(default=-1, since=2)
    members: list[MemberMetadata] = t.array(MemberMetadata)


# --- consumer groups (KIP-848) -------------------------------------------------------------


class ConsumerGroupMetadataKey(t.Message, key=3, kind="key", versions=(0, 0), flexible=None):
    group_id: str = t.string()


class ConsumerGroupMetadataValue(t.Message, key=3, kind="value", versions=(0, 0), flexible=0):
    epoch: int = t.int32()
    metadata_hash: int = t.int64(tag=0)


class ConsumerGroupPartitionMetadataKey(
    t.Message, key=4, kind="key", versions=(0, 0), flexible=None
):
    group_id: str = t.string()


class PartitionMetadata(t.Struct):
    partition: int = t.int32()
    racks: list[str] = t.array(t.string)


class TopicMetadata(t.Struct):
    topic_id: bytes = t.uuid()
    topic_name: str = t.string()
    num_partitions: int = t.int32()
    partition_metadata: list[PartitionMetadata] = t.array(PartitionMetadata)


class ConsumerGroupPartitionMetadataValue(
    t.Message, key=4, kind="value", versions=(0, 0), flexible=0
):
    topics: list[TopicMetadata] = t.array(TopicMetadata)


class ConsumerGroupMemberMetadataKey(t.Message, key=5, kind="key", versions=(0, 0), flexible=None):
    group_id: str = t.string()
    member_id: str = t.string()


class ClassicProtocol(t.Struct):
    name: str = t.string()
    metadata: bytes = t.bytestring()


class ClassicMemberMetadata(t.Struct):
    session_timeout_ms: int = t.int32()
    supported_protocols: list[ClassicProtocol] = t.array(ClassicProtocol)


class ConsumerGroupMemberMetadataValue(t.Message, key=5, kind="value", versions=(0, 0), flexible=0):
    instance_id: str | None = t.string(null_since=0)
    rack_id: str | None = t.string(null_since=0)
    client_id: str = t.string()
    client_host: str = t.string()
    subscribed_topic_names: list[str] = t.array(t.string)
    subscribed_topic_regex: str | None = t.string(null_since=0)
    rebalance_timeout_ms: int = t.int32(default=-1)
    server_assignor: str | None = t.string(null_since=0)
    classic_member_metadata: ClassicMemberMetadata | None = t.nullable_struct(
        ClassicMemberMetadata, null_since=0, tag=0
    )


class ConsumerGroupTargetAssignmentMetadataKey(
    t.Message, key=6, kind="key", versions=(0, 0), flexible=None
):
    group_id: str = t.string()


class ConsumerGroupTargetAssignmentMetadataValue(
    t.Message, key=6, kind="value", versions=(0, 0), flexible=0
):
    assignment_epoch: int = t.int32()
    assignment_timestamp: int = t.int64(tag=0)


class ConsumerGroupTargetAssignmentMemberKey(
    t.Message, key=7, kind="key", versions=(0, 0), flexible=None
):
    group_id: str = t.string()
    member_id: str = t.string()


class TargetTopicPartition(t.Struct):
    topic_id: bytes = t.uuid()
    partitions: list[int] = t.array(t.int32)


class ConsumerGroupTargetAssignmentMemberValue(
    t.Message, key=7, kind="value", versions=(0, 0), flexible=0
):
    topic_partitions: list[TargetTopicPartition] = t.array(TargetTopicPartition)


class ConsumerGroupCurrentMemberAssignmentKey(
    t.Message, key=8, kind="key", versions=(0, 0), flexible=None
):
    group_id: str = t.string()
    member_id: str = t.string()


class AssignedTopicPartitions(t.Struct):
    topic_id: bytes = t.uuid()
    partitions: list[int] = t.array(t.int32)
    assignment_epochs: list[int] | None = t.array(t.int32, default=None, null_since=0, tag=0)


class ConsumerGroupCurrentMemberAssignmentValue(
    t.Message, key=8, kind="value", versions=(0, 0), flexible=0
):
    member_epoch: int = t.int32()
    previous_member_epoch: int = t.int32()
    state: int = t.int8()
    assigned_partitions: list[AssignedTopicPartitions] = t.array(AssignedTopicPartitions)
    partitions_pending_revocation: list[AssignedTopicPartitions] = t.array(AssignedTopicPartitions)


class ConsumerGroupRegularExpressionKey(
    t.Message, key=16, kind="key", versions=(0, 0), flexible=None
):
    group_id: str = t.string()
    regular_expression: str = t.string()


class ConsumerGroupRegularExpressionValue(
    t.Message, key=16, kind="value", versions=(0, 0), flexible=0
):
    topics: list[str] = t.array(t.string)
    version: int = t.int64()
    timestamp: int = t.int64()


# --- entries and bytes ---------------------------------------------------------------------

_KINDS: dict[type[t.Message], type[t.Message]] = {
    LegacyOffsetCommitKey: OffsetCommitValue,
    OffsetCommitKey: OffsetCommitValue,
    GroupMetadataKey: GroupMetadataValue,
    ConsumerGroupMetadataKey: ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey: ConsumerGroupPartitionMetadataValue,
    ConsumerGroupMemberMetadataKey: ConsumerGroupMemberMetadataValue,
    ConsumerGroupTargetAssignmentMetadataKey: ConsumerGroupTargetAssignmentMetadataValue,
    ConsumerGroupTargetAssignmentMemberKey: ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupCurrentMemberAssignmentKey: ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupRegularExpressionKey: ConsumerGroupRegularExpressionValue,
}
_KEYS = {key.KEY: key for key in _KINDS}

_WITH_EXPIRY, _WITHOUT_TOPIC_ID = 1, 3
_WRITTEN = {OffsetCommitValue: 4, GroupMetadataValue: 3}
"""Versions that Kafka 4.3.1 writes; 0 of all others."""


_LONG = 256
"""Characters of a group's id above which its keys are not remembered: it may have 32,767."""

BriefCommit: TypeAlias = tuple[int, int, str, int, int, bytes]
"""What an OffsetCommitValue says, in its order: a committed offset as it is kept."""


class CommitPlace(Brief):
    """An OffsetCommitKey that has been bytes before. Its entry's value is a BriefCommit, without a
    text and without an expiry."""

    __slots__ = ("group", "partition", "topic")

    def __init__(self, group: str, topic: str, partition: int) -> None:
        super().__init__(encode_key(OffsetCommitKey(group=group, topic=topic, partition=partition)))
        self.group = group
        self.topic = topic
        self.partition = partition


def encode_entry(entry: Entry) -> tuple[bytes, bytes | None]:
    """The key and the value of the record, None for a tombstone. Raises CodecError."""
    key, value = entry
    if isinstance(value, tuple):
        assert isinstance(key, CommitPlace), entry
        return key.packed, _brief(value)
    assert not isinstance(key, Brief), entry
    if isinstance(key, OffsetCommitKey):
        is_long = len(key.group) > _LONG
        written = encode_key(key) if is_long else _commit_key(key.group, key.topic, key.partition)
    else:
        written = encode_key(key)
    if value is None:
        return written, None
    version = _WRITTEN.get(type(value), 0)
    if isinstance(value, OffsetCommitValue):
        if value.expire_timestamp >= 0:
            version = _WITH_EXPIRY
        elif value.topic_id == t.NO_UUID:
            version = _WITHOUT_TOPIC_ID
        else:
            return written, _usual_commit(value)
    return written, encode_value(value, version)


@lru_cache(maxsize=1024)  # who commits does so again and again
def _commit_key(group: str, topic: str, partition: int) -> bytes:
    return encode_key(OffsetCommitKey(group=group, topic=topic, partition=partition))


def decode_entry(key: bytes, value: bytes | None) -> Entry | None:
    """The entry, or None of a kind that is not known: Kafka passes those over, too.

    Raises CodecError where the bytes are not what their key says.
    """
    kind = _KEYS.get(kind_of(key))
    if kind is None:
        return None
    if kind is OffsetCommitKey and value is not None:
        commit = _commit(key, value)
        if commit is not None:
            return commit
    name = decode_key(kind, key)
    return Entry(name, None if value is None else decode_value(_KINDS[kind], value))


_COMMIT_HEAD = Packing(">hqi")
_COMMIT_TAIL = Packing(">q3s16s")
_TOPIC_ID_TAG = b"\x01\x00\x10"  # one tag, number 0, 16 bytes
_pack_brief = Packing(">hqiBq3s16s").pack


def _brief(value: BriefCommit) -> bytes:
    """As `_usual_commit`, without a text."""
    offset, leader_epoch, _, timestamp, _, topic_id = value
    return _pack_brief(4, offset, leader_epoch, 1, timestamp, _TOPIC_ID_TAG, topic_id)


def _usual_commit(value: OffsetCommitValue) -> bytes:
    """What the compiled encoder makes of version 4, by hand: it is done for each commit."""
    metadata = value.metadata.encode()
    return b"".join(
        (
            _COMMIT_HEAD.pack(4, value.offset, value.leader_epoch),
            write_uvarint(len(metadata) + 1),
            metadata,
            _COMMIT_TAIL.pack(value.commit_timestamp, _TOPIC_ID_TAG, value.topic_id),
        )
    )


def _commit(key: bytes, value: bytes) -> Entry | None:
    """A committed offset as we and Kafka 4.3.1 write it; None if it is written in another way.

    There are as many of these as commits since the last compaction, and a start reads them all:
    by hand it takes a third of the time.
    """
    group_end = 4 + (key[2] << 8 | key[3]) if len(key) > 4 else len(key)
    topic_at = group_end + 2
    if len(key) < topic_at + 4 or len(value) < _COMMIT_HEAD.size + 1 + _COMMIT_TAIL.size:
        return None
    topic_end = topic_at + (key[group_end] << 8 | key[group_end + 1])
    version, offset, leader_epoch = _COMMIT_HEAD.unpack_from(value)
    metadata_at = _COMMIT_HEAD.size + 1
    tail_at = metadata_at + value[metadata_at - 1] - 1
    if version != 4 or topic_end + 4 != len(key) or tail_at + _COMMIT_TAIL.size != len(value):
        return None
    timestamp, tag, topic_id = _COMMIT_TAIL.unpack_from(value, tail_at)
    # A metadata length past 127 takes two bytes; its first one is then 128 or more.
    if tag != _TOPIC_ID_TAG or value[metadata_at - 1] > 0x7F:
        return None
    try:
        group, topic = key[4:group_end].decode(), key[topic_at:topic_end].decode()
        metadata = value[metadata_at:tail_at].decode()
    except UnicodeDecodeError:
        return None
    partition = int.from_bytes(key[topic_end:], "big", signed=True)
    return Entry(
        OffsetCommitKey(group=group, topic=topic, partition=partition),
        OffsetCommitValue(
            offset=offset,
            leader_epoch=leader_epoch,
            metadata=metadata,
            commit_timestamp=timestamp,
            topic_id=topic_id,
        ),
    )
