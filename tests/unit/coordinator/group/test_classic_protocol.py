"""Classic groups: joining, syncing, staying and leaving, and what of it lasts."""

from __future__ import annotations

import pytest

from ottla.coordinator.group.listing import delete_group
from ottla.coordinator.group.shard import Commit, Member
from ottla.protocol.errors import ErrorCode as E
from tests.groups import GROUP, RANGE, REBALANCE_S, SESSION_S, World

BOTH = (("range", b"r"), ("sticky", b"s"))


@pytest.fixture
def world() -> World:
    return World()


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.group.timeline.events()]


# --- joining -----------------------------------------------------------------------------------


def test_the_first_member_leads_a_generation_at_once(world: World) -> None:
    member = world.promised()
    answer = world.join(member).result()
    assert (answer.generation_id, answer.leader) == (1, member)
    assert [one.member_id for one in answer.members] == [member]


def test_a_member_of_version_3_is_given_an_id_while_it_joins(world: World) -> None:
    answer = world.join(version=3).result()
    assert (answer.error_code, answer.member_id) == (E.NONE, "c-0001")


def test_version_0_has_the_session_timeout_for_rebalances(world: World) -> None:
    world.join(version=0, rebalance_timeout_ms=-1).result()
    assert world.group.members.rebalance_timeout_ms == SESSION_S * 1000


def test_a_promise_that_nobody_takes_up_is_forgotten_with_its_group(world: World) -> None:
    world.promised()
    world.loop.advance(SESSION_S + 0.1)
    assert GROUP not in world.shard.groups
    assert world.journal.batches == []


def test_h100_promises_are_capped() -> None:
    world = World(group_max_size="3")
    for _ in range(3):
        assert world.join().result().error_code == E.MEMBER_ID_REQUIRED
    assert world.join().result().error_code == E.GROUP_MAX_SIZE_REACHED


def test_h101_a_full_group_takes_nobody_else() -> None:
    world = World(group_max_size="2")
    world.stable(2)
    assert world.join(version=3).result().error_code == E.GROUP_MAX_SIZE_REACHED


def test_h101_a_node_that_has_enough_groups_begins_no_other() -> None:
    world = World(groups_max="1")
    world.stable()
    assert world.join(group_id="other").result().error_code == E.GROUP_MAX_SIZE_REACHED


def test_h106_a_member_that_says_too_much_is_refused() -> None:
    world = World(group_metadata_bytes_max="1024")
    answer = world.join(protocols=(("range", b"x" * 1100),)).result()
    assert answer.error_code == E.GROUP_MAX_SIZE_REACHED


def test_h106_an_assignment_too_large_for_a_record_sends_all_back_to_join(world: World) -> None:
    first, second = world.stable(2)
    again = [world.join(first, BOTH), world.join(second)]
    generation = again[0].result().generation_id
    waits = world.sync(second, generation)
    answer = world.sync(first, generation, {second: b"x" * (1 << 20)}).result()
    assert (answer.error_code, waits.result().error_code) == (E.UNKNOWN_SERVER_ERROR,) * 2
    assert world.state == "PreparingRebalance"


def test_h105_a_static_member_that_is_back_keeps_its_assignment_and_fences_its_former_self(
    world: World,
) -> None:
    former = world.join(group_instance_id="i").result()
    world.sync(former.member_id, 1, {former.member_id: b"p0"}, group_instance_id="i")
    back = world.join(group_instance_id="i").result()
    assert (back.generation_id, back.skip_assignment) == (1, True)
    beat = world.heartbeat(former.member_id, 1, "i").result()
    assert beat.error_code == E.FENCED_INSTANCE_ID
    synced = world.sync(back.member_id, 1, group_instance_id="i").result()
    assert synced.assignment == b"p0"


def test_a_static_member_that_is_back_is_known_after_a_restart(world: World) -> None:
    former = world.join(group_instance_id="i").result()
    world.sync(former.member_id, 1, {former.member_id: b"p0"}, group_instance_id="i")
    back = world.join(group_instance_id="i").result()
    world.crash()
    assert world.heartbeat(back.member_id, 1, "i").result().error_code == E.NONE


def test_a_static_member_whose_return_could_not_be_written_is_out_after_its_session(
    world: World,
) -> None:
    former = world.join(group_instance_id="i").result()
    world.sync(former.member_id, 1, {former.member_id: b"p0"}, group_instance_id="i")
    world.journal.append_error = E.KAFKA_STORAGE_ERROR
    assert world.join(group_instance_id="i").result() is E.COORDINATOR_NOT_AVAILABLE
    world.journal.append_error = E.NONE
    world.loop.advance(2 * SESSION_S + 0.1)
    assert world.state == "Empty"


def test_the_timeline_tells_who_came_in_the_place_of_a_static_member(world: World) -> None:
    (old,) = world.stable(group_instance_id="i")
    back = world.join(group_instance_id="i", client="d").result().member_id
    (replaced,) = (one for one in world.group.timeline.events() if one.kind == "replaced")
    assert (replaced.member, replaced.text) == (back, f"d at /host, was {old}")


def test_the_protocol_with_most_votes_among_those_that_all_know_is_chosen(world: World) -> None:
    first = world.promised()
    world.join(first, BOTH)
    second, third = world.promised(), world.promised()
    votes = (("sticky", b""), ("range", b""))
    world.join(second, votes)
    world.join(third, votes)
    assert world.join(first, BOTH).result().protocol_name == "sticky"


def test_a_join_that_is_repeated_answers_the_former_one(world: World) -> None:
    world.stable(2)
    newcomer = world.promised()
    waits = world.join(newcomer)
    world.join(newcomer)
    assert waits.result().error_code == E.REBALANCE_IN_PROGRESS


def test_the_initial_delay_gathers_members_and_is_extended_by_each() -> None:
    world = World(group_initial_rebalance_delay_ms="3000")
    first = world.join(version=3)
    world.loop.advance(2)
    second = world.join(version=3)
    world.loop.advance(2)
    assert not first.done
    world.loop.advance(2)
    assert len(first.result().members) == 2
    assert second.result().generation_id == 1


# --- rebalancing -------------------------------------------------------------------------------


def test_h103_a_heartbeat_tells_of_a_rebalance(world: World) -> None:
    (leader,) = world.stable()
    world.join(world.promised())
    assert world.heartbeat(leader, 1).result().error_code == E.REBALANCE_IN_PROGRESS


def test_h108_who_does_not_join_again_is_out_when_the_time_is_up(world: World) -> None:
    (silent,) = world.stable()
    newcomer = world.promised()
    joined = world.join(newcomer)
    for _ in range(REBALANCE_S):
        assert not joined.done
        world.heartbeat(silent, 1)
        world.loop.advance(1)
    world.loop.advance(0.1)
    assert [one.member_id for one in joined.result().members] == [newcomer]
    assert world.heartbeat(silent, 1).result().error_code == E.UNKNOWN_MEMBER_ID


def test_h108_members_that_come_and_go_without_end_cost_no_rebalances_without_end() -> None:
    world = World(group_rebalances_per_minute_max="30")
    came = 0
    for _ in range(1800):  # three minutes, ten times a second
        joined = world.join(version=3, rebalance_timeout_ms=60_000)
        world.loop.advance(0.1)
        if joined.done and not joined.result().error_code:
            came += 1
            world.leave(joined.result().member_id)
        else:
            others = [one.id for one in world.group.members]
            world.leave(*others)
    assert 30 <= came <= 30 + 3 * 30
    begun = [event for event in world.group.timeline.events() if event.kind == "preparing"]
    assert "so it takes" in begun[-1].text


def test_h108_who_stays_in_a_group_that_flaps_waits_for_the_next_round_and_no_longer() -> None:
    world = World(group_rebalances_per_minute_max="30")
    (stays,) = world.stable(rebalance_timeout_ms=60_000)

    def join_again() -> None:
        joined = world.join(stays, (("range", b"%d" % world.group.generation),))
        began = world.loop.monotonic()
        while not joined.done:
            world.loop.advance(0.1)
        assert world.loop.monotonic() - began <= 60 / 30 + 0.2
        world.sync(stays, joined.result().generation_id, {stays: b"all"})

    for _ in range(50):
        flaps = world.promised()
        world.join(flaps, rebalance_timeout_ms=60_000)
        join_again()
        world.leave(flaps)
        join_again()
    assert world.state == "Stable"


def test_a_group_that_rests_may_rebalance_at_once_again() -> None:
    world = World(group_rebalances_per_minute_max="2")
    ids = world.stable(1)
    for _ in range(3):
        world.leave(*ids)
        world.loop.advance(60)
        ids = world.stable(1)


def test_who_joins_and_never_syncs_is_out_when_the_time_is_up(world: World) -> None:
    first, second = world.stable(2)
    joined = [world.join(first, BOTH), world.join(second)]
    generation = joined[0].result().generation_id
    world.sync(first, generation, {first: b"all"})
    for _ in range(REBALANCE_S + 1):
        world.heartbeat(first, generation)
        world.heartbeat(second, generation)
        world.loop.advance(1)
    assert world.state == "PreparingRebalance"
    assert world.group.members.get(second) is None


def test_a_member_that_is_not_heard_of_is_out_after_its_session(world: World) -> None:
    world.stable()
    world.loop.advance(SESSION_S + 0.1)
    assert world.state == "Empty"
    assert kinds(world)[-3:] == ["expired", "preparing", "empty"]


def test_heartbeats_keep_a_member_in(world: World) -> None:
    (member,) = world.stable()
    for _ in range(20):
        world.loop.advance(SESSION_S * 0.9)
        assert world.heartbeat(member, 1).result().error_code == E.NONE


def test_who_waits_for_an_assignment_is_sent_back_when_somebody_comes(world: World) -> None:
    first, second = world.stable(2)
    generation = [world.join(first, BOTH), world.join(second)][0].result().generation_id
    waits = world.sync(second, generation)
    world.join(world.promised())
    assert waits.result().error_code == E.REBALANCE_IN_PROGRESS


def test_another_leads_where_a_static_leader_does_not_come_back(world: World) -> None:
    gone = world.join(group_instance_id="one").result().member_id
    world.sync(gone, 1, {}, group_instance_id="one")
    joined = world.join(group_instance_id="two")
    for _ in range(REBALANCE_S + 1):
        world.heartbeat(gone, 1, "one")
        world.loop.advance(1)
    answer = joined.result()
    assert len(answer.members) == 2
    assert answer.leader == answer.member_id


# --- syncing -----------------------------------------------------------------------------------


def test_h106_members_get_what_the_leader_gave_them_and_strangers_nothing(world: World) -> None:
    first, second = world.stable(2)
    joined = [world.join(first, BOTH), world.join(second)]
    generation = joined[0].result().generation_id
    waits = world.sync(second, generation)
    mine = world.sync(first, generation, {"stranger": b"x", second: b"p1"})
    assert (mine.result().assignment, waits.result().assignment) == (b"", b"p1")


def test_h107_what_others_than_the_leader_hand_in_is_ignored(world: World) -> None:
    first, second = world.stable(2)
    joined = [world.join(first, BOTH), world.join(second)]
    generation = joined[0].result().generation_id
    waits = world.sync(second, generation, {second: b"everything"})
    assert not waits.done
    world.sync(first, generation, {second: b"p1"})
    assert waits.result().assignment == b"p1"


def test_no_assignment_is_told_before_it_is_committed(world: World) -> None:
    world.journal.commits_at_once = False
    member = world.promised()
    world.join(member)
    synced = world.sync(member, 1, {member: b"p"})
    assert not synced.done
    world.journal.commit()
    assert synced.result().assignment == b"p"


def test_an_assignment_that_can_not_be_written_changes_nothing(world: World) -> None:
    member = world.promised()
    world.join(member)
    world.journal.append_error = E.KAFKA_STORAGE_ERROR
    assert world.sync(member, 1, {member: b"p"}).result() is E.COORDINATOR_NOT_AVAILABLE
    assert world.state == "CompletingRebalance"
    world.journal.append_error = E.NONE
    assert world.sync(member, 1, {member: b"p"}).result().assignment == b"p"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"member_id": "x"}, E.UNKNOWN_MEMBER_ID),
        ({"generation": 7}, E.ILLEGAL_GENERATION),
        ({"protocol_name": "other"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": None}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"group_instance_id": "i"}, E.UNKNOWN_MEMBER_ID),
    ],
)
def test_h102_a_sync_that_is_wrong_is_told_why(
    world: World, wrong: dict[str, object], error: E
) -> None:
    (member,) = world.stable()
    given = {"member_id": member, "generation": 1} | wrong
    assert world.sync(**given).result().error_code == error


# --- leaving -----------------------------------------------------------------------------------


def test_the_last_member_that_leaves_leaves_an_empty_group_that_lasts(world: World) -> None:
    (member,) = world.stable()
    assert world.leave(member, reason="enough").result().members[0].error_code == E.NONE
    world.crash()
    assert (world.state, world.group.generation) == ("Empty", 2)


def test_a_group_gets_empty_though_the_disk_was_full_when_the_last_one_went(
    world: World,
) -> None:
    world.stable()
    world.journal.append_error = E.KAFKA_STORAGE_ERROR
    world.loop.advance(SESSION_S + 0.1)
    assert world.state == "PreparingRebalance"
    world.journal.append_error = E.NONE
    world.loop.advance(1)
    assert world.state == "Empty"


def test_those_who_stay_share_what_the_leaving_one_had(world: World) -> None:
    first, second = world.stable(2)
    generation = world.group.generation
    world.leave(second)
    assert world.heartbeat(first, generation).result().error_code == E.REBALANCE_IN_PROGRESS
    answer = world.join(first).result()
    assert [one.member_id for one in answer.members] == [first]


def test_an_admin_removes_a_static_member_by_its_instance(world: World) -> None:
    member = world.join(group_instance_id="i").result().member_id
    world.sync(member, 1, {}, group_instance_id="i")
    world.leave("", group_instance_id="i")
    assert world.state == "Empty"


# --- a restart ---------------------------------------------------------------------------------


def test_a_stable_group_goes_on_after_a_restart(world: World) -> None:
    first, second = world.stable(2)
    generation = world.group.generation
    world.crash()
    assert world.state == "Stable"
    assert world.heartbeat(first, generation).result().error_code == E.NONE
    assert world.sync(second, generation).result().assignment == f"of {second}".encode()


def test_members_that_did_not_live_through_a_restart_are_out_after_their_session(
    world: World,
) -> None:
    world.stable(2)
    world.crash()
    world.loop.advance(SESSION_S + 0.1)
    assert world.state == "Empty"


def test_a_generation_without_an_assignment_is_lost_with_the_coordinator(world: World) -> None:
    first, second = world.stable(2)
    generation = [world.join(first, BOTH), world.join(second)][0].result().generation_id
    world.crash()
    synced = world.sync(first, generation, {first: b"x"}).result()
    assert synced.error_code == E.ILLEGAL_GENERATION


# --- the timeline ------------------------------------------------------------------------------


def test_the_timeline_tells_who_came_why_and_how_long_it_took(world: World) -> None:
    member = world.promised()
    world.join(member, reason="hungry")
    world.loop.advance(2)
    world.sync(member, 1, {member: b""})
    assert kinds(world) == ["joined", "preparing", "completing", "stable"]
    events = world.group.timeline.events()
    assert (events[0].member, "hungry" in events[0].text) == (member, True)
    assert events[-1].took_ms == 2000


def test_the_timeline_keeps_the_last_events_alone(world: World) -> None:
    (member,) = world.stable()
    for _ in range(100):
        generation = world.join(member, reason="x" * 10_000).result().generation_id
        world.sync(member, generation)
    events = world.group.timeline.events()
    assert len(events) == 64
    assert max(len(event.text) for event in events) == 200
    assert world.group.timeline.dropped_count > 100


def test_a_protocol_that_not_all_know_lets_nobody_in(world: World) -> None:
    world.stable()
    refused = world.join(protocols=(("other", b""),)).result()
    assert refused.error_code == E.INCONSISTENT_GROUP_PROTOCOL
    assert world.join(protocols=RANGE, protocol_type="connect").result().error_code == (
        E.INCONSISTENT_GROUP_PROTOCOL
    )


# --- deleting ----------------------------------------------------------------------------------


def commit_more_than_a_batch_has_room_for(world: World) -> list[tuple[str, int]]:
    topics = [f"{number:03}-{'x' * 200}" for number in range(30)]
    for topic in topics:
        one = Commit(topic, bytes(16), 0, 5, -1, "")
        asked = world.runtime.submit(
            GROUP, lambda shard, one=one: shard.commit_offsets(GROUP, Member(), [one], version=9)
        )
        assert asked.result() == [E.NONE]
    world.journal.batch_bytes_max = 2000
    return [(topic, 0) for topic in topics]


def test_a_group_with_more_offsets_than_a_batch_has_room_for_is_deleted(world: World) -> None:
    commit_more_than_a_batch_has_room_for(world)
    asked = world.runtime.submit(GROUP, lambda shard: delete_group(shard, GROUP))
    assert asked.result() is E.NONE
    world.crash()
    assert world.shard.group(GROUP) is None


def test_who_was_promised_a_place_keeps_nobody_from_deleting_the_group(world: World) -> None:
    member = world.promised()
    asked = world.runtime.submit(GROUP, lambda shard: delete_group(shard, GROUP))
    assert asked.result() is E.NONE
    assert world.join(member).result().error_code == E.UNKNOWN_MEMBER_ID
    world.loop.advance(2 * SESSION_S)


def test_more_offsets_than_a_batch_has_room_for_are_deleted_at_once(world: World) -> None:
    places = commit_more_than_a_batch_has_room_for(world)
    asked = world.runtime.submit(GROUP, lambda shard: shard.delete_offsets(GROUP, places))
    assert asked.result() == [E.NONE] * len(places)
    world.crash()
    assert not list(world.shard.offsets.places(GROUP))
