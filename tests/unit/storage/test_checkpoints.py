"""Kafka's small text files, as Kafka 4.3.1 writes them."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset, TopicPartition
from ottla.storage import checkpoints
from ottla.storage.checkpoints import MetaProperties


def test_an_offset_checkpoint_is_kafkas_with_a_row_for_the_checksum():
    raw = b"0\n2\nt 1 13128\nt 0 16872\n"
    offsets = {TopicPartition("t", 1): 13128, TopicPartition("t", 0): 16872}
    assert checkpoints.decode_offsets(raw) == offsets
    written = b"0\n3\nt 1 13128\nt 0 16872\n~checksum 0 1822806033\n"
    assert checkpoints.encode_offsets(offsets) == written
    assert checkpoints.decode_offsets(written) == offsets
    assert checkpoints.decode_offsets(written.replace(b"13128", b"13129")) is None


def test_what_indexes_of_aborted_transactions_are_like_is_believed_only_whole():
    seals = {TopicPartition("t", 1): {Offset(0): (2, 77), Offset(9): (1, 0)}}
    raw = checkpoints.encode_aborted_seals(seals)
    assert raw.startswith(b"0\n3\nt 1 0 2 77\nt 1 9 1 0\n~checksum 0 0 0 ")
    assert checkpoints.decode_aborted_seals(raw) == seals
    assert checkpoints.decode_aborted_seals(checkpoints.encode_aborted_seals({})) == {}
    for at in range(len(raw)):
        hurt = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        assert checkpoints.decode_aborted_seals(hurt) is None
        assert checkpoints.decode_aborted_seals(raw[:at]) is None
    assert checkpoints.decode_aborted_seals(None) is None


@pytest.mark.parametrize("raw", [b"", None])
def test_an_empty_offset_checkpoint_knows_nothing(raw):
    assert checkpoints.decode_offsets(raw) == {}


@pytest.mark.parametrize(
    "raw",
    [b"1\n0\n", b"0\n2\nt 1 5\n", b"0\n1\nt 1\n", b"0\n1\nt x 5\n", b"0\n1\nt 1 -5\n",
     b"0\n1\nt 1 5", b"\xff\n", b"0\n1\nt 1 99999999999999999999\n"],
)  # fmt: skip
def test_a_checkpoint_that_makes_no_sense_is_not_believed(raw):
    assert checkpoints.decode_offsets(raw) is None


def test_leader_epochs_are_kafkas():
    assert checkpoints.decode_epochs(b"0\n1\n0 0\n") == [(0, 0)]
    ours = checkpoints.encode_epochs([(0, 0), (2, 7)])
    assert b"\n".join(line.rstrip() for line in ours.splitlines()) == b"0\n2\n0 0\n2 7"
    assert checkpoints.encode_epochs([]) == b"0\n0\n"


def test_where_a_quarantine_begins_is_believed_only_whole():
    raw = checkpoints.encode_quarantine(Offset(120))
    assert checkpoints.decode_quarantine(raw) == 120
    for at in range(len(raw)):
        hurt = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        assert checkpoints.decode_quarantine(hurt) is None
        assert checkpoints.decode_quarantine(raw[:at]) is None


def test_leader_epochs_of_ours_are_believed_only_whole():
    ours = checkpoints.encode_epochs([(1, 0), (3, 70)])
    assert checkpoints.decode_epochs(ours) == [(1, 0), (3, 70)]
    for at in range(len(ours)):
        for bit in range(8):
            hurt = ours[:at] + bytes([ours[at] ^ 1 << bit]) + ours[at + 1 :]
            assert checkpoints.decode_epochs(hurt) is None, (at, bit)
        if at:
            assert checkpoints.decode_epochs(ours[:at]) is None


@pytest.mark.parametrize("rows", [b"1 0\n1 5\n", b"1 5\n2 5\n", b"2 0\n1 5\n"])
def test_leader_epochs_that_do_not_rise_are_not_believed(rows):
    assert checkpoints.decode_epochs(b"0\n2\n" + rows) is None


def test_partition_metadata_is_kafkas():
    raw = b"version: 0\ntopic_id: VYDyrQwmRIez94fBM7_PGA"
    topic_id = checkpoints.decode_partition_metadata(raw)
    assert topic_id is not None
    assert len(topic_id) == 16
    written = checkpoints.encode_partition_metadata(topic_id)
    assert written.startswith(raw + b"\n")
    assert checkpoints.decode_partition_metadata(written) == topic_id
    assert checkpoints.decode_partition_metadata(written.replace(b"VY", b"VZ")) is None


@pytest.mark.parametrize("raw", [None, b"", b"version: 1\ntopic_id: VYDyrQwmRIez94fBM7_PGA", b"x"])
def test_partition_metadata_that_makes_no_sense_names_no_topic(raw):
    assert checkpoints.decode_partition_metadata(raw) is None


def test_meta_properties_of_kafka_are_read():
    raw = b"#\n#Wed Nov 25\nnode.id=1\ndirectory.id=FdH\nversion=1\ncluster.id=o33\n"
    found = checkpoints.decode_meta_properties(raw)
    assert found == MetaProperties("o33", 1, "FdH")
    assert checkpoints.decode_meta_properties(found.encode()) == found
    assert checkpoints.decode_meta_properties(found.encode().replace(b"o33", b"o34")) is None


def test_the_clean_marker_is_kafkas():
    assert checkpoints.encode_clean_marker(11) == b'{"version":0,"brokerEpoch":11}'
    assert checkpoints.decode_clean_marker(b'{"version":0,"brokerEpoch":11}') == 11


@pytest.mark.parametrize("raw", [None, b"", b"{}", b"[]", b"{", b'{"version":1,"brokerEpoch":1}'])
def test_no_other_marker_counts_as_clean(raw):
    assert checkpoints.decode_clean_marker(raw) is None
