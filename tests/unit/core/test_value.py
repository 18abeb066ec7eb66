"""Values behave as frozen dataclasses do, as far as anybody here relies on it."""

import pickle

import pytest

from ottla.core.value import Value


class Point(Value):
    x: int
    y: int = 0


class Size(Value):
    x: int
    y: int = 0


class Nothing(Value):
    pass


def test_fields_are_given_in_order_or_by_name_and_defaults_fill_the_rest():
    assert (Point(1).x, Point(1).y) == (1, 0)
    assert Point(1, 2) == Point(y=2, x=1)


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)])
def test_a_wrong_number_of_fields_is_refused(arguments):
    with pytest.raises(TypeError):
        Point(*arguments)


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError):
        Point(1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Point(1).replace(z=2)


def test_values_of_two_classes_are_never_equal():
    assert Point(1, 2) != Size(1, 2)
    assert Point(1, 2) != (1, 2)
    assert Nothing() == Nothing()


def test_equal_values_are_one_key():
    assert {Point(1): "a"}[Point(1, 0)] == "a"


def test_a_value_has_no_room_for_other_attributes():
    with pytest.raises(AttributeError):
        Point(1).z = 2  # type: ignore[attr-defined]


def test_replace_leaves_the_original_as_it_was():
    point = Point(1, 2)
    assert point.replace(y=3) == Point(1, 3)
    assert point == Point(1, 2)


def test_patterns_match_by_place_and_by_name():
    match Point(1, 2):
        case Size():
            pytest.fail("another class")
        case Point(x, y=2):
            assert x == 1


def test_repr_reads_like_the_call_that_makes_it():
    assert repr(Point(1, 2)) == "Point(x=1, y=2)"


def test_values_travel_by_pickle():
    assert pickle.loads(pickle.dumps(Point(1, 2), protocol=5)) == Point(1, 2)


def test_a_value_without_fields_is_true():
    assert Nothing()
