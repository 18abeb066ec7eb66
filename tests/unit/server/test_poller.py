"""Poller: one epoll for the loop and all connections, in which the loop waits."""

from __future__ import annotations

import selectors
import socket
import sys

import pytest

from ottla.server.poller import Loop, Poller, new_loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


class Rig:
    """Pairs of sockets, and a poller that turns when the test says so."""

    def __init__(self):
        self.poller = Poller()
        self.sockets = []
        self.heard = []

    def pair(self):
        pair = socket.socketpair()
        self.sockets += pair
        return pair

    def reads(self, name, sock):
        self.poller.add_reader(sock.fileno(), lambda: self.heard.append(name))

    def turn(self):
        """Whose calls were made. What is the loop's own: `told`."""
        self.heard.clear()
        self.told = [(key.data, events) for key, events in self.poller.select(0)]
        return list(self.heard)


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.poller.close()
    for sock in rig.sockets:
        sock.close()


def test_only_sockets_that_are_ready_are_called(rig):
    (a, to_a), (b, _) = rig.pair(), rig.pair()
    rig.reads("a", a)
    rig.reads("b", b)
    to_a.send(b"x")
    assert rig.turn() == ["a"]


def test_a_socket_that_was_not_read_is_called_again(rig):
    mine, peer = rig.pair()
    rig.reads("a", mine)
    peer.send(b"x")
    assert rig.turn() == rig.turn() == ["a"]


def test_a_reader_and_a_writer_of_one_socket_are_both_called(rig):
    mine, peer = rig.pair()
    rig.reads("read", mine)
    rig.poller.add_writer(mine.fileno(), lambda: rig.heard.append("write"))
    assert rig.turn() == ["write"]
    peer.send(b"x")
    assert rig.turn() == ["read", "write"]
    rig.poller.remove_writer(mine.fileno())
    assert rig.turn() == ["read"]


def test_a_hangup_is_not_told_to_who_does_not_listen(rig):
    mine, peer = rig.pair()
    rig.reads("a", mine)
    rig.poller.remove_reader(mine.fileno())
    peer.close()
    assert rig.turn() == []


def test_a_socket_closed_by_the_call_before_is_not_called(rig):
    (a, to_a), (b, to_b) = rig.pair(), rig.pair()

    def close_the_other(name, other):
        rig.heard.append(name)
        rig.poller.remove_reader(other.fileno())

    rig.poller.add_reader(a.fileno(), lambda: close_the_other("a", b))
    rig.poller.add_reader(b.fileno(), lambda: close_the_other("b", a))
    to_a.send(b"x")
    to_b.send(b"x")
    assert len(rig.turn()) == 1


def test_removing_what_was_not_added_does_nothing(rig):
    mine, _ = rig.pair()
    rig.poller.remove_reader(mine.fileno())
    rig.poller.remove_writer(mine.fileno())
    assert rig.turn() == []


def test_what_the_loop_registers_comes_back_to_it_and_calls_nobody(rig):
    (mine, peer), (driven, to_driven) = rig.pair(), rig.pair()
    rig.poller.register(mine.fileno(), selectors.EVENT_READ, "the loop's")
    rig.reads("driver", driven)
    assert (rig.turn(), rig.told) == ([], [])
    peer.send(b"x")
    to_driven.send(b"x")
    assert rig.turn() == ["driver"]
    assert rig.told == [("the loop's", selectors.EVENT_READ)]


def test_the_loop_hears_of_the_sides_it_asked_for_and_of_no_other(rig):
    mine, peer = rig.pair()
    peer.send(b"x")
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    rig.poller.register(mine, both, "a")
    rig.turn()
    assert rig.told == [("a", both)]
    rig.poller.modify(mine, selectors.EVENT_WRITE, "b")
    rig.turn()
    assert rig.told == [("b", selectors.EVENT_WRITE)]
    peer.close()  # a hangup counts as either, so that whoever waits sees it
    rig.turn()
    assert rig.told == [("b", selectors.EVENT_WRITE)]
    assert rig.poller.get_key(mine.fileno()).data == "b"
    assert rig.poller.unregister(mine).data == "b"
    rig.turn()
    assert rig.told == []
    assert not rig.poller.get_map()


def test_registering_twice_or_what_is_not_there_is_refused_as_by_other_selectors(rig):
    mine, _ = rig.pair()
    rig.poller.register(mine, selectors.EVENT_READ)
    with pytest.raises(KeyError):
        rig.poller.register(mine, selectors.EVENT_READ)
    rig.poller.unregister(mine)
    with pytest.raises(KeyError):
        rig.poller.unregister(mine)
    with pytest.raises(KeyError):
        rig.poller.modify(mine, selectors.EVENT_READ)


def test_a_descriptor_that_is_closed_already_can_be_unregistered(rig):
    mine, _ = rig.pair()
    key = rig.poller.register(mine, selectors.EVENT_READ)
    mine.close()
    assert rig.poller.unregister(key.fd) is key


@pytest.mark.parametrize(
    ("asked_s", "waited_s"), [(None, -1), (0, 0), (-1, 0), (0.0101, 0.011), (2, 2)]
)
def test_a_wait_is_rounded_up_to_whole_milliseconds(rig, asked_s, waited_s):
    waits = []
    rig.poller._wait = lambda timeout, _events_max: waits.append(timeout) or []
    rig.poller.select(asked_s)
    assert waits == [pytest.approx(waited_s)]


def test_a_loop_calls_drivers_beside_its_own_work():
    loop = new_loop(portable=False)
    assert isinstance(loop, Loop)
    mine, peer = socket.socketpair()
    try:
        heard = []

        def driver():
            heard.append(mine.recv(10))
            loop.call_soon(loop.stop)

        loop.readiness.add_reader(mine.fileno(), driver)
        loop.call_soon(peer.send, b"x")
        loop.run_forever()
        assert heard == [b"x"]
        loop.readiness.remove_reader(mine.fileno())
        loop.call_soon_threadsafe(loop.stop)  # its wake-up is in the same epoll
        loop.run_forever()
    finally:
        loop.close()
        mine.close()
        peer.close()


def test_without_epoll_the_loop_is_an_ordinary_one():
    loop = new_loop(portable=True)
    assert not isinstance(loop, Loop)
    loop.close()
