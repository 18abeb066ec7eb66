"""Reads of bytes that are not in memory never stall the loop, and slices are let go exactly once."""

from __future__ import annotations

import random
from errno import EIO

import pytest

from ottla.core.model import FileSlice
from ottla.protocol.errors import ErrorCode
from ottla.testing.simfile import Fault, SimFile
from ottla.testing.simnode import SimNode
from tests.asking import Want, batch, batches, fetch, fetched, get, produce, put


def filled(**configs: str) -> SimNode:
    """A node with 40 batches in a partition, started anew, so that it wrote none of them itself."""
    node = SimNode()
    node.create_topic("t", 2, **configs)
    for number in range(40):
        put(node, batch(b"%d" % number * 500))
        put(node, batch(b"%d" % number * 300), partition=1)
    node.kill()
    return node


def everything(node: SimNode, partition: int = 0) -> list[bytes]:
    found: list[bytes] = []
    offset = 0
    while True:
        part = get(node, Want(offset, partition=partition, bytes_max=7000))
        assert part.error_code == 0
        if not part.records:
            return found
        found += [bytes(one.view) for one in batches(part)]
        offset = batches(part)[-1].last_offset + 1


@pytest.mark.parametrize("index_bytes", ["10485760", "80"])
def test_cold_bytes_are_answered_as_warm_ones_are(index_bytes: str) -> None:
    node = filled(segment_index_bytes=index_bytes, index_interval_bytes="1000")
    warm = everything(node)
    assert len(warm) == 40
    node.disk.evict()
    assert everything(node) == warm
    assert node.stalls_count == 0


def test_a_fetch_of_cold_bytes_waits_for_them_and_others_do_not_wait_for_it() -> None:
    node = filled()
    node.disk.evict()
    call = node.connect().ask(fetch(Want(3)), 12)
    assert not call.done
    other = node.connect().ask(fetch(Want(999)), 12)
    assert fetched(other)[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    node.settle()
    assert batches(fetched(call)[0])[0].base_offset == 3
    assert node.stalls_count == 0
    assert node.disk.pinned() == []


def test_no_more_is_warmed_than_will_be_sent() -> None:
    node = filled()
    node.disk.evict()
    warmed: list[int] = []
    warm = node.disk.warm

    def counted(piece: FileSlice):
        warmed.append(piece.length)
        return warm(piece)

    node.disk.warm = counted
    call = node.connect().ask(fetch(Want(0), Want(0, partition=1), max_bytes=2000), 12)
    node.settle()
    first, second = fetched(call)
    assert first.records
    assert not second.records
    assert all(piece <= 40_000 for piece in warmed)


def test_bytes_that_the_disk_can_not_read_are_a_storage_error_of_their_partition_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = filled()
    node.disk.evict()
    node.disk.faults = [Fault("warm", EIO, path="t-0", times=1000)]
    call = node.connect().ask(fetch(Want(0), Want(0, partition=1)), 12)
    node.settle()
    bad, good = fetched(call)
    assert (bad.error_code, good.error_code) == (ErrorCode.KAFKA_STORAGE_ERROR, 0)
    assert len(batches(good)) == 40
    assert sum("could not be answered" in one.getMessage() for one in caplog.records) == 1
    assert put(node, batch(b"x")).error_code == 0, "other parts of the disk may be well"
    assert node.disk.pinned() == []


def test_a_fetch_past_an_unreadable_sector_gets_the_batches_before_it() -> None:
    node = filled()
    node.disk.evict()
    whole = everything(node)
    node.disk.evict()
    log = node.partition("t", 0).log.segments[0].log
    assert isinstance(log, SimFile)
    log.node.bad.add(1)
    before = 4096 // len(whole[0])
    for _ in range(2):
        part = get(node, Want(0))
        assert [bytes(one.view) for one in batches(part)] == whole[:before]
        assert part.error_code == 0
        assert get(node, Want(before)).error_code == ErrorCode.KAFKA_STORAGE_ERROR
        after = get(node, Want(2 * 4096 // len(whole[0]) + 1))
        assert bytes(batches(after)[-1].view) == whole[-1]
    assert node.stalls_count == 0
    assert node.disk.pinned() == []


def test_damage_that_a_read_comes_upon_is_a_storage_error_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = filled()
    segment = node.partition("t", 0).log.segments[0]
    second = batches(get(node))[0].length
    segment.log.write(b"\7", second + 16)  # its magic
    part = get(node, Want(5))
    assert part.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert not part.records
    (said,) = [one.getMessage() for one in caplog.records if "answered" in one.getMessage()]
    assert said.endswith(f"{segment.log.path}: there is no batch at byte {second}")
    assert get(node, Want(5, partition=1)).error_code == 0


def test_a_disk_that_hangs_is_a_storage_error_after_a_while() -> None:
    node = filled()
    node.disk.evict()
    call = node.connect().ask(fetch(Want(0), max_wait_ms=500), 12)
    node.loop.run()
    node.loop.advance(9.0)
    assert not call.done, "a slow disk is not yet a broken one"
    node.loop.advance(2.0)
    assert fetched(call)[0].error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert node.disk.pinned() != [], "its threads may still be reading"
    node.settle()
    assert node.disk.pinned() == []
    assert get(node).error_code == 0


def test_pages_that_leave_faster_than_they_come_end_in_an_empty_answer_not_in_a_circle() -> None:
    node = filled()
    warm = node.disk.warm

    def in_vain(piece: FileSlice):
        node.disk.evict()
        pending = warm(piece)
        node.loop.soon(node.disk.evict)
        return pending

    node.disk.evict()
    node.disk.warm = in_vain
    call = node.connect().ask(fetch(Want(0)), 12)
    for _ in range(2000):
        while node.disk.busy:
            node.disk.step()
        node.disk.evict()
        if not node.loop.turn():
            break
    (part,) = fetched(call)
    assert (part.error_code, bytes(part.records)) == (0, b"")
    assert node.disk.pinned() == []


def test_an_answer_that_its_client_does_not_take_keeps_its_file_until_the_connection_ends() -> None:
    node = filled()
    connection = node.connect()
    connection.stalled = True
    connection.ask(fetch(Want(0)), 12)
    node.settle()
    assert node.disk.pinned() == ["/data/t-0/00000000000000000000.log"]
    connection.close()
    assert node.disk.pinned() == []


def test_an_answer_under_way_outlives_the_deletion_of_its_topic() -> None:
    node = filled()
    connection = node.connect()
    connection.stalled = True
    call = connection.ask(fetch(Want(0)), 12)
    node.settle()
    node.delete_topic("t")
    node.settle()
    connection.read()
    assert len(batches(fetched(call)[0])) == 40
    assert node.disk.pinned() == []


@pytest.mark.parametrize("seed", range(60))
def test_whatever_becomes_of_a_connection_its_slices_are_let_go_once(seed: int) -> None:
    rng = random.Random(seed)
    node = SimNode(seed)
    node.create_topic("t", 2, segment_index_bytes="80", index_interval_bytes="0")
    connections = [node.connect() for _ in range(4)]
    ends = [0, 0]
    for _ in range(120):
        at = rng.randrange(4)
        connection = connections[at]
        match rng.choice(("fetch", "fetch", "produce", "stall", "read", "close", "evict", "time")):
            case "fetch":
                wants = [Want(rng.randint(0, ends[n]), partition=n) for n in (0, 1)]
                least, most = rng.choice((1, 5000)), rng.choice((1 << 20, 500))
                body = fetch(*wants, min_bytes=least, max_bytes=most, max_wait_ms=300)
                connection.ask(body, 12)
            case "produce":
                number = rng.randrange(2)
                connection.ask(produce({("t", number): batch(rng.randbytes(300))}), 9)
                ends[number] = node.partition("t", number).high_watermark
            case "stall":
                connection.stalled = True
            case "read":
                connection.read()
            case "close":
                connection.close()
                connections[at] = node.connect()
            case "evict":
                node.disk.evict()
            case "time":
                node.loop.advance(rng.choice((0.1, 0.4)))
        node.steps(rng.choice((0, 1, 5, 20)))
    for connection in connections:
        connection.close()
    node.settle()
    assert node.disk.pinned() == [], "retained more often than released"
    assert not any(partition.readers for partition in node.table), "waiters of gone connections"
    assert node.context.kept["fetch"].parked == 0
