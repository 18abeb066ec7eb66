"""What members and committers send, and when a group has settled."""

import struct

import pytest

from ottla.bench import group_members, group_offsets, groups, pump
from ottla.protocol.codec import decoder, encoder
from ottla.protocol.frame import response_frame
from ottla.protocol.messages import consumer_group_heartbeat as cgh
from ottla.protocol.messages import heartbeat as hb
from ottla.protocol.messages import join_group as jg
from ottla.protocol.messages import offset_commit as oc
from ottla.protocol.messages import sync_group as sg


def joined(members=(), error=0):
    return jg.JoinGroupResponse(
        error_code=error,
        generation_id=3,
        protocol_name="range",
        leader="a",
        member_id="a",
        members=[jg.JoinGroupResponseMember(member_id=name, metadata=b"") for name in members],
    )


def test_a_commit_names_its_member_and_every_partition():
    frame = group_offsets.commit("g", "topic", [0, 7], ("member", 5))
    assert struct.unpack_from(">ihh", frame) == (len(frame) - 4, 8, 8)
    body = memoryview(frame)[4 + 8 + 2 + len("load") + 1 :]
    request, end = decoder(oc.OffsetCommitRequest, 8)(body, 0)
    assert end == len(body)
    assert (request.member_id, request.generation_id_or_member_epoch) == ("member", 5)
    assert [p.partition_index for p in request.topics[0].partitions] == [0, 7]


def test_the_error_of_a_commit_stands_where_the_client_looks():
    partition = oc.OffsetCommitResponsePartition(partition_index=3, error_code=25)
    topic = oc.OffsetCommitResponseTopic(name="topic", partitions=[partition])
    body = encoder(oc.OffsetCommitResponse, 8)(oc.OffsetCommitResponse(topics=[topic]))
    answer = b"".join(response_frame(1, True, body))
    assert struct.unpack_from(">h", answer, group_offsets.error_at("topic")) == (25,)


def test_a_leader_gives_each_member_one_partition():
    request = group_members.sync_request("g", "t", joined(["a", "b"]))
    assert [one.member_id for one in request.assignments] == ["a", "b"]
    assert request.assignments[1].assignment == struct.pack(">hih1siii", 0, 1, 1, b"t", 1, 1, -1)
    assert group_members.sync_request("g", "t", joined()).assignments == []


def test_a_group_has_settled_when_all_are_in_the_same_generation():
    gathering = group_members.Gathering(2)
    gathering.reached(0, 1)
    gathering.reached(1, 2)
    assert not gathering.settled
    gathering.reached(0, 2)
    assert gathering.settled
    gathering.left(1)
    assert not gathering.settled


def test_a_classic_member_joins_with_its_id_and_again_after_a_rebalance():
    gathering = group_members.Gathering(1)
    member = group_members.classic("g", "t", 0, gathering)
    assert member.send(None)[0].member_id == ""
    join, _, _ = member.send(joined(error=79))
    assert join.member_id == "a"
    sync, _, _ = member.send(joined(["a"]))
    assert sync.generation_id == 3
    assert not gathering.settled
    assert member.send(sg.SyncGroupResponse()) == group_members.HEARTBEAT_S
    assert gathering.settled
    beat, _, _ = member.send(None)
    assert isinstance(beat, hb.HeartbeatRequest)
    join, _, _ = member.send(hb.HeartbeatResponse(error_code=27))
    assert join.member_id == "a"
    assert not gathering.settled


def test_a_classic_member_that_is_refused_ends_the_measurement():
    member = group_members.classic("g", "t", 0, group_members.Gathering(1))
    member.send(None)
    with pytest.raises(pump.LoadFailed, match="GROUP_MAX_SIZE_REACHED"):
        member.send(joined(error=81))


def test_a_consumer_member_confirms_its_part_at_once_and_then_keeps_the_interval():
    gathering = group_members.Gathering(1)
    member = group_members.consumer("g", "t", 0, gathering)
    assert member.send(None)[0].member_epoch == 0
    parts = [cgh.ResponseTopicPartitions(topic_id=bytes(16), partitions=[4])]
    answer = cgh.ConsumerGroupHeartbeatResponse(
        member_epoch=7,
        heartbeat_interval_ms=5000,
        assignment=cgh.Assignment(topic_partitions=parts),
    )
    confirming, _, _ = member.send(answer)
    assert confirming.member_epoch == 7
    assert confirming.topic_partitions[0].partitions == [4]
    assert not gathering.settled
    answer.assignment = None
    assert member.send(answer) == 5.0
    assert gathering.settled


def test_members_that_arrive_later_rest_first():
    way = group_members.Way("slow", group_members.classic, arrival_s=4.0)
    gathering = group_members.Gathering(2)
    assert [one.send(None) for one in way.programs("g", "t", gathering, 2)] == [0.0, 2.0]


def test_parts_are_measured_in_their_own_order_and_must_exist():
    assert groups.chosen([]) == list(groups.PARTS)
    assert groups.chosen(["loading", "first"]) == ["first", "loading"]
    with pytest.raises(ValueError, match="there are: first, commits, members, loading"):
        groups.chosen(["join"])
