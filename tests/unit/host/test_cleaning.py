"""Compaction in a worker process: what it leaves in the page cache, its pace, its end. Real files."""

import ctypes
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from ottla.core.pending import Pending
from ottla.host import cleaning, linux
from ottla.host.cleaning import RESTS_MAX, CleaningWorker, Pace, QuietDisk
from ottla.records.builder import build_batch
from ottla.records.reader import Record, read_batches, records_of
from ottla.storage.cleaner.cleaner import Failure
from ottla.storage.cleaner.round import Cleaned, Noted, Piece, Plan
from tests.processes import wait_until
from tests.unit.host.test_offload import workers

NO_LIMIT = 1.7976931348623157e308


class Loop:
    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def until(self, pending: Pending[object]) -> object:
        while not pending.done:
            self.calls.get(timeout=60)()
        return pending.result()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def worker(loop) -> Iterator[CleaningWorker]:
    worker = CleaningWorker(loop.calls.put)
    yield worker
    worker.close()


def log_in(folder, count: int = 50, value_bytes: int = 10) -> Plan:
    """A segment in which every key comes twice."""
    raw = b"".join(
        build_batch(
            [Record(b"%d" % (at % (count // 2)), bytes(value_bytes), 1000, offset=at)],
            base_offset=at,
        )
        for at in range(count)
    )
    path = folder / f"{0:020d}.log"
    path.write_bytes(raw)
    pieces = [Piece(0, len(raw), count)]
    return Plan(str(folder), pieces, 0, count, (), {}, 1000, 1000, 4096, 1 << 20, 1 << 20)


def test_a_worker_writes_the_latest_of_every_key_and_ends_when_it_may_rest(loop, worker, tmp_path):
    before = workers()
    plan = log_in(tmp_path)
    assert loop.until(worker.note(plan, NO_LIMIT)) == Noted(50, 25, False)
    cleaned = loop.until(worker.clean(plan.pieces))
    assert isinstance(cleaned, Cleaned)
    assert (cleaned.records_dropped, cleaned.end) == (25, 50)
    raw = (tmp_path / f"{0:020d}.log.cleaned").read_bytes()
    assert len(raw) == cleaned.size
    offsets = [record.offset for batch in read_batches(raw) for record in records_of(batch)]
    assert offsets == list(range(25, 50))
    assert workers() > before
    worker.rest()
    assert isinstance(loop.until(worker.clean(plan.pieces)), Failure)  # it was let go of
    assert workers() > before
    for _ in range(RESTS_MAX):
        worker.rest()
    wait_until(lambda: workers() == before, "the worker to end")


def test_a_worker_that_was_never_needed_is_not_started_for_its_rest(worker):
    before = workers()
    for _ in range(2 * RESTS_MAX):
        worker.rest()
    worker.close()
    assert workers() == before


def test_a_worker_that_is_killed_is_a_failure_that_passes(loop, worker, tmp_path):
    plan = log_in(tmp_path)
    before = set(workers())
    assert isinstance(loop.until(worker.note(plan, NO_LIMIT)), Noted)
    for pid in set(workers()) - before:
        os.kill(pid, signal.SIGKILL)
    failure = loop.until(worker.clean(plan.pieces))
    assert isinstance(failure, Failure)
    assert not failure.lasting
    assert isinstance(loop.until(worker.note(plan, NO_LIMIT)), Noted)
    assert isinstance(loop.until(worker.clean(plan.pieces)), Cleaned)


def test_what_can_not_be_compacted_is_told_from_what_may_be_tried_again(tmp_path):
    plan = log_in(tmp_path)
    path = tmp_path / f"{0:020d}.log"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    damaged = cleaning.note(plan, NO_LIMIT)
    assert isinstance(damaged, Failure)
    assert damaged.lasting
    assert "wrong checksum" in damaged.text
    path.unlink()
    missing = cleaning.note(plan, NO_LIMIT)
    assert isinstance(missing, Failure)
    assert not missing.lasting


def evicted(path) -> bool:
    """Whether the page cache could be made to forget a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return not resident(path)


def resident(path) -> bool:
    """Whether any page of a file is in memory; without touching one, as even a look may."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as pages:
        first = ctypes.c_char.from_buffer(pages)
        found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        libc = ctypes.CDLL(None, use_errno=True)
        address = ctypes.c_void_p(ctypes.addressof(first))
        assert libc.mincore(address, ctypes.c_size_t(size), found) == 0
        del first
    return any(page & 1 for page in found)


@pytest.mark.skipif(not linux.AVAILABLE, reason="only Linux tells what is in the page cache")
@pytest.mark.parametrize("was_there", [False, True])
def test_the_page_cache_is_left_as_it_was(tmp_path, was_there):
    plan = log_in(tmp_path, count=200, value_bytes=5000)
    path = tmp_path / f"{0:020d}.log"
    disk = QuietDisk()
    if disk._portable:
        pytest.skip("only Linux can read what is there and nothing else")
    if not evicted(path):
        pytest.skip("this file system keeps its files in memory")
    if was_there:
        path.read_bytes()
    assert isinstance(cleaning.note(plan, NO_LIMIT), Noted)
    assert isinstance(cleaning.clean(plan.pieces), Cleaned)
    assert resident(path) == was_there
    # And what was written goes the way of what it takes the place of.
    assert resident(tmp_path / f"{0:020d}.log.cleaned") == was_there
    disk.close()


def test_a_pace_sleeps_as_long_as_what_went_by_should_have_taken(monkeypatch):
    now = 100.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    monkeypatch.setattr(cleaning, "monotonic", lambda: now)
    monkeypatch.setattr(cleaning, "sleep", sleep)
    pace = Pace(1000.0)
    for _ in range(5):
        pace(500)
    assert sum(slept) == pytest.approx(2.5)
    now += 60  # what was not used is not saved up
    pace(500)
    assert sum(slept) == pytest.approx(3.0)
    Pace(NO_LIMIT)(1 << 40)
    assert sum(slept) == pytest.approx(3.0)
