"""A log's file read through: every batch is found, in reads that the kernel sees follow each other."""

from __future__ import annotations

from typing import cast

import pytest

from ottla.core.model import Offset
from ottla.core.ports import File
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from ottla.storage.scanning import HEADERS_CHUNK, batches, contains_batch


class Counted:
    """A file in memory that counts how often it is read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads = 0

    def read(self, position: int, length: int) -> bytes:
        found = self.content[position : position + length]
        self.reads += 1
        return found


def log_of(sizes: list[int]) -> tuple[Counted, list[int]]:
    """A log of batches with values of these sizes, and where each begins."""
    content, begins = bytearray(), []
    for size in sizes:
        batch = build_batch([Record(None, bytes(size), 1000)])
        begins.append(len(content))
        content += batch
    return Counted(bytes(content)), begins


def found_in(file: Counted, whole: bool) -> list[int]:
    places = []
    for batch, at in batches(cast("File", file), 0, len(file.content), whole=whole):
        assert BatchView(memoryview(file.content), at).crc == batch.crc
        assert not whole or len(batch.view) == batch.length
        places.append(at)
    return places


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "sizes", [[10] * 2000, [20_000] * 20, [10, 20_000, 10, 10, 70_000, 10, 9000, 10], [10], []]
)
def test_every_batch_is_found_where_it_begins(sizes: list[int], whole: bool) -> None:
    file, begins = log_of(sizes)
    assert found_in(file, whole) == begins


@pytest.mark.parametrize("sizes", [[10] * 2000, [20_000] * 50])
def test_headers_are_read_with_what_lies_between_lest_a_disk_be_asked_for_each(
    sizes: list[int],
) -> None:
    file, _ = log_of(sizes)
    found_in(file, whole=False)
    assert file.reads <= 2 * len(file.content) // HEADERS_CHUNK + 2


def test_only_a_batch_that_would_go_on_shows_that_something_is_missing_before_it() -> None:
    old = bytes(build_batch([Record(None, b"v", 1000)], base_offset=3))
    tail = b"torn" * 5 + old
    assert contains_batch(tail, Offset(3))
    assert not contains_batch(tail, Offset(4)), "what a cut file held before may lie there"
