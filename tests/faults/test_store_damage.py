"""The metadata store's files gone wrong at rest: it says what was answered, or that it is damaged.

Every byte of each file flipped, zeroed and set; each file cut, emptied and removed. After a clean
stop, where the database has everything, and after kill -9, where SQLite's log has some of it: SQLite
takes its first frame that doesn't fit for the end, so the mark beside it must tell.

A sample in CI, whose seed is printed; OTTLA_SOAK=1 tries every byte (of shared memory, which is made
anew, and of logs of a hundred frames a larger sample). OTTLA_SEED=n repeats a sample.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from ottla.cluster.store import Delete, DeletePrefix, Put, StoreError
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.host.store_mark import SUFFIX

SOAK = os.environ.get("OTTLA_SOAK") == "1"
SEED = int(os.environ.get("OTTLA_SEED") or random.SystemRandom().randrange(1 << 30))
CASES = 600
CASES_SOAK = 200_000
CUTS = 60
WAL, SHM, MARK = f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", f"{FILE_NAME}{SUFFIX}"
ALL = (FILE_NAME, WAL, SHM, MARK)

Files = dict[str, bytes]


class Written:
    """A store's files at rest, and what was answered to be in it."""

    def __init__(self, files: Files, content: dict[str, bytes], folder: Path) -> None:
        self.files = files
        self.content = content
        self.folder = folder

    def outcome(self, name: str, raw: bytes | None) -> str:
        """What is made of it with other bytes in one file; None: without that file."""
        state: dict[str, bytes | None] = {**self.files, name: raw}
        for one in ALL:
            path, content = self.folder / one, state.get(one)
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
        try:
            store = SqliteStore(str(self.folder / FILE_NAME), durable=False)
        except StoreError:
            wal = self.folder / WAL
            left = wal.read_bytes() if wal.exists() else b""
            assert left == (state.get(WAL) or b""), "evidence is gone"
            return "refused"
        try:
            found = {key: one.value for key, one in store.read("").result().entries.items()}
        finally:
            store.close()
        assert found == self.content, "something else than was answered"
        return "whole"


def write(path: Path, *, checkpoint: bool) -> tuple[SqliteStore, dict[str, bytes]]:
    """Entries on several pages, some written over or deleted."""
    dice = random.Random(1)
    store = SqliteStore(str(path), durable=False)  # the files are the same
    for first in range(0, 60, 4):
        sizes = {number: 5000 if number % 20 == 0 else 90 for number in range(first, first + 4)}
        store.transact([], [Put(f"/t/{one}", dice.randbytes(sizes[one])) for one in sizes])
    if checkpoint:
        store._connection.execute("PRAGMA wal_checkpoint(RESTART)")
    store.transact([], [Delete("/t/7"), DeletePrefix("/t/3"), Put("/t/9", b"again")])
    store.transact([], [Put("/t/8", b"again"), Put("/u", dice.randbytes(100))])
    content = {key: entry.value for key, entry in store.read("").result().entries.items()}
    assert "/t/33" not in content
    return store, content


def files_in(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in ALL if (folder / name).exists()}


@pytest.fixture(params=["stopped", "killed", "killed after a checkpoint", "killed when young"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    own, found = tmp_path / "own", tmp_path / "found"
    own.mkdir()
    found.mkdir()
    if request.param == "killed when young":
        store = SqliteStore(str(own / FILE_NAME), durable=False)
        content = {"/cluster": b"c", "/t": b"1"}
        for key, value in content.items():
            store.transact([], [Put(key, value)])
    else:
        store, content = write(own / FILE_NAME, checkpoint=request.param.endswith("checkpoint"))
    if request.param == "stopped":
        store.close()
    files = files_in(own)  # with kill -9 just this is left: the kernel has every write
    store.close()
    assert (WAL in files) == request.param.startswith("killed")
    print(f"OTTLA_SEED={SEED}", {name: len(raw) for name, raw in files.items()})
    return Written(files, content, found)


def test_i25_a_byte_gone_wrong_in_the_metadata_store_is_never_believed(written):
    dice = random.Random(SEED)
    cases = [
        (name, at, how)
        for name, raw in written.files.items()
        for at in range(len(raw))
        for how in ("flip", "zero", "ones")
    ]
    if SOAK:
        shown = [case for case in cases if case[0] != SHM]
        cases = dice.sample(shown, min(len(shown), CASES_SOAK)) + dice.sample(cases, CASES)
    else:
        of_mark = [case for case in cases if case[0] == MARK]
        heads = [case for case in cases if case[1] < 100 and case[0] in (FILE_NAME, WAL)]
        cases = of_mark + dice.sample(heads, min(len(heads), 150)) + dice.sample(cases, CASES)
    seen: Counter[tuple[str, str]] = Counter()
    for name, at, how in cases:
        raw = written.files[name]
        wrong = {"flip": raw[at] ^ 1 << dice.randrange(8), "zero": 0, "ones": 0xFF}[how]
        if wrong == raw[at]:
            continue
        try:
            found = written.outcome(name, raw[:at] + bytes([wrong]) + raw[at + 1 :])
        except BaseException:
            print(f"{name}, byte {at}: {raw[at]:#x} -> {wrong:#x}")
            raise
        seen[name, found] += 1
    print(dict(seen))
    assert not seen[MARK, "refused"], "the mark is no reason to refuse a store that is whole"
    assert not seen[SHM, "refused"], "shared memory is made anew"
    if WAL in written.files:
        assert seen[WAL, "refused"]
    else:
        assert seen[FILE_NAME, "refused"] > seen[FILE_NAME, "whole"]


def test_i25_a_metadata_store_that_was_cut_is_never_believed(written):
    dice = random.Random(SEED)
    for name, raw in written.files.items():
        few = [*range(70), 511, 512, 4096, *dice.sample(range(len(raw)), min(len(raw), CUTS))]
        every = SOAK and name != SHM
        lengths = range(len(raw)) if every else sorted({one for one in few if one < len(raw)})
        found = {length: written.outcome(name, raw[:length]) for length in lengths}
        seen = Counter(found.values())
        print(name, dict(seen))
        if name in (MARK, SHM):
            assert not seen["refused"]
        elif name == WAL:
            # Behind its last transaction there may be what an older log left.
            ends = [length for length in lengths if found[length] == "refused"]
            assert all(found[length] == "refused" for length in lengths if length <= max(ends))
        elif WAL not in written.files:
            assert not seen["whole"]


def test_i25_a_file_of_the_metadata_store_that_is_gone_is_noticed_or_not_needed(written):
    for name in written.files:
        expected = "refused" if name in (FILE_NAME, WAL) else "whole"
        assert written.outcome(name, None) == expected, f"{name} removed"
        assert written.outcome(name, b"") == expected, f"{name} emptied"
