"""One thing at a time for each key, in the order asked."""

import pytest

from ottla.cluster.lanes import Lanes
from ottla.cluster.store import StoreError
from ottla.core.pending import Pending, completed


class Work:
    """Work that is done when the test says so."""

    def __init__(self, lanes: Lanes, key: str) -> None:
        self.begun = False
        self.pending: Pending[str] = Pending()
        self.result = lanes.run(key, self._begin)

    def _begin(self) -> Pending[str]:
        self.begun = True
        return self.pending


def test_work_of_one_key_waits_for_the_work_before_it():
    lanes = Lanes()
    first, second, other = Work(lanes, "a"), Work(lanes, "a"), Work(lanes, "b")
    assert (first.begun, second.begun, other.begun) == (True, False, True)
    first.pending.complete("one")
    assert (first.result.result(), second.begun) == ("one", True)
    assert not second.result.done


def test_who_waits_is_answered_before_the_next_begins():
    lanes, order = Lanes(), []
    first = Work(lanes, "a")
    first.result.then(lambda: order.append("answered"))
    lanes.run("a", lambda: completed(order.append("begun")))
    first.pending.complete("one")
    assert order == ["answered", "begun"]


def test_a_store_that_fails_does_not_hold_up_what_follows():
    lanes = Lanes()
    first, second = Work(lanes, "a"), Work(lanes, "a")
    first.pending.fail(StoreError("gone"))
    with pytest.raises(StoreError, match="gone"):
        first.result.result()
    second.pending.complete("two")
    assert second.result.result() == "two"


def test_much_that_is_done_at_once_goes_through_without_recursion():
    lanes = Lanes()
    first = Work(lanes, "a")
    many = [lanes.run("a", lambda n=n: completed(n)) for n in range(5000)]
    first.pending.complete("one")
    assert [pending.result() for pending in many] == list(range(5000))
    assert lanes._waiting == {}


def test_a_bug_in_one_does_not_close_the_lane_to_others():
    lanes = Lanes()

    def broken() -> Pending[None]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lanes.run("a", broken)
    assert Work(lanes, "a").begun
