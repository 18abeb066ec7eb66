"""The aborted transactions of a segment, in their file."""

from __future__ import annotations

import random

import pytest

from ottla.core.model import Offset
from ottla.core.ports import CreateFile, DiskError, File
from ottla.storage.aborted import Aborted, AbortedIndex, open_aborted
from ottla.storage.index import NotResident
from ottla.testing.simdisk import SimDisk

BASE = Offset(100)


def new_file() -> File:
    return SimDisk(0).perform_now([CreateFile("/00000000000000000100.txnindex")])[0]


def index_of(*entries: Aborted) -> AbortedIndex:
    index = AbortedIndex(new_file())
    for entry in entries:
        index.stage(entry)
        index.take()
    return index


def aborted(first: int, last: int, stable: int, producer_id: int = 7) -> Aborted:
    return Aborted(producer_id, Offset(first), Offset(last), Offset(stable))


def test_an_entry_has_the_bytes_of_kafkas_own():
    index = index_of(aborted(101, 105, 106, producer_id=3))
    fields = (b"\0\0", b"\0" * 7 + b"\3", b"\0" * 7 + b"e", b"\0" * 7 + b"i", b"\0" * 7 + b"j")
    assert index.file.read(0, 100) == b"".join(fields)


def test_a_staged_entry_counts_only_when_it_is_taken():
    index = index_of(aborted(101, 105, 106))
    index.stage(aborted(107, 109, 110))
    assert index.search(BASE, Offset(200)) == ([aborted(101, 105, 106)], False)
    index.stage(aborted(106, 108, 109))  # the append of the other one failed
    index.take()
    assert index.search(BASE, Offset(200))[0] == [aborted(101, 105, 106), aborted(106, 108, 109)]


def test_settling_cuts_what_was_staged_for_an_append_that_failed():
    index = index_of(aborted(101, 105, 106))
    index.stage(aborted(107, 109, 110))
    index.settle()
    assert index.file.size() == 34


def test_an_index_that_is_opened_finds_what_was_written():
    written = index_of(aborted(101, 105, 106), aborted(90, 107, 108))
    opened = open_aborted(written.file, BASE)
    assert opened is not None
    assert opened.search(BASE, Offset(200)) == written.search(BASE, Offset(200))


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 33,
        b"\0\1" + b"\0" * 32,
        b"".join([b"\0\0", *(n.to_bytes(8, "big") for n in (7, 101, 99, 120))]),
        b"".join([b"\0\0", *(n.to_bytes(8, "big") for n in (7, 106, 105, 120))]),
        b"".join([b"\0\0", *(n.to_bytes(8, "big") for n in (7, 104, 105, 1 << 63))]),
        b"".join([b"\0\0", *(n.to_bytes(8, "big") for n in (7, 101, 105, 106))]) * 2,
    ],
    ids=["cut", "version", "below the segment", "ends first", "unstable", "not rising"],
)
def test_an_index_that_cant_be_right_is_not_opened(content: bytes):
    file = new_file()
    file.write(content, 0)
    assert open_aborted(file, BASE) is None


def test_a_transaction_taken_back_while_an_older_one_was_open_is_believed():
    index = index_of(aborted(162, 186, 101))
    assert open_aborted(index.file, BASE) is not None


def test_a_search_that_meets_pages_which_are_not_in_memory_says_which():
    disk = SimDisk(0)
    file = disk.perform_now([CreateFile("/i.txnindex")])[0]
    index = AbortedIndex(file)
    index.stage(aborted(101, 105, 106))
    index.take()
    disk.evict()
    with pytest.raises(NotResident):
        index.search(BASE, Offset(200))


def test_a_search_finds_what_a_walk_over_all_transactions_finds():
    chance = random.Random(20260)
    for _ in range(300):
        entries: list[Aborted] = []
        end = BASE
        begun: list[int] = []
        while len(entries) < chance.randrange(1, 400):
            begun += range(end, end + chance.randrange(4))
            end = Offset(max([*begun, end - 1]) + 1 + chance.randrange(3))
            if begun:
                first = begun.pop(chance.randrange(len(begun)))
                entries.append(aborted(first, end, min([*begun, end + 1])))
                end = Offset(end + 1)
        index = index_of(*entries)
        offset = Offset(chance.randrange(BASE, end + 2))
        upper = Offset(offset + chance.randrange(1, end + 3 - offset))
        expected = [
            one for one in entries if one.last_offset >= offset and one.first_offset < upper
        ]
        found, complete = index.search(offset, upper)
        assert found == expected
        assert complete == any(
            one.last_stable >= upper for one in entries if one.last_offset >= offset
        )


def test_a_file_that_was_cut_is_an_error_and_not_an_end_of_aborted_transactions():
    index = index_of(aborted(101, 105, 106), aborted(107, 109, 110))
    index.file.truncate(34)
    with pytest.raises(DiskError):
        index.search(BASE, Offset(200))
