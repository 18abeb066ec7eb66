"""A disk that fills up, on a simulated node (I33): who is refused, who is not, and what comes back.

On a real file system: tests/faults/test_disk_full.py.
"""

from __future__ import annotations

import logging
from errno import ENOSPC

import pytest

from ottla.core.pending import Pending
from ottla.core.ports import Space
from ottla.protocol.errors import ErrorCode
from ottla.testing.simfile import Fault
from ottla.testing.simnode import SimNode
from tests.asking import Want, batch, batches, get, put

GIB = 1 << 30


class World:
    def __init__(self, **given: str) -> None:
        self.node = SimNode(**given)
        self.node.create_topic("t")

    def room(self, usable: int, total: int = 100 * GIB) -> None:
        """The disk has this much room, and the node has had the time to see it."""
        self.node.disk.room = Space(total, usable)
        self.node.advance(11)

    def files(self, usable: int, files: int) -> None:
        """The same of the files that can be made."""
        self.node.disk.room = Space(100 * GIB, 50 * GIB, files, usable)
        self.node.advance(11)

    def put(self) -> int:
        return put(self.node, batch(b"x")).error_code


@pytest.mark.parametrize(
    ("total", "least"), [(100 * GIB, GIB), (2 * GIB, 2 * GIB // 20)], ids=["1 GiB", "a twentieth"]
)
def test_with_less_room_than_usual_produce_is_refused_with_a_retriable_error(
    total: int, least: int
) -> None:
    world = World()
    world.room(least, total)
    assert world.put() == 0
    world.room(least - 1, total)
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR


def test_the_option_says_how_much_must_be_free() -> None:
    world = World(log_free_bytes_min="1000")
    world.room(1000)
    assert world.put() == 0
    world.room(999)
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR


@pytest.mark.parametrize(
    ("given", "files", "least"),
    [({}, 1 << 20, 1024), ({}, 2000, 100), ({}, 200, 64), ({"log_free_files_min": "7"}, 200, 7)],
    ids=["1024", "a twentieth", "64", "as given"],
)
def test_where_few_files_can_be_made_produce_is_refused_as_well(
    caplog: pytest.LogCaptureFixture, given: dict[str, str], files: int, least: int
) -> None:
    """Without an inode no segment is begun, and no start could write its checkpoints."""
    world = World(**given)
    world.files(least, files)
    assert world.put() == 0
    world.files(least - 1, files)
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR
    assert f"has {least - 1} files (inodes) left, less than the {least} files" in caplog.text
    assert "log.free.files.min" in caplog.text
    world.files(least + least // 16, files)
    assert world.put() == 0
    assert f"has 50 GiB and {least + least // 16} files (inodes) again" in caplog.text


@pytest.mark.parametrize("files", [0, 1])
def test_a_file_system_without_a_fixed_number_of_files_has_enough_of_them(files: int) -> None:
    world = World()
    world.files(0, files)
    assert world.put() == 0


def test_a_number_of_files_that_counts_for_nothing_refuses_nobody_after_the_disk_was_full() -> None:
    world = World(log_free_files_min="0")
    world.files(0, 100)
    world.node.table.ran_full()
    world.room(50 * GIB)
    world.files(0, 100)
    assert world.put() == 0


def test_i33_nothing_is_appended_by_what_is_refused_and_reading_goes_on() -> None:
    world = World()
    world.put()
    world.room(0)
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR
    partition = world.node.partition("t")
    assert (partition.log.end, partition.high_watermark) == (1, 1)
    assert len(batches(get(world.node))) == 1


def test_a_batch_that_is_wrong_is_still_told_so() -> None:
    world = World()
    world.room(0)
    assert put(world.node, None).error_code == ErrorCode.INVALID_RECORD


def test_produce_is_taken_again_by_itself_once_there_is_room_and_a_little_more() -> None:
    world = World()
    world.room(GIB - 1)
    world.room(GIB)
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR, "not on and off"
    world.room(GIB + GIB // 16)
    assert world.put() == 0


def test_it_is_told_once_with_what_helps_and_once_that_it_is_over(caplog) -> None:
    world = World()
    caplog.set_level(logging.WARNING, "ottla.space")
    for _ in range(5):
        world.room(0)
        world.put()
    world.room(50 * GIB)
    told = [record.message for record in caplog.records if record.name == "ottla.space"]
    assert len(told) == 2
    assert "log.free.bytes.min" in told[0]
    assert "Delete topics" in told[0]
    assert "produce is taken" in told[1]


def test_deleted_files_are_not_kept_for_their_delay_while_there_is_little_room() -> None:
    world = World()
    world.put()
    world.node.delete_topic("t")
    world.node.settle()
    assert len(world.node.directory.removals) == 2
    world.room(0)
    world.node.advance(1)
    assert len(world.node.directory.removals) == 0


def test_retention_looks_at_once_when_room_becomes_short() -> None:
    world = World(log_segment_bytes=str(1 << 20), log_retention_bytes="1000000")
    for _ in range(6):
        put(world.node, batch(bytes(500_000)))
    world.node.disk.room = Space(100 * GIB, 0)
    world.node.advance(10)
    assert world.node.partition("t").log.start == 4


def test_a_write_that_finds_no_room_is_taken_back_and_the_room_asked_for_at_once() -> None:
    world = World()
    world.put()
    world.room(50 * GIB)
    world.node.disk.room = Space(100 * GIB, 10)
    world.node.disk.faults = [Fault("write", ENOSPC, path=".log", short=20)]
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR
    assert world.node.table.little_room, "asked without waiting for the next time"
    assert world.node.table.failure is None
    world.room(50 * GIB)
    assert world.put() == 0
    assert [one.base_offset for one in batches(get(world.node, Want(offset=0)))] == [0, 1]


def test_a_disk_that_does_not_tell_its_room_refuses_nobody(caplog) -> None:
    world = World()
    world.node.disk.faults = [Fault("ask for the space of", times=100)]
    world.room(0)
    world.room(0)
    assert world.put() == 0
    assert sum("is not known" in record.message for record in caplog.records) == 1


def test_room_is_asked_for_more_often_the_less_there_is() -> None:
    world = World()
    asked: list[float] = []
    space = world.node.disk.space

    def counting(path: str) -> Pending[Space]:
        asked.append(world.node.loop.monotonic())
        return space(path)

    world.node.disk.space = counting
    for usable, most in ((90 * GIB, 2), (2 * GIB, 22)):
        world.room(usable)
        asked.clear()
        for _ in range(40):
            world.node.advance(0.25)
        assert most // 2 <= len(asked) <= most


def test_a_disk_that_ran_full_needs_some_room_whatever_the_option_says() -> None:
    world = World(log_free_bytes_min="0")
    world.put()
    world.node.disk.room = Space(100 * GIB, 10)
    world.node.disk.faults = [Fault("write", ENOSPC, path=".log")]
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR
    world.room(1 << 20)
    assert world.put() == ErrorCode.KAFKA_STORAGE_ERROR, "each try would be taken back"
    world.room(GIB)
    assert world.put() == 0
