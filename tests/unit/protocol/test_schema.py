"""How messages are declared, and what the classes made of declarations do."""

from __future__ import annotations

import pytest

from ottla.protocol import apis
from ottla.protocol import schema as t


class Inner(t.Struct):
    node: int = t.int32(default=-1)


class Outer(t.Message, key=99, kind="request", versions=(1, 4), flexible=3):
    name: str = t.string(until=2)
    topic_id: bytes = t.uuid(since=3)
    reason: str | None = t.string(default=None, since=2, null_since=2)
    items: list[Inner] = t.array(Inner)
    numbers: list[int] | None = t.array(t.int32, default=None, null_since=1)
    leader: Inner = t.struct(Inner, since=3, tag=0)
    cursor: Inner | None = t.nullable_struct(Inner, since=4, null_since=4)


def test_a_message_without_arguments_has_the_defaults_of_its_declaration() -> None:
    made = Outer()
    assert (made.name, made.topic_id, made.reason) == ("", bytes(16), None)
    assert (made.items, made.numbers, made.cursor) == ([], None, None)
    assert made.leader == Inner(node=-1)


def test_a_default_list_belongs_to_one_message_only() -> None:
    first, second = Outer(), Outer()
    first.items.append(Inner())
    assert second.items == []


def test_a_list_given_as_none_stays_none() -> None:
    assert Outer(numbers=None).numbers is None


def test_the_shared_default_of_a_struct_refuses_to_be_changed() -> None:
    made = Outer()
    with pytest.raises(AttributeError, match="assign a new one"):
        made.leader.node = 3
    made.leader = Inner(node=3)
    assert Outer().leader.node == -1


def test_the_shared_default_is_an_instance_of_its_struct_and_equals_a_new_one() -> None:
    assert isinstance(Outer().leader, Inner)
    assert Outer().leader == Inner()
    assert Inner() == Outer().leader
    assert Outer().leader != Inner(node=1)


def test_messages_are_compared_field_by_field() -> None:
    assert Outer(name="a", items=[Inner(node=1)]) == Outer(name="a", items=[Inner(node=1)])
    assert Outer(name="a") != Outer(name="b")
    assert Outer() != Inner()


def test_a_message_takes_no_attribute_that_is_not_declared() -> None:
    with pytest.raises(AttributeError):
        Outer().nmae = "a"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Outer(nmae="a")  # type: ignore[call-arg]


def test_a_message_is_not_hashable_because_its_fields_change() -> None:
    with pytest.raises(TypeError):
        hash(Outer())


def test_a_message_says_what_is_in_it() -> None:
    assert repr(Inner(node=4)) == "Inner(node=4)"


def test_a_message_knows_its_key_kind_and_versions() -> None:
    assert (Outer.KEY, Outer.KIND, Outer.VERSIONS, Outer.FLEXIBLE) == (99, "request", (1, 4), 3)


def test_a_field_is_in_the_versions_from_since_to_until() -> None:
    name, topic_id = Outer.FIELDS[:2]
    assert [v for v in range(1, 5) if name.is_in(v)] == [1, 2]
    assert [v for v in range(1, 5) if topic_id.is_in(v)] == [3, 4]


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AssertionError, match="sinse"):
        t.int32(sinse=3)


@pytest.mark.parametrize("key", list(apis.API_NAMES))
def test_an_api_has_its_two_messages_where_the_tables_say(key: int) -> None:
    request, response = apis.request_class(key), apis.response_class(key)
    assert request.__name__ == f"{apis.API_NAMES[key]}Request"
    assert response.__name__ == f"{apis.API_NAMES[key]}Response"
    assert (request.KIND, response.KIND) == ("request", "response")
    assert request.KEY == response.KEY == key
    assert request.VERSIONS == response.VERSIONS == apis.RANGES[key]


@pytest.mark.parametrize("key", list(apis.API_NAMES))
def test_the_header_is_flexible_from_the_version_in_which_the_request_is(key: int) -> None:
    flexible = apis.request_class(key).FLEXIBLE
    if flexible is None:
        assert apis.FIRST_FLEXIBLE[key] > 0x7FFF
    else:
        assert apis.FIRST_FLEXIBLE[key] == flexible


def test_an_api_of_controllers_is_not_known() -> None:
    with pytest.raises(KeyError):
        apis.request_class(4)
