"""Entries of __consumer_offsets: bytes as Apache Kafka 4.3.1 writes them, and back."""

from __future__ import annotations

import pytest

from ottla.coordinator.decision import Entry
from ottla.coordinator.entries import offsets_topic as entries
from ottla.coordinator.entries.offsets_topic import decode_entry, encode_entry
from ottla.protocol.codec import CodecError, encoder

TOPIC_ID = bytes(range(16))

EVERY_KIND = [
    Entry(
        entries.OffsetCommitKey(group="g", topic="t", partition=3),
        entries.OffsetCommitValue(offset=7, metadata="m", commit_timestamp=5, topic_id=TOPIC_ID),
    ),
    Entry(
        entries.OffsetCommitKey(group="g", topic="t", partition=3),
        entries.OffsetCommitValue(offset=7, leader_epoch=2, metadata="", commit_timestamp=5),
    ),
    Entry(
        entries.OffsetCommitKey(group="ä" * 100, topic="", partition=-1),
        entries.OffsetCommitValue(
            offset=-(2**63), metadata="é" * 4096, commit_timestamp=2**40, topic_id=TOPIC_ID
        ),
    ),
    Entry(
        entries.GroupMetadataKey(group="g"),
        entries.GroupMetadataValue(
            protocol_type="consumer",
            generation=3,
            protocol="range",
            leader="m",
            current_state_timestamp=9,
            members=[
                entries.MemberMetadata(
                    member_id="m",
                    client_id="c",
                    client_host="/127.0.0.1",
                    rebalance_timeout=5,
                    session_timeout=6,
                    subscription=b"s",
                    assignment=b"a",
                )
            ],
        ),
    ),
    Entry(
        entries.ConsumerGroupMetadataKey(group_id="g"),
        entries.ConsumerGroupMetadataValue(epoch=5, metadata_hash=-3),
    ),
    Entry(
        entries.ConsumerGroupMemberMetadataKey(group_id="g", member_id="m"),
        entries.ConsumerGroupMemberMetadataValue(
            client_id="c",
            client_host="h",
            subscribed_topic_names=["a", "b"],
            rebalance_timeout_ms=1,
            classic_member_metadata=entries.ClassicMemberMetadata(
                session_timeout_ms=3,
                supported_protocols=[entries.ClassicProtocol(name="range", metadata=b"x")],
            ),
        ),
    ),
    Entry(
        entries.ConsumerGroupTargetAssignmentMetadataKey(group_id="g"),
        entries.ConsumerGroupTargetAssignmentMetadataValue(
            assignment_epoch=5, assignment_timestamp=8
        ),
    ),
    Entry(
        entries.ConsumerGroupTargetAssignmentMemberKey(group_id="g", member_id="m"),
        entries.ConsumerGroupTargetAssignmentMemberValue(
            topic_partitions=[entries.TargetTopicPartition(topic_id=TOPIC_ID, partitions=[1, 2])]
        ),
    ),
    Entry(
        entries.ConsumerGroupCurrentMemberAssignmentKey(group_id="g", member_id="m"),
        entries.ConsumerGroupCurrentMemberAssignmentValue(
            member_epoch=3,
            previous_member_epoch=2,
            state=1,
            assigned_partitions=[
                entries.AssignedTopicPartitions(
                    topic_id=TOPIC_ID, partitions=[1], assignment_epochs=[3]
                ),
                entries.AssignedTopicPartitions(topic_id=TOPIC_ID, partitions=[2]),
            ],
        ),
    ),
    Entry(
        entries.ConsumerGroupRegularExpressionKey(group_id="g", regular_expression="a.*"),
        entries.ConsumerGroupRegularExpressionValue(topics=["a1"], version=4, timestamp=5),
    ),
    Entry(
        entries.OffsetCommitKey(group="g" * 1000, topic="t", partition=3),
        entries.OffsetCommitValue(offset=7, metadata="m", commit_timestamp=5, topic_id=TOPIC_ID),
    ),
]


@pytest.mark.parametrize(
    ("classic", "tagged"),
    [
        (None, "01000100"),
        (
            entries.ClassicMemberMetadata(
                session_timeout_ms=77,
                supported_protocols=[entries.ClassicProtocol(name="range", metadata=b"\1\2")],
            ),
            "010011010000004d020672616e67650301020000",
        ),
    ],
    ids=["of KIP-848", "of the classic protocol"],
)
def test_a_member_is_written_and_read_as_kafka_does(
    classic: entries.ClassicMemberMetadata | None, tagged: str
) -> None:
    written = bytes.fromhex("0000" + "01010263026802027401" + "00000005" + "01" + tagged)
    key = entries.ConsumerGroupMemberMetadataKey(group_id="g", member_id="m")
    value = entries.ConsumerGroupMemberMetadataValue(
        instance_id="",
        rack_id="",
        client_id="c",
        client_host="h",
        subscribed_topic_names=["t"],
        subscribed_topic_regex="",
        rebalance_timeout_ms=5,
        server_assignor="",
        classic_member_metadata=classic,
    )
    entry = Entry(key, value)
    assert encode_entry(entry)[1] == written
    assert decode_entry(encode_entry(entry)[0], written) == entry


@pytest.mark.parametrize("entry", EVERY_KIND, ids=lambda entry: type(entry.key).__name__)
def test_an_entry_and_its_tombstone_come_back_as_they_were(entry: Entry) -> None:
    assert decode_entry(*encode_entry(entry)) == entry
    gone = Entry(entry.key, None)
    key, value = encode_entry(gone)
    assert value is None
    assert decode_entry(key, value) == gone


@pytest.mark.parametrize("metadata", ["", "m", "é" * 62, "m" * 126, "m" * 127, "€" * 5_000])
@pytest.mark.parametrize("offset", [0, -1, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("leader_epoch", [-1, 0, 2**31 - 1])
def test_a_commit_is_written_as_the_codec_writes_it(
    metadata: str, offset: int, leader_epoch: int
) -> None:
    value = entries.OffsetCommitValue(
        offset=offset,
        leader_epoch=leader_epoch,
        metadata=metadata,
        commit_timestamp=2**40 + 7,
        topic_id=TOPIC_ID,
    )
    entry = Entry(entries.OffsetCommitKey(group="g", topic="t", partition=3), value)
    (content,) = encoder(entries.OffsetCommitValue, 4)(value)
    assert encode_entry(entry)[1] == b"\0\4" + bytes(content)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        # As read off the log of Apache Kafka 4.3.1: version 4 with the topic's id as tag 0.
        (
            {"offset": 42, "leader_epoch": 0, "metadata": "m", "topic_id": TOPIC_ID},
            "0004000000000000002a00000000026d0000000000000005010010" + TOPIC_ID.hex(),
        ),
        # Without an id it writes version 3, which is not flexible.
        (
            {"offset": 42, "metadata": "m"},
            "0003000000000000002affffffff00016d0000000000000005",
        ),
        # With a time of its own to expire, version 1.
        (
            {"offset": 42, "metadata": "", "expire_timestamp": 9, "topic_id": TOPIC_ID},
            "0001000000000000002a000000000000000000050000000000000009",
        ),
    ],
)
def test_an_offset_is_written_as_kafka_does(value: dict[str, object], written: str) -> None:
    key = entries.OffsetCommitKey(group="g", topic="top", partition=1)
    entry = Entry(key, entries.OffsetCommitValue(commit_timestamp=5, **value))
    assert encode_entry(entry) == (
        bytes.fromhex("00010001670003746f7000000001"),
        bytes.fromhex(written),
    )


def test_a_group_is_written_in_version_3() -> None:
    _, value = encode_entry(EVERY_KIND[3])
    assert value is not None
    assert value[:2] == b"\x00\x03"


def test_kinds_that_are_not_known_are_no_entry() -> None:
    for kind in (9, 10, 15, 17, -1):
        assert decode_entry(kind.to_bytes(2, "big", signed=True) + b"rest", b"\x00\x00") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"", None),
        (b"\x00", None),
        (b"\x00\x01\x00\x05g", b"\x00\x04"),
        (b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x00", b""),
        (b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x00", b"\x00\x05" + bytes(40)),
        (b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x00", b"\x00\x04" + bytes(11)),
        (b"\x00\x01\x00\x01\xff\x00\x01t\x00\x00\x00\x00", b"\x00\x03" + bytes(60)),
    ],
)
def test_bytes_that_are_not_what_their_key_says_are_an_error(key: bytes, value: bytes) -> None:
    with pytest.raises(CodecError):
        decode_entry(key, value)


def test_an_offset_that_is_written_in_another_way_is_read_all_the_same() -> None:
    """The short way of reading the common form must not take anything else for it."""
    key, value = encode_entry(EVERY_KIND[0])
    assert value is not None
    with_another_tag = value[:-19] + b"\x02" + value[-18:] + b"\x01\x02xy"
    assert decode_entry(key, with_another_tag) == EVERY_KIND[0]
    without_a_tag = value[:-19] + b"\x00"
    found = decode_entry(key, without_a_tag)
    assert found is not None
    assert isinstance(found.value, entries.OffsetCommitValue)
    assert found.value.topic_id == bytes(16)
