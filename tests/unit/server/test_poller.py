"""Poller: one epoll for all connections, watched by the loop through one descriptor."""

from __future__ import annotations

import socket
import sys

import pytest

from ottla.server.poller import Poller
from tests.unit.server.doubles import Loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll is Linux's")


class Rig:
    """Pairs of sockets, and a poller whose loop turns when the test says so."""

    def __init__(self):
        self.loop = Loop()
        self.poller = Poller(self.loop)
        self.sockets = []
        self.heard = []

    def pair(self):
        pair = socket.socketpair()
        self.sockets += pair
        return pair

    def reads(self, name, sock):
        self.poller.add_reader(sock.fileno(), lambda: self.heard.append(name))

    def turn(self):
        self.heard.clear()
        for poll in list(self.loop.readers.values()):
            poll()
        return list(self.heard)


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.poller.close()
    for sock in rig.sockets:
        sock.close()


def test_the_loop_watches_one_descriptor_for_all_sockets(rig):
    for name in "ab":
        mine, _ = rig.pair()
        rig.reads(name, mine)
    assert len(rig.loop.readers) == 1


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


def test_closing_gives_the_loop_its_descriptor_back_and_may_be_repeated(rig):
    rig.poller.close()
    rig.poller.close()
    assert rig.loop.readers == {}
