"""Consumer groups (KIP-848): members, targets, and the way from the one to the other."""

from itertools import chain

import pytest

from ottla.coordinator.group.consumer_listing import describe_consumer_group
from ottla.coordinator.group.shard import Commit
from ottla.coordinator.group.shard import Member as Committer
from ottla.protocol.errors import ErrorCode
from tests.unit.coordinator.group.consumer_world import GROUP, World, given, topic_id

NONE = ErrorCode.NONE


@pytest.fixture
def world():
    return World({"t": 4, "u": 2})


def two(world, **fields):
    """Two members that share topic t: a has 0 and 1, b has 2 and 3, both in epoch 3."""
    world.join("a", "t", **fields)
    world.join("b", "t")
    world.beat("a", 2)
    world.beat("a", 2, owned={"t": [0, 1]})
    assert given(world.beat("b", 3)) == {"t": [2, 3]}
    return world


# --- joining and sharing ---------------------------------------------------------------------


def test_the_first_member_gets_all_at_once(world):
    answer = world.join("a", "t", "u")
    assert (answer.error_code, answer.member_epoch, answer.heartbeat_interval_ms) == (0, 2, 5000)
    assert given(answer) == {"t": [0, 1, 2, 3], "u": [0, 1]}
    assert world.group.state == "Stable"


def test_a_member_that_waits_for_what_another_has_is_told_to_ask_again_soon(world):
    assert world.join("a", "t").heartbeat_interval_ms == 5000
    assert world.join("b", "t").heartbeat_interval_ms == 1000
    assert world.beat("b", 3).heartbeat_interval_ms == 1000
    world.beat("a", 2)
    assert world.beat("a", 2, owned={"t": [0, 1]}).heartbeat_interval_ms == 5000
    assert world.beat("b", 3).heartbeat_interval_ms == 5000


def test_a_member_whose_target_is_still_to_be_computed_is_told_to_ask_again_soon():
    world = World({"t": 4}, **{"group.consumer.assignment.interval.ms": "1000"})
    world.join("a", "t")
    assert world.join("b", "t").heartbeat_interval_ms == 1000
    assert world.beat("a", 2).heartbeat_interval_ms == 1000
    world.pass_ms(1000)
    assert given(world.beat("a", 2)) == {"t": [0, 1]}


def test_members_that_wait_keep_to_an_interval_that_is_shorter_anyway():
    world = World({"t": 4}, **{"group.consumer.heartbeat.interval.ms": "500"})
    world.join("a", "t")
    assert world.join("b", "t").heartbeat_interval_ms == 500


def test_the_timeline_tells_who_came_in_the_place_of_a_static_member(world):
    world.join("a", "t", instance_id="i")
    world.beat("a", -2, instance_id="i")
    world.join("b", "t", instance_id="i")
    (replaced,) = (one for one in world.group.timeline.events() if one.kind == "replaced")
    assert (replaced.member, replaced.text) == ("b", "client at /127.0.0.1, was a")


def test_a_heartbeat_without_news_is_answered_without_an_assignment_and_writes_nothing(world):
    world.join("a", "t")
    written = len(world.log)
    answer = world.beat("a", 2)
    assert (answer.member_epoch, given(answer)) == (2, None)
    assert len(world.log) == written


def test_whoever_says_all_about_itself_is_told_all(world):
    world.join("a", "t")
    answer = world.beat(
        "a", 2, rebalance_timeout_ms=9, subscribed_topic_names=["t"], owned={"t": [0]}
    )
    assert given(answer) == {"t": [0, 1, 2, 3]}


def test_i36_a_new_member_gets_a_partition_only_once_the_old_one_has_given_it_up(world):
    world.join("a", "t")
    assert given(world.join("b", "t")) == {}
    assert given(world.beat("a", 2)) == {"t": [0, 1]}
    assert given(world.beat("a", 2, owned={"t": [0, 1, 2, 3]})) is None
    assert given(world.beat("b", 3)) is None
    assert world.beat("a", 2, owned={"t": [0, 1]}).member_epoch == 3
    assert given(world.beat("b", 3)) == {"t": [2, 3]}


def test_a_member_that_reports_nothing_has_given_nothing_up(world):
    world.join("a", "t")
    world.join("b", "t")
    world.beat("a", 2)
    assert world.beat("a", 2).member_epoch == 2
    assert given(world.beat("b", 3)) is None


def test_targets_are_computed_no_more_often_than_the_interval_says():
    world = World({"t": 4}, group_consumer_assignment_interval_ms="1000")
    world.join("a", "t")
    assert world.join("b", "t").member_epoch == 2
    assert world.group.state == "Assigning"
    world.pass_ms(1000)
    assert world.beat("b", 2).member_epoch == 3
    assert world.group.state == "Reconciling"


@pytest.mark.parametrize("wishes", [("range", "uniform"), ("uniform", "range")])
def test_as_many_wishes_for_range_as_for_uniform_choose_uniform(world, wishes):
    for member, wish in zip("ab", wishes, strict=True):
        world.join(member, "t", server_assignor=wish)
    assert world.group.assignor("range") == "uniform"


def test_most_wishes_choose_the_assignor_and_range_cuts_each_topic(world):
    world.join("a", "t", "u", server_assignor="range")
    world.join("b", "t", "u", server_assignor="range")
    assert world.group.assignor("uniform") == "range"
    assert world.group.targets["b"] == {
        topic_id("t"): frozenset({2, 3}),
        topic_id("u"): frozenset({1}),
    }


def test_h101_a_full_group_takes_nobody_more():
    world = World({"t": 4}, group_consumer_max_size="1")
    world.join("a", "t")
    assert world.join("b", "t").error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert world.beat("a", 2).error_code == NONE


def test_h101_a_node_takes_so_many_groups_and_no_more(world):
    world.shard.consumer.has_room = lambda: False
    assert world.join("a", "t").error_code == ErrorCode.GROUP_MAX_SIZE_REACHED


def test_h106_members_that_say_too_much_together_are_refused_and_said_less_is_room_again():
    world = World({"t": 4}, group_metadata_bytes_max="1024")
    long = "x" * 249
    world.join("a", "t", long, "y" * 249)
    assert world.join("b", "t", long, "y" * 249, "z" * 249).error_code == (
        ErrorCode.GROUP_MAX_SIZE_REACHED
    )
    assert list(world.group.members) == ["a"]
    epoch = world.beat("a", world.group.epoch, subscribed_topic_names=["t"]).member_epoch
    assert world.join("b", "t", long, "y" * 249, "z" * 249).error_code == NONE
    world.restart()
    assert world.group.said_bytes == sum(one.said_bytes() for one in world.group.members.values())
    refused = world.beat("a", epoch, subscribed_topic_names=["t", long, "v" * 249])
    assert refused.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
    assert world.group.members["a"].topics == ("t",)
    world.beat("b", -1)
    world.beat("a", -1)
    assert world.group.said_bytes == 0


def test_v0_makes_an_id_for_a_member_without_one(world):
    answer = world.join("", "t", version=0)
    assert answer.member_id == "made-0"
    assert world.beat("made-0", 2).error_code == NONE


# --- h110 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"rebalance_timeout_ms": -1},
        {"topic_partitions": None},
        {"owned": {"t": [0]}},
        {"subscribed_topic_names": None},
        {"member_id": ""},
        {"group_id": " "},
        {"instance_id": ""},
        {"rack_id": " "},
    ],
)
def test_h110_a_first_heartbeat_that_lacks_something_is_an_invalid_request(world, fields):
    first = {
        "member_id": "a",
        "rebalance_timeout_ms": 60_000,
        "subscribed_topic_names": ["t"],
        **({} if "topic_partitions" in fields else {"owned": {}}),
        **fields,
    }
    member_id = first.pop("member_id")
    assert world.beat(member_id, 0, **first).error_code == ErrorCode.INVALID_REQUEST
    assert not world.log


@pytest.mark.parametrize("epoch", [-5, -3, -2])
def test_h110_an_epoch_that_nobody_can_have_is_an_invalid_request(world, epoch):
    assert world.beat("a", epoch).error_code == ErrorCode.INVALID_REQUEST


def test_h110_an_assignor_that_there_is_not(world):
    answer = world.join("a", "t", server_assignor="lucky")
    assert answer.error_code == ErrorCode.UNSUPPORTED_ASSIGNOR
    assert "uniform, range" in answer.error_message


def test_h110_an_expression_that_is_none_changes_nothing(world):
    answer = world.join("a", subscribed_topic_regex="(x")
    assert answer.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
    assert not world.log


def test_h110_epochs_ahead_and_behind_are_fenced_but_for_a_lost_answer(world):
    two(world)
    assert world.beat("a", 9).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert world.beat("a", 1).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert world.beat("a", 2).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert world.beat("a", 2, owned={"t": [2]}).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    answer = world.beat("a", 2, owned={"t": [0]})
    assert (answer.member_epoch, given(answer)) == (3, {"t": [0, 1]})


def test_a_group_or_member_that_nobody_knows(world):
    assert world.beat("a", 1).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert world.beat("a", -1).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    world.join("a", "t")
    assert world.beat("b", 1).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert world.beat("b", -1).error_code == ErrorCode.UNKNOWN_MEMBER_ID


# --- leaving and being late ------------------------------------------------------------------


def test_what_a_member_had_that_leaves_is_free_at_once(world):
    two(world)
    assert world.beat("b", -1).member_epoch == -1
    assert given(world.beat("a", 3)) == {"t": [0, 1, 2, 3]}
    assert world.group.state == "Stable"


def test_a_silent_member_is_out_after_the_session(world):
    two(world)
    world.pass_ms(40_000)
    world.beat("a", 3)
    world.pass_ms(6000)
    assert list(world.group.members) == ["a"]
    assert world.beat("b", 3).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert given(world.beat("a", 3)) == {"t": [0, 1, 2, 3]}


def test_i37_a_member_that_does_not_give_up_in_time_is_out(world):
    world.join("a", "t", rebalance_timeout_ms=5000)
    world.join("b", "t")
    world.beat("a", 2)
    world.pass_ms(4000)
    assert given(world.beat("a", 2, owned={"t": [0, 1, 2, 3]})) is None
    world.pass_ms(1500)
    assert world.beat("a", 2).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert given(world.beat("b", 3)) == {"t": [0, 1, 2, 3]}


def test_a_fenced_member_begins_again_and_keeps_what_is_its_target(world):
    two(world)
    answer = world.join("a", "t")
    assert (answer.member_epoch, given(answer)) == (3, {"t": [0, 1]})


def test_an_empty_group_is_kept_and_can_be_deleted(world):
    world.join("a", "t")
    assert world.group.tombstones() is None
    world.beat("a", -1)
    assert world.group.state == "Empty"
    for entry in world.group.tombstones() or ():
        world.shard.replay(entry)
    assert world.shard.group(GROUP) is None


# --- subscriptions and topics ----------------------------------------------------------------


def test_a_topic_that_is_no_longer_subscribed_is_taken_at_once_even_between_two_targets():
    world = World({"t": 2, "u": 2}, group_consumer_assignment_interval_ms="1000")
    world.join("a", "t", "u")
    answer = world.beat("a", 2, subscribed_topic_names=["u"])
    assert given(answer) == {"u": [0, 1]}
    assert world.group.members["a"].revoking.keys() == {topic_id("t")}


def test_topics_that_come_grow_and_go_change_the_targets(world):
    world.join("a", "t", "later")
    world.set_topics({"t": 5, "u": 2})
    assert given(world.beat("a", 2)) == {"t": [0, 1, 2, 3, 4]}
    world.set_topics({"t": 5, "later": 1})
    assert given(world.beat("a", 3)) == {"t": [0, 1, 2, 3, 4], "later": [0]}
    world.set_topics({"later": 1})
    assert given(world.beat("a", 4)) == {"later": [0]}


def test_a_change_of_topics_that_nobody_subscribes_to_changes_nothing(world):
    world.join("a", "t")
    world.set_topics({"t": 4, "u": 9})
    assert world.beat("a", 2).member_epoch == 2


def test_an_expression_names_topics_from_the_first_heartbeat_on(world):
    answer = world.join("a", subscribed_topic_regex="[tu]")
    assert given(answer) == {"t": [0, 1, 2, 3], "u": [0, 1]}
    assert world.group.is_subscribed("u")


def test_an_expression_finds_topics_that_are_made_later(world):
    world.join("a", subscribed_topic_regex="t.*")
    world.set_topics({"t": 4, "t2": 1, "x": 1})
    world.pass_ms(1001)
    assert given(world.beat("a", 2)) == {"t": [0, 1, 2, 3], "t2": [0]}


def test_an_expression_is_forgotten_with_its_last_member(world):
    world.join("a", subscribed_topic_regex="t")
    world.join("b", subscribed_topic_regex="t")
    world.beat("a", -1)
    assert world.group.regexes
    world.beat("b", 3, subscribed_topic_regex="")
    assert not world.group.regexes


def test_an_expression_over_many_topics_is_resolved_in_slices():
    world = World({f"topic-{number}": 1 for number in range(5000)})
    assert given(world.join("a", subscribed_topic_regex="topic-.*7")) == {}
    world.pass_ms(1)
    answer = world.beat("a", world.group.members["a"].epoch, owned={}, rebalance_timeout_ms=1)
    assert len(given(answer)) == 500


# --- static members (h105) -------------------------------------------------------------------


def test_h105_the_instance_of_a_living_member_is_not_given_away(world):
    world.join("a", "t", instance_id="i")
    assert world.join("b", "t", instance_id="i").error_code == ErrorCode.UNRELEASED_INSTANCE_ID
    fenced = world.beat("b", 2, instance_id="i")
    assert fenced.error_code == ErrorCode.FENCED_INSTANCE_ID
    unknown = world.beat("a", 2, instance_id="j")
    assert unknown.error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_h105_a_static_member_that_is_back_has_what_it_had_and_nobody_else_notices(world):
    two(world, instance_id="i")
    assert world.beat("a", -2, instance_id="i").member_epoch == -2
    assert world.beat("b", 3).member_epoch == 3
    answer = world.join("c", "t", instance_id="i")
    assert (answer.member_epoch, given(answer)) == (3, {"t": [0, 1]})
    assert world.group.statics == {"i": "c"}
    assert set(world.group.members) == {"b", "c"}
    assert world.beat("b", 3).member_epoch == 3


def test_a_static_member_that_does_not_come_back_is_out_after_the_session(world):
    two(world, instance_id="i")
    world.beat("a", -2, instance_id="i")
    for _ in range(5):
        world.pass_ms(10_000)
        world.beat("b", world.group.members["b"].epoch)
    assert given(world.beat("b", 3)) is None
    assert world.group.members["b"].assigned.keys() == {topic_id("t")}
    assert set(world.group.members) == {"b"}


# --- a restart -------------------------------------------------------------------------------


def test_a_restart_in_the_middle_of_a_rebalance_changes_nothing(world):
    world.join("a", "t")
    world.restart()
    world.join("b", "t")
    world.restart()
    world.beat("a", 2)
    world.restart()
    world.beat("a", 2, owned={"t": [0, 1]})
    world.restart()
    assert given(world.beat("b", 3)) == {"t": [2, 3]}
    world.restart()
    assert world.group.state == "Stable"


def test_after_a_restart_each_member_has_a_session_and_whoever_gives_up_its_time(world):
    world.join("a", "t", rebalance_timeout_ms=5000)
    world.join("b", "t")
    world.beat("a", 2)
    world.restart()
    world.pass_ms(5500)
    assert set(world.group.members) == {"b"}
    world.pass_ms(45_000)
    assert world.group.is_empty


# --- offsets ---------------------------------------------------------------------------------


def commit(world, member, epoch, partition, version=9):
    who = Committer(member, None, epoch)
    what = Commit("t", topic_id("t"), partition, 7, -1, "")
    outcome = world.do(world.shard.commit_offsets(GROUP, who, [what], version=version))
    return outcome if isinstance(outcome, ErrorCode) else outcome[0]


def test_i35_only_members_commit_and_only_in_an_epoch_in_which_they_had_the_partition(world):
    two(world)
    assert commit(world, "a", 3, 0) == NONE
    assert commit(world, "a", 3, 3) == NONE  # as in Kafka: in its own epoch a member may
    assert commit(world, "a", 2, 0) == NONE  # it has had this one since epoch 2
    assert commit(world, "b", 2, 2) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(world, "a", 2, 2) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(world, "a", 4, 0) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(world, "x", 3, 0) == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(world, "", -1, 0) == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(world, "a", 3, 0, version=8) == ErrorCode.UNSUPPORTED_VERSION


def test_i35_an_empty_group_takes_commits_of_nobody_in_particular(world):
    world.join("a", "t")
    world.beat("a", -1)
    assert commit(world, "", -1, 0) == NONE


def test_reading_offsets_as_a_member_needs_its_epoch(world):
    two(world)
    group = world.group
    assert group.check_fetch("a", 3) == NONE
    assert group.check_fetch(None, -1) == NONE
    assert group.check_fetch("a", 2) == ErrorCode.STALE_MEMBER_EPOCH
    assert group.check_fetch("x", 3) == ErrorCode.UNKNOWN_MEMBER_ID


# --- what is told ----------------------------------------------------------------------------


def test_a_description_counts_what_is_being_given_up_among_what_a_member_has(world):
    world.join("a", "t", rack_id="r")
    world.join("b", "t")
    world.beat("a", 2)
    told = world.do(describe_consumer_group(world.shard, GROUP))
    assert (told.group_state, told.group_epoch, told.assignor_name) == ("Reconciling", 3, "uniform")
    a = next(member for member in told.members if member.member_id == "a")
    assert a.assignment.topic_partitions[0].partitions == [0, 1, 2, 3]
    assert a.target_assignment.topic_partitions[0].partitions == [0, 1]
    assert (a.rack_id, a.member_type, a.client_host) == ("r", 1, "/127.0.0.1")


def test_what_is_no_consumer_group_is_not_described(world):
    told = world.do(describe_consumer_group(world.shard, "other"))
    assert told.error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_the_timeline_says_who_came_and_went_and_how_long_it_took(world):
    world.join("a", "t")
    world.pass_ms(100)
    two(world)
    world.pass_ms(2000)
    world.beat("b", -1)
    world.beat("a", 3)
    told = [
        (event.kind, event.generation, event.member, event.took_ms)
        for event in world.group.timeline.events()
    ]
    assert told == [
        ("joined", 2, "a", None),
        ("stable", 2, "", None),
        ("joined", 3, "b", None),
        ("rebalancing", 3, "", 100),
        ("stable", 3, "", 0),
        ("left", 4, "b", None),
        ("rebalancing", 4, "", 2000),
        ("stable", 4, "", 0),
    ]
    texts = [event.text for event in world.group.timeline.events()]
    assert texts[:5] == [
        "client at /127.0.0.1",
        "1 member: a joined",
        "client at /127.0.0.1",
        "b joined",
        "2 members",
    ]


def test_a_group_that_is_emptied_says_so_in_its_timeline(world):
    world.join("a", "t")
    world.pass_ms(60_000)
    assert [event.kind for event in world.group.timeline.events()][-2:] == ["expired", "empty"]


# --- what a batch may hold, and what a crash may keep -----------------------------------------


def test_i36_a_crash_may_keep_any_beginning_of_what_a_heartbeat_wrote():
    world = World({"t": 6})
    whole = [0]

    def settle(epochs):
        """All beat until nothing changes; each says what it was given."""
        owned = dict.fromkeys(epochs)
        for _ in range(8):
            for member_id, epoch in epochs.items():
                joins = epoch == 0
                told = {"rebalance_timeout_ms": 60_000, "subscribed_topic_names": ["t"]}
                answer = world.beat(
                    member_id, epoch, owned=owned[member_id] or {}, **(told if joins else {})
                )
                assert not answer.error_code, answer
                epochs[member_id] = answer.member_epoch
                owned[member_id] = given(answer) or owned[member_id]
                whole.append(len(world.log))
        return owned

    settle({"a": 0, "b": 0, "c": 0})
    log = list(world.log)
    for kept in range(len(log) + 1):
        world.log = log[:kept]
        world.restart()
        owned = settle({"a": 0, "b": 0, "c": 0})
        assert sorted(chain(*(each["t"] for each in owned.values()))) == list(range(6)), kept
        assert [len(each["t"]) for each in owned.values()] == [2, 2, 2], kept
        assert world.group.state == "Stable", kept
    assert len(set(whole)) > 5


def test_names_that_a_regex_finds_are_passed_over_where_they_are_too_long_together():
    world = World({f"topic-{number:03}": 1 for number in range(200)}, group_regex_bytes_max="1024")
    answer = world.join("a", subscribed_topic_regex="topic-.*")
    assert sorted(given(answer)) == [f"topic-{number:03}" for number in range(1024 // 11)]
    (passed_over,) = (one for one in world.group.timeline.events() if one.kind == "passed over")
    assert passed_over.text == "107 of the 200 topics of 'topic-.*' (group.regex.bytes.max)"
    answer = world.join("b", subscribed_topic_regex="topic-00.*")
    assert world.group.regexes["topic-00.*"].topics == frozenset(), "there is no room left"
