"""A log's file read through at a start: its batches by their headers, and what follows damage.

Owns the reading in large pieces, and what a header must say to be one. Blocks: at start, and on
threads of the disk. Must not judge what it finds: `recovery` does.
"""

from __future__ import annotations

from collections.abc import Iterator

from ottla.core.model import Offset
from ottla.core.ports import File
from ottla.records.batch import CRC_START, HEADER_SIZE, LOG_OVERHEAD, MAGIC, BatchView
from ottla.records.crc import crc32c

CHUNK = 1 << 20
HEADERS_CHUNK = 64 << 10
"""Read for headers alone, too: from a disk, reads that leave something out are slower than all."""
_SEARCH_BUDGET = 1 << 30


def batches(
    file: File, position: int, size: int, whole: bool = True
) -> Iterator[tuple[BatchView, int]]:
    """Batches with sane headers, and where they lie; ends at the first that is not one.

    Checks no checksum. Each has all of its bytes if `whole`; its view is valid until the next.
    """
    chunk = memoryview(b"")
    chunk_at = position
    chunk_bytes = CHUNK if whole else HEADERS_CHUNK
    while position + HEADER_SIZE <= size:
        at = position - chunk_at
        if at + HEADER_SIZE > len(chunk):
            chunk, chunk_at, at = memoryview(file.read(position, chunk_bytes)), position, 0
            if len(chunk) < HEADER_SIZE:
                return
        batch = BatchView(chunk, at)
        if not sane(batch) or position + batch.length > size:
            return
        if whole and at + batch.length > len(chunk):
            chunk = memoryview(file.read(position, max(chunk_bytes, batch.length)))
            chunk_at = position
            batch = BatchView(chunk)
            if len(chunk) < batch.length:
                return
        yield batch, position
        position += batch.length


def sane(batch: BatchView) -> bool:
    """Whether a header can be one: what needs no checksum to see."""
    return (
        batch.length >= HEADER_SIZE
        and batch.magic == MAGIC
        and batch.base_offset >= 0
        and batch.last_offset_delta >= 0
        and batch.leader_epoch >= -1
    )


def contains_batch(tail: bytes, expected: Offset) -> bool:
    """Whether a sound batch with offsets from `expected` on begins anywhere in `tail`.

    Looks at every byte that could be the magic. Bytes made to look like headers could make
    this slow: past a budget of checksummed bytes the answer is True, the careful one.
    """
    view = memoryview(tail)
    budget = _SEARCH_BUDGET
    at = tail.find(MAGIC, 16)
    while at >= 0:
        begin = at - 16
        at = tail.find(MAGIC, at + 1)
        if begin + HEADER_SIZE > len(tail):
            return False
        length = int.from_bytes(tail[begin + 8 : begin + 12], "big", signed=True) + LOG_OVERHEAD
        if not HEADER_SIZE <= length <= len(tail) - begin:
            continue
        batch = BatchView(view, begin)
        if not sane(batch) or batch.base_offset < expected:
            continue
        budget -= length
        if budget < 0 or crc32c(batch.view[CRC_START:]) == batch.crc:
            return True
    return False
