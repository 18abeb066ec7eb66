"""What the assignors give to whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinator.group.assignors import Subscriber, range_, uniform
from tests.unit.coordinator.group.consumer_world import topic_id

T, U = topic_id("t"), topic_id("u")


def subscribers(**topics):
    return {member: Subscriber(frozenset(ids)) for member, ids in topics.items()}


def again(before, targets):
    return {
        member: Subscriber(one.topics, targets.get(member, {}), one.instance_id)
        for member, one in before.items()
    }


def sizes(targets):
    return {member: sum(map(len, target.values())) for member, target in targets.items()}


def test_uniform_gives_each_as_many_give_or_take_one():
    targets = uniform(subscribers(a=[T, U], b=[T, U], c=[T, U]), {T: 4, U: 3})
    assert sorted(sizes(targets).values()) == [2, 2, 3]


def test_uniform_moves_only_what_a_new_member_needs():
    two = subscribers(a=[T], b=[T])
    first = uniform(two, {T: 6})
    three = again(subscribers(a=[T], b=[T], c=[T]), first)
    second = uniform(three, {T: 6})
    assert sizes(second) == {"a": 2, "b": 2, "c": 2}
    assert all(second[member][T] < first[member][T] for member in two)


def test_uniform_leaves_an_extra_partition_where_it_is():
    before = subscribers(a=[T], b=[T])
    held = {"a": {T: frozenset({0})}, "b": {T: frozenset({1, 2})}}
    assert uniform(again(before, held), {T: 3}) == held


def test_uniform_changes_nothing_where_nothing_has_changed():
    members = subscribers(a=[T, U], b=[T], c=[U])
    targets = uniform(members, {T: 5, U: 7})
    assert uniform(again(members, targets), {T: 5, U: 7}) == targets


def test_uniform_gives_nobody_what_it_does_not_subscribe_to():
    targets = uniform(subscribers(a=[T], b=[U], c=[T, U]), {T: 4, U: 2})
    assert U not in targets["a"]
    assert T not in targets["b"]
    assert sorted(sizes(targets).values()) == [2, 2, 2]


def test_uniform_takes_back_topics_and_partitions_that_are_gone():
    members = again(subscribers(a=[T], b=[T]), {"a": {T: frozenset({0, 9}), U: frozenset({0})}})
    targets = uniform(members, {T: 2})
    assert targets["a"] | targets["b"] == {T: targets["b"][T]}
    assert targets["a"][T] == {0}


def test_range_gives_the_same_stretch_of_topics_that_are_alike():
    targets = range_(subscribers(a=[T, U], b=[T, U]), {T: 3, U: 3})
    assert targets == {
        "a": {T: frozenset({0, 1}), U: frozenset({0, 1})},
        "b": {T: frozenset({2}), U: frozenset({2})},
    }


def test_range_puts_those_with_an_instance_id_first():
    members = {
        "a": Subscriber(frozenset({T})),
        "z": Subscriber(frozenset({T}), instance_id="1"),
    }
    assert range_(members, {T: 1}) == {"a": {}, "z": {T: frozenset({0})}}


@pytest.mark.parametrize("assign", [uniform, range_])
def test_nobody_gets_nothing(assign):
    assert assign({}, {T: 3}) == {}
    assert assign(subscribers(a=[]), {T: 3}) == {"a": {}}


TOPICS = [topic_id(name) for name in "tuvw"]


@given(
    subscribed=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=2),
        st.frozensets(st.sampled_from(TOPICS)),
        max_size=8,
    ),
    counts=st.fixed_dictionaries({topic: st.integers(0, 9) for topic in TOPICS}),
    more=st.integers(0, 3),
    name=st.sampled_from(["uniform", "range"]),
)
def test_each_partition_that_anybody_subscribes_to_has_one_owner(subscribed, counts, more, name):
    assign = {"uniform": uniform, "range": range_}[name]
    members = {
        member: Subscriber(frozenset(topic for topic in topics if counts[topic]))
        for member, topics in subscribed.items()
    }
    first = assign(members, counts)
    grown = {topic: count + more if count else 0 for topic, count in counts.items()}
    for targets, partitions in ((first, counts), (assign(again(members, first), grown), grown)):
        owned = [
            (topic, number)
            for target in targets.values()
            for topic, numbers in target.items()
            for number in numbers
        ]
        wanted = {
            (topic, number)
            for member in members.values()
            for topic in member.topics
            for number in range(partitions[topic])
        }
        assert len(owned) == len(set(owned))
        assert set(owned) == wanted
        for member, target in targets.items():
            assert target.keys() <= members[member].topics
            assert all(target.values())
    if name == "uniform" and len({one.topics for one in members.values()}) == 1:
        assert max(sizes(first).values()) - min(sizes(first).values()) <= 1
