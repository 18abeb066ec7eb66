"""Every state that a power cut may leave of the metadata store's files, around each transaction.

SQLite writes by itself, so the changes between two commits are taken from its files and put back
into the simulated disk's model, in the order that SQLite is bound to: the header of a log that
begins anew, synced; the log's frames, synced; then, now and then, the pages of the database. The mark
of the last transaction is written once the frames are synced, and is itself synced now and then. (What
is really called is looked at by test_strace_crashes.py.) Whatever arrived of what was not synced, the
store has the last transaction or the one before, whole, and one that was answered is there: it is
never refused.

OTTLA_SEED=n repeats a history; OTTLA_SOAK=1 goes through many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from ottla.cluster.store import Applied, Delete, Put, Write
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.host.store_mark import SUFFIX
from ottla.testing import simimage
from ottla.testing.simcrash import crash_states
from ottla.testing.simimage import Link, Node, folder_of
from tests.sim.histories import named_by

SOAK = os.environ.get("OTTLA_SOAK") == "1"
ONLY = os.environ.get("OTTLA_SEED")
SEEDS = [int(ONLY)] if ONLY else range(60 if SOAK else 2)
TRANSACTIONS = 30
DRAWN = 15
LEAST = 2000
WAL = f"{FILE_NAME}-wal"
MARK = f"{FILE_NAME}{SUFFIX}"
WAL_HEADER, FRAME = 32, 24 + 4096
CHECKPOINT_PAGES = 6
"""So that each history has some of them."""

Files = dict[str, bytes]
Content = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """The two that hold something; the shared memory is made anew."""
    return {
        name: (folder / name).read_bytes() if (folder / name).exists() else b""
        for name in (FILE_NAME, WAL)
    }


def pending(
    before: Files, name: str, content: bytes, piece: int, first: int = 0
) -> simimage.Folder:
    """A disk where a file is being rewritten piece by piece, and the others lie still."""
    root = folder_of({f"/{one}": raw for one, raw in before.items()})
    node = root.names[name]
    assert isinstance(node, Node)
    cuts = [0, *range(first, len(content), piece), len(content)]
    for begin, end in pairwise(cuts):
        part = content[begin:end]
        if part != before[name][begin:end]:
            write = simimage.Write(begin, part)
            node.pending.append(write)
            simimage.redo(node.data, write)
    return root


def marked(root: simimage.Folder, marks: list[bytes | None]) -> simimage.Folder:
    """The disk with the marks that were written: of the first it is certain that it arrived.

    None stands for no file: then nothing is certain of the name, either.
    """
    node = Node()
    node.durable = marks[0] or b""
    node.data = bytearray(node.durable)
    if marks[0] is not None:
        root.names[MARK] = root.durable[MARK] = node
    elif len(marks) > 1:
        root.change(Link(MARK, node))
    for mark in marks[1:]:
        assert mark is not None, "a mark that was written"
        node.pending.append(simimage.Write(0, mark))
        simimage.redo(node.data, node.pending[-1])
    return root


def disks(
    before: Files, after: Files, marks: list[bytes | None]
) -> Iterator[tuple[simimage.Folder, bool]]:
    """The moments at which something is not synced, and whether the transaction is certain then.

    The last of `marks` is of this transaction.
    """
    earlier = marks[:-1]
    for root, is_certain in _pages(before, after):
        yield marked(root, marks if is_certain else earlier), is_certain
    whole = {f"/{name}": raw for name, raw in after.items()}
    yield marked(folder_of(whole), marks), True


def _pages(before: Files, after: Files) -> Iterator[tuple[simimage.Folder, bool]]:
    now = dict(before)
    if after[WAL][:WAL_HEADER] != before[WAL][:WAL_HEADER]:
        header = after[WAL][:WAL_HEADER] + before[WAL][WAL_HEADER:]
        yield pending(now, WAL, header, WAL_HEADER), False
        now[WAL] = header
    yield pending(now, WAL, after[WAL], FRAME, WAL_HEADER), False
    now[WAL] = after[WAL]
    if after[FILE_NAME] != before[FILE_NAME]:
        yield pending(now, FILE_NAME, after[FILE_NAME], 4096), True


def found_in(state: Mapping[str, bytes], folder: Path) -> Content:
    """What the store says that is opened on these files."""
    for name in (FILE_NAME, WAL, MARK, f"{FILE_NAME}-shm"):
        (folder / name).unlink(missing_ok=True)
    for path, raw in state.items():
        (folder / path.removeprefix("/")).write_bytes(raw)
    store = SqliteStore(str(folder / FILE_NAME), durable=False)
    try:
        assert store._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {key: entry.value for key, entry in store.read("").result().entries.items()}
    finally:
        store.close()


def draw(dice: random.Random, content: Content) -> list[Write]:
    writes: list[Write] = []
    for _ in range(dice.randrange(1, 5)):
        key = f"/t/{dice.randrange(12)}"
        if key in content and dice.random() < 0.3:
            writes.append(Delete(key))
            del content[key]
        else:
            value = dice.randbytes(dice.choice((10, 300, 6000)))
            writes.append(Put(key, value))
            content[key] = value
    return writes


@pytest.mark.parametrize("seed", SEEDS)
def test_i25_the_store_has_each_transaction_whole_or_not_in_every_state(tmp_path, seed):
    dice = random.Random(seed)
    (tmp_path / "own").mkdir()
    (tmp_path / "found").mkdir()
    store = SqliteStore(str(tmp_path / "own" / FILE_NAME))
    store._connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    content: Content = {}
    tried = checkpoints = restarts = was_not = without_mark = 0
    files = files_of(tmp_path / "own")
    marks: list[bytes | None] = [None]
    with named_by(seed):
        for number in range(TRANSACTIONS):
            before, old = files, dict(content)
            writes = draw(dice, content)
            assert isinstance(store.transact([], writes).result(), Applied)
            files = files_of(tmp_path / "own")
            marks.append((tmp_path / "own" / MARK).read_bytes())
            checkpoints += before[FILE_NAME] != files[FILE_NAME]
            restarts += before[WAL][:WAL_HEADER] != files[WAL][:WAL_HEADER]
            seen: set[int] = set()
            for root, is_certain in disks(before, files, marks):
                for state in crash_states(root, dice, DRAWN):
                    key = hash(frozenset(state.items()))
                    if key in seen and not is_certain:
                        continue
                    seen.add(key)
                    tried += 1
                    there = found_in(state, tmp_path / "found")
                    allowed = [content] if is_certain else [old, content]
                    assert there in allowed, f"transaction {number}: neither before nor after"
                    was_not += there != content
                    without_mark += state.get(f"/{MARK}") != marks[-1]
            if dice.random() < 0.4:
                marks = marks[-1:]  # synced
    store.close()
    print(
        f"\n{tried} states (metadata store), {was_not} without, {without_mark} with an older mark or none"
    )
    print(f"{checkpoints} checkpoints, {restarts} new logs")
    assert tried >= LEAST, "too few states of the metadata store"
    assert checkpoints
    assert restarts > 1
    assert was_not
    assert without_mark
