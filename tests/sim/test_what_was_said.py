"""I1, I2, I3, I6, I7 and I8, each by itself and in its smallest form: what clients were told.

In all mixtures at once they are tried by test_node_crashes.py; here each can fail alone.
"""

from __future__ import annotations

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.fetch import PartitionData
from ottla.records.builder import Producer
from ottla.testing.simnode import SimNode
from tests.asking import Want, batch, batches, fetch, fetched, get, produce, produced, put, stored


@pytest.fixture
def node() -> SimNode:
    node = SimNode()
    node.create_topic("t", segment_index_bytes="40", index_interval_bytes="0")
    return node


def contents(node: SimNode) -> dict[int, bytes]:
    """What a consumer reads from the start to the end, by offset."""
    found: dict[int, bytes] = {}
    offset = 0
    while True:
        part = get(node, Want(offset))
        assert part.error_code == 0
        there = batches(part)
        if not there:
            return found
        for one in there:
            found[one.base_offset] = stored(bytes(one.view))
            offset = one.last_offset + 1


def test_i1_what_was_acknowledged_by_all_is_read_after_a_power_cut(node: SimNode) -> None:
    sent = [batch(b"value %d" % number) for number in range(20)]
    offsets = []
    for raw in sent:
        call = node.connect().ask(produce({("t", 0): raw}), 9)
        while not call.done:  # not a step further: what was not synced by then is lost
            assert node.step()
        offsets.append(produced(call).base_offset)
        node.crash("nothing")
    assert contents(node) == {at: stored(raw) for at, raw in zip(offsets, sent, strict=True)}


def test_i2_an_offset_that_was_read_never_holds_anything_else(node: SimNode) -> None:
    """Also where what was written behind it, and not read, is lost and its offsets are given anew."""
    put(node, batch(b"read"))
    node.connect().ask(produce({("t", 0): batch(b"written, perhaps not synced")}, 1), 9)
    before = contents_now(node)
    node.crash("nothing")
    for number in range(3):
        put(node, batch(b"new %d" % number))
    after = contents(node)
    assert before.items() <= after.items()


def fetched_now(node: SimNode) -> PartitionData:
    """What a fetch is given without the disk doing anything meanwhile."""
    call = node.connect().ask(fetch(Want(0)), 12)
    while node.loop.turn():
        pass
    (part,) = fetched(call)
    return part


def contents_now(node: SimNode) -> dict[int, bytes]:
    return {one.base_offset: stored(bytes(one.view)) for one in batches(fetched_now(node))}


def test_i3_offsets_follow_the_order_in_which_a_producer_has_sent(node: SimNode) -> None:
    """Five in flight, over rolls; and what comes before its predecessor is refused."""
    connection = node.connect()
    sent = [batch(b"%d" % at, producer=Producer(7, 0, at)) for at in range(15)]
    calls = []
    for at, raw in enumerate(sent):
        calls.append(connection.ask(produce({("t", 0): raw}), 9))
        if at % 5 == 4:
            node.settle()
    assert [produced(call).base_offset for call in calls] == list(range(15))
    early = put(node, batch(b"16", producer=Producer(7, 0, 16)))
    assert early.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert list(contents(node).values()) == [stored(raw) for raw in sent]


def test_i6_a_batch_that_is_sent_again_is_there_once_also_after_a_restart(node: SimNode) -> None:
    raw = batch(b"once", producer=Producer(7, 0, 0))
    first = put(node, raw)
    put(node, batch(b"another's"))
    for restart in (lambda: None, node.kill, lambda: node.crash("nothing"), node.stop):
        restart()
        again = put(node, raw)
        assert (again.error_code, again.base_offset) == (0, first.base_offset)
    assert list(contents(node).values()).count(stored(raw)) == 1


def test_i7_nothing_is_read_that_is_not_committed(node: SimNode) -> None:
    put(node, batch(b"synced"))
    node.connect().ask(produce({("t", 0): batch(b"not synced")}, 1), 9)
    assert list(contents_now(node)) == [0]
    node.settle()
    assert list(contents_now(node)) == [0, 1]


def test_i8_the_high_watermark_that_was_told_never_falls_back(node: SimNode) -> None:
    told = 0
    for number in range(6):
        put(node, batch(b"%d" % number))
        node.connect().ask(produce({("t", 0): batch(b"not synced")}, 1), 9)
        told = max(told, fetched_now(node).high_watermark)
        node.crash("nothing")
        assert get(node, Want(0)).high_watermark >= told
    assert told == 6
