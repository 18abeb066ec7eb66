"""Who reads old records is read ahead of by threads, and the loop stays away from the edge."""

from __future__ import annotations

import pytest

from ottla.core.model import FileSlice, Offset
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.storage.checked import Cold
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import Fault

from .conftest import Bench, make_batch

BATCHES, VALUE_BYTES = 800, 20_000
STEP = 8
AT_ONCE = STEP * make_batch(size=VALUE_BYTES).length


@pytest.fixture
def bench() -> Bench:
    """16 MB in one segment, none of it in memory: the last 8 MiB would not be asked about."""
    bench = Bench(settings=LogSettings(index_interval_bytes=4096))
    for _ in range(BATCHES):
        bench.append(make_batch(size=VALUE_BYTES))
    bench.settle()
    bench.disk.evict()
    bench.disk.on_loop = True
    return bench


def read(bench: Bench, offset: int) -> FileSlice | Cold:
    piece = bench.log.read(Offset(offset), AT_ONCE, bench.log.end_position())
    assert isinstance(piece, FileSlice | Cold)
    return piece


def bring(bench: Bench, offset: int) -> int:
    """Read like a fetch does; how often a thread had to bring something in."""
    count = 0
    while isinstance(piece := read(bench, offset), Cold):
        piece.bring(bench.disk)
        bench.settle()
        piece.slice.release()
        count += 1
    piece.release()
    return count


def test_one_read_in_eight_goes_to_a_thread(bench):
    bring(bench, 0)
    counts = [bring(bench, offset) for offset in range(STEP, 65 * STEP, STEP)]
    assert sum(counts) in (8, 9)  # of 64: the first piece is read without what lies behind its end
    assert max(counts) == 1


def test_what_is_still_on_its_way_is_waited_for_by_a_thread(bench):
    first = read(bench, 0)
    assert isinstance(first, Cold)
    pending = first.bring(bench.disk)
    while not pending.done:
        bench.disk.step()
    first.slice.release()
    assert bring(bench, STEP) > 0
    assert bring(bench, 2 * STEP) == 0


def test_a_batch_at_the_edge_that_is_in_memory_is_not_touched_on_the_loop(bench):
    bring(bench, 0)
    for file in bench.log.segments[0].files():
        file.warm(0, bench.log.segments[0].size)  # as the kernel may have done by itself
    assert sum(bring(bench, offset) for offset in range(STEP, 9 * STEP, STEP)) == 1


def test_what_was_brought_in_and_pushed_out_again_is_brought_in_again(bench):
    bring(bench, 0)
    assert bring(bench, STEP) == 0
    bench.disk.evict()
    assert bring(bench, 2 * STEP) > 0


def test_who_reads_again_what_was_pushed_out_is_read_ahead_of_again(bench):
    for offset in range(0, 50 * STEP, STEP):
        bring(bench, offset)
    bench.disk.evict()
    counts = [bring(bench, offset) for offset in range(0, 48 * STEP, STEP)]
    assert sum(counts) <= 12  # of 48


@pytest.mark.parametrize("behind_restart", [False, True])
def test_who_reads_to_the_end_is_answered_while_others_append(bench, behind_restart):
    bring(bench, 0)
    if behind_restart:
        bench.log.segments[0].opened()
        bench.log.segments[0].checked_from = 0
    count = 0
    offset, at_once = 300, 64 << 20  # it begins before the last 8 MiB, and wants all
    while isinstance(
        piece := bench.log.read(Offset(offset), at_once, bench.log.end_position()), Cold
    ):
        piece.bring(bench.disk)
        bench.append(make_batch(size=VALUE_BYTES))
        bench.settle()
        piece.slice.release()
        count += 1
        assert count < 5
    piece.release()


def test_who_reads_here_and_there_has_only_so_much_read_ahead_of_him(bench, monkeypatch):
    warm, waiting = bench.disk.warm, []

    def slow(piece: FileSlice, *, ahead: bool = False) -> Pending[None]:
        if not ahead:
            return warm(piece)
        waiting.append((piece, Pending()))
        return waiting[-1][1]

    monkeypatch.setattr(bench.disk, "warm", slow)
    for offset in range(0, 40 * STEP, 2 * STEP):  # each past what is read ahead of the one before
        bench.disk.evict()
        bring(bench, 40 * STEP - offset)
    assert len(waiting) == 4
    monkeypatch.undo()
    for piece, pending in waiting:
        bench.disk.warm(piece)
        bench.settle()
        pending.complete(None)
    bring(bench, 42 * STEP)
    assert bring(bench, 43 * STEP) == 0  # and is read ahead of again


def test_two_who_read_in_two_places_both_get_on(bench):
    for step in range(0, 20 * STEP, STEP):
        assert bring(bench, step) <= 2
        assert bring(bench, 50 * STEP + step) <= 2


def test_who_has_caught_up_is_not_sent_to_a_thread(bench):
    for offset in range(0, BATCHES, STEP):
        bring(bench, offset)
    for _ in range(10):
        at = bench.append(make_batch(size=VALUE_BYTES))
        assert bring(bench, at) == 0


def test_what_can_not_be_brought_in_is_told_to_who_wants_it(bench):
    bring(bench, 0)
    piece = read(bench, 20 * STEP)
    path = bench.log.segments[0].log.path
    bench.disk.faults.append(Fault("warm", path=path, times=2))
    pending = piece.bring(bench.disk)
    bench.settle()
    piece.slice.release()
    with pytest.raises(DiskError):
        pending.result()
    assert bring(bench, 20 * STEP) > 0
