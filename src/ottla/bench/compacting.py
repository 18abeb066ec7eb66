"""What compaction costs: CPU for each byte of log, as a worker process spends it.

Owns the logs that are compacted and the measuring. No broker and no other process: what a worker
does is done here, so that its CPU can be told from everything else's.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ottla.bench.stats import Spread, number, spread
from ottla.host import cleaning
from ottla.records.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD, MAGIC, stamp_crc
from ottla.records.compress import CODEC_NAMES, LZ4, NONE, compress
from ottla.storage.cleaner.cleaner import Failure
from ottla.storage.cleaner.round import Piece, Plan

_SEGMENT_BYTES = 64 << 20
_BATCH_BYTES = 16 << 10
_BUFFER_BYTES = 128 << 20
_NO_LIMIT = 1.7976931348623157e308
_TIME_MS = 1_700_000_000_000

EXPLANATION = """\
MB of records, not compressed, for each second of CPU: keys noted, segments read, written and
synced. All of the log is dirty, so it is read twice. The most is the figure to compare: what else
the machine does can only take from it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A log to compact. `keys_share`: distinct keys, as a share of the records."""

    name: str
    value_bytes: int
    keys_share: float
    codec: int
    budget_mb_per_s: float


CASES = (
    Case("1 KiB values", 1024, 0.25, NONE, 150),
    Case("1 KiB values, lz4", 1024, 0.25, LZ4, 150),
    Case("100 B values", 100, 0.1, NONE, 40),
    Case("100 B values, every key once", 100, 1.0, NONE, 40),
)


@dataclass(frozen=True, slots=True)
class Timing:
    case: Case
    records: int
    found: Spread

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.case.name,
            "codec": CODEC_NAMES[self.case.codec],
            "records": self.records,
            "budget_mb_per_cpu_s": self.case.budget_mb_per_s,
            "mb_per_cpu_s": self.found.as_json(),
        }


def measure(size_mib: int, rounds: int) -> Iterator[Timing]:
    """Each case, `rounds` times over a log of about `size_mib`."""
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="ottla-compact-") as folder:
            pieces, records, size = write_log(Path(folder), case, size_mib << 20)
            runs = [size / 1e6 / _compacted_s(folder, pieces) for _ in range(rounds)]
        found = spread(runs)
        assert found is not None
        yield Timing(case, records, found)


def _compacted_s(folder: str, pieces: Sequence[Piece]) -> float:
    """CPU seconds of one round; its outcome is thrown away."""
    end = pieces[-1].end
    plan = Plan(folder, pieces, 0, end, (), {}, _TIME_MS, 86_400_000, 4096, _BUFFER_BYTES, 1 << 27)
    begun = time.process_time()
    noted = cleaning.note(plan, _NO_LIMIT)
    assert not isinstance(noted, Failure), noted.text
    for piece in pieces:
        if piece.base_offset < noted.known_to:
            cleaned = cleaning.clean([piece])
            assert not isinstance(cleaned, Failure), cleaned.text
    spent = time.process_time() - begun
    for path in Path(folder).glob("*.cleaned"):
        path.unlink()
    return spent


def write_log(folder: Path, case: Case, size_max: int) -> tuple[list[Piece], int, int]:
    """Segments of a log: them, how many records are in it, and their bytes uncompressed."""
    chance = random.Random(1)
    blocks = os.urandom(1 << 16)
    count = max(1, _BATCH_BYTES // case.value_bytes)
    keys_count = max(1, int(size_max / (case.value_bytes + 24) * case.keys_share))
    pieces: list[Piece] = []
    offset = size = 0
    while size < size_max:
        base, written = offset, 0
        with (folder / f"{base:020d}.log").open("wb") as file:
            while written < min(_SEGMENT_BYTES, size_max) and size < size_max:
                keys = [
                    offset + at if case.keys_share >= 1 else chance.randrange(keys_count)
                    for at in range(count)
                ]
                raw = _records(keys, case.value_bytes, blocks)
                batch = _batch(raw, offset, count, case.codec)
                written += file.write(batch)
                size += HEADER_SIZE + len(raw)
                offset += count
        pieces.append(Piece(base, written, offset))
    return pieces, offset, size


def _records(keys: Sequence[int], value_bytes: int, blocks: bytes) -> bytes:
    """Values of which half can be compressed."""
    value_head = _varint(value_bytes)
    parts: list[bytes] = []
    for delta, key in enumerate(keys):
        begin = key * 97 % ((1 << 16) - value_bytes)
        half = value_bytes // 2
        body = b"".join(
            (
                b"\0\0",
                _varint(delta),
                b"\x1c",  # a key of 14 bytes
                b"key-%010d" % key,
                value_head,
                blocks[begin : begin + half],
                bytes(value_bytes - half),
                b"\0",
            )
        )
        parts += (_varint(len(body)), body)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    value <<= 1
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def _batch(records: bytes, offset: int, count: int, codec: int) -> bytearray:
    packed = compress(codec, records)
    length = HEADER_SIZE - LOG_OVERHEAD + len(packed)
    times = (_TIME_MS, _TIME_MS)
    header = HEADER.pack(offset, length, 0, MAGIC, 0, codec, count - 1, *times, -1, -1, -1, count)
    batch = bytearray(header)
    batch += packed
    stamp_crc(memoryview(batch))
    return batch


def rows(found: Sequence[Timing]) -> list[list[str]]:
    table = [["", "records", "least MB/s", "median", "most", "budget", "met"]]
    for timing in found:
        measured, budget = timing.found, timing.case.budget_mb_per_s
        table.append(
            [
                timing.case.name,
                f"{timing.records:,}",
                *(number(value) for value in (measured.least, measured.median, measured.most)),
                f"≥ {number(budget)}",
                "yes" if measured.most >= budget else "no",
            ]
        )
    return table
