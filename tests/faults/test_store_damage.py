"""Bytes of the metadata store gone wrong at rest: it says what was written, or that it is damaged.

SQLite's pages have no checksum, so the store has one of all its entries. After a clean stop; what is
still in SQLite's log after kill -9 has checksums of its own, and behind a bad one nothing is read.

A sample in CI, whose seed is printed; OTTLA_SOAK=1 tries every byte. OTTLA_SEED=n repeats a sample.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from ottla.cluster.store import Delete, DeletePrefix, Put, StoreError
from ottla.host.sqlite_store import FILE_NAME, SqliteStore

SOAK = bool(os.environ.get("OTTLA_SOAK"))
SEED = int(os.environ.get("OTTLA_SEED") or random.SystemRandom().randrange(1 << 30))
CASES = 1_200


@pytest.fixture
def written(tmp_path: Path) -> tuple[bytes, dict[str, bytes]]:
    """A store's file, and what is in it: entries on several pages, some written over or deleted."""
    dice = random.Random(1)
    path = tmp_path / "written"
    store = SqliteStore(str(path))
    for number in range(60):
        size = 5000 if number % 10 == 0 else 90
        store.transact([], [Put(f"/t/{number}", dice.randbytes(size))])
    store.transact([], [Delete("/t/7"), DeletePrefix("/t/3"), Put("/t/9", b"again")])
    content = {key: entry.value for key, entry in store.read("").result().entries.items()}
    store.close()
    assert "/t/33" not in content
    return path.read_bytes(), content


def outcome(path: Path, raw: bytes, content: dict[str, bytes]) -> str:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(raw)
    try:
        store = SqliteStore(str(path), durable=False)
    except StoreError:
        return "refused"
    try:
        found = {key: entry.value for key, entry in store.read("").result().entries.items()}
    finally:
        store.close()
    assert found == content, "something else than was written"
    return "whole"


def test_a_byte_gone_wrong_in_the_metadata_store_is_never_believed(tmp_path, written):
    raw, content = written
    print(f"OTTLA_SEED={SEED}")
    dice = random.Random(SEED)
    cases = [(at, how) for at in range(len(raw)) for how in ("flip", "zero", "ones")]
    seen: Counter[str] = Counter()
    for at, how in cases if SOAK else dice.sample(cases, CASES):
        wrong = {"flip": raw[at] ^ 1 << dice.randrange(8), "zero": 0, "ones": 0xFF}[how]
        if wrong == raw[at]:
            continue
        try:
            seen[
                outcome(tmp_path / FILE_NAME, raw[:at] + bytes([wrong]) + raw[at + 1 :], content)
            ] += 1
        except BaseException:
            print(f"byte {at}: {raw[at]:#x} -> {wrong:#x}")
            raise
    print(dict(seen))
    assert seen["refused"] > seen["whole"]


def test_a_metadata_store_that_was_cut_is_never_believed(tmp_path, written):
    raw, content = written
    dice = random.Random(SEED)
    few = [*range(1, 120), 511, 512, *dice.sample(range(1, len(raw)), 100)]
    lengths = range(1, len(raw)) if SOAK else few
    for length in lengths:
        assert outcome(tmp_path / FILE_NAME, raw[:length], content) == "refused", length
