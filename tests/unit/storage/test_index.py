"""Sparse indexes: entries pending in memory and written in the file, searched as one."""

from __future__ import annotations

from bisect import bisect_right
from errno import ENOSPC

import pytest

from ottla.core.ports import CreateFile
from ottla.storage.index import OFFSET_ENTRY, NotResident, SparseIndex, open_index
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk(0)


def new(disk: SimDisk) -> SparseIndex:
    return SparseIndex(disk.perform_now([CreateFile("/i")])[0], OFFSET_ENTRY, 0, None)


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 511, 512, 513, 1500, 5000])
@pytest.mark.parametrize("field", [0, 1])
def test_the_floor_is_the_last_entry_not_above(disk, count, field):
    index = new(disk)
    entries = [(3 * n + (n * n) // 50, 100 * n + n * n) for n in range(1, count + 1)]
    for entry in entries:
        index.add(*entry)
    keys = [entry[field] for entry in entries]
    values = {0, 1, *(key + delta for key in keys[:: max(1, count // 97)] for delta in (-1, 0, 1))}
    for value in values:
        at = bisect_right(keys, value) - 1
        assert index.floor(value, field) == (None if at < 0 else (at, entries[at]))


def test_few_entries_wait_in_memory_and_many_are_written(disk):
    index = new(disk)
    for n in range(1, 64):
        index.add(n, n)
    assert index.file.size() == 0
    index.add(64, 64)
    assert index.file.size() == 64 * 8


def test_entries_that_could_not_be_written_are_still_found_and_written_later(disk):
    index = new(disk)
    disk.faults = [Fault("write", ENOSPC, short=13)]
    for n in range(1, 70):
        index.add(n, n * 10)
    assert index.floor(5, 0) == (4, (5, 50))
    index.write_out()
    assert open_index(index.file, OFFSET_ENTRY).count == 69


def test_pages_that_are_not_in_memory_are_not_waited_for(disk):
    index = new(disk)
    for n in range(1, 2000):
        index.add(n, n)
    disk.evict()
    with pytest.raises(NotResident):
        index.floor(700, 0)


@pytest.mark.parametrize("raw", [b"1234567", bytes(16), b"\xff" * 8, bytes(range(1, 17))[::-1]])
def test_an_index_that_can_not_be_right_is_not_opened(disk, raw):
    file = disk.perform_now([CreateFile("/i", raw)])[0]
    assert open_index(file, OFFSET_ENTRY) is None


def test_an_index_file_cut_under_us_is_given_up(disk):
    index = new(disk)
    for n in range(1, 2000):
        index.add(n, n)
    index.file.truncate(0)
    with pytest.raises(NotResident):
        index.floor(700, 0)
    assert index.floor(700, 0) is None
