"""Who reads old records is read ahead of by threads, and the loop stays away from the edge."""

from __future__ import annotations

import pytest

from ottla.core.model import FileSlice, Offset
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.storage.checked import Cold
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault, SimFile

from .conftest import Bench, make_batch

BATCHES, VALUE_BYTES = 800, 20_000
STEP = 8
LENGTH = make_batch(size=VALUE_BYTES).length
AT_ONCE = STEP * LENGTH
PAGE = 4096


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


@pytest.fixture
def reads(bench) -> range:
    """Where one reads on who has begun, up to the last 8 MiB. The index is in memory."""
    segment = bench.log.segments[0]
    for file in segment.files()[1:]:
        assert isinstance(file, SimFile)
        file.warm(0, file.size())
    bring(bench, 0)
    bring(bench, STEP)
    bench.settle()
    return range(2 * STEP, (segment.size - (8 << 20)) // LENGTH - STEP, STEP)


def test_who_reads_on_is_not_sent_to_a_thread_where_threads_are_quicker(bench, reads):
    for offset in reads:
        assert bring(bench, offset) == 0
        bench.settle()  # what a thread was asked for beside that


def test_who_reads_on_looks_at_one_new_page_on_the_loop_for_each_answer(bench, reads, monkeypatch):
    log = bench.log.segments[0].log
    read_nowait, pages = SimFile.read_nowait, set()

    def noted(file: SimFile, position: int, length: int) -> bytes | None:
        if file is log:
            pages.update(file._pages(position, length))
        return read_nowait(file, position, length)

    monkeypatch.setattr(SimFile, "read_nowait", noted)
    for offset in reads:
        piece = bench.log.read(Offset(offset), AT_ONCE + 1000, bench.log.end_position())
        assert isinstance(piece, FileSlice)
        assert piece.length == AT_ONCE
        piece.release()
        bench.settle()
    assert len(reads) <= len(pages) <= len(reads) + len(reads) // 4  # a header on the edge of two


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


@pytest.fixture
def unreadable(bench) -> int:
    """The page with which batch 200 ends: what reads it fails, and the pages before come in."""
    page = (200 * LENGTH + LENGTH) // PAGE - 1
    log(bench).node.bad.add(page)
    return page


def log(bench: Bench) -> SimFile:
    file = bench.log.segments[0].log
    assert isinstance(file, SimFile)
    return file


def served(bench: Bench, offset: int, max_bytes: int) -> int:
    """Bytes of what is served in the end. Raises DiskError."""
    for _ in range(10):
        piece = bench.log.read(Offset(offset), max_bytes, bench.log.end_position())
        assert isinstance(piece, FileSlice | Cold)
        if isinstance(piece, FileSlice):
            file = piece.file
            assert isinstance(file, SimFile)
            pages = file._pages(piece.position, piece.length)
            assert file.node.absent.isdisjoint(pages), "the loop would wait for a disk"
            piece.release()
            return piece.length
        pending = piece.bring(bench.disk)
        bench.settle()
        piece.slice.release()
        pending.result()
    raise AssertionError("asked again and again")


@pytest.mark.parametrize("batches", [1, 2, 5, 30])
@pytest.mark.parametrize("behind_another_read", [False, True])
def test_what_lies_before_an_unreadable_sector_is_served(
    bench, unreadable, batches, behind_another_read
):
    begin = 201 - batches - 1
    if behind_another_read:
        assert served(bench, begin - 1, LENGTH)
    assert served(bench, begin, unreadable * PAGE - begin * LENGTH) == batches * LENGTH


def test_what_lies_before_an_unreadable_sector_is_found_by_its_time(bench, unreadable):
    bench.log.segments[0].max_timestamp_offset = 199
    found = bench.log.max_timestamp()
    for _ in range(10):
        if not isinstance(found, Cold):
            break
        pending = found.bring(bench.disk)
        bench.settle()
        found.slice.release()
        pending.result()
        found = bench.log.max_timestamp()
    assert found is not None
    assert not isinstance(found, Cold)
    assert found.base_offset == 199
    found.slice.release()


@pytest.mark.parametrize("batches", [1, 2, 5, 30])
def test_who_asks_past_an_unreadable_sector_gets_what_lies_before_it(bench, unreadable, batches):
    for _ in range(2):
        assert served(bench, 200 - batches, 64 * LENGTH) == batches * LENGTH
        with pytest.raises(DiskError):
            served(bench, 200, 64 * LENGTH)
    assert served(bench, 201, 64 * LENGTH) == 64 * LENGTH
    assert unreadable * PAGE // LENGTH == 200


def test_the_disk_is_not_asked_again_for_a_sector_that_it_could_not_read(
    bench, unreadable, monkeypatch
):
    served(bench, 190, 64 * LENGTH)
    asked = []
    warm = SimFile.warm
    monkeypatch.setattr(
        SimFile, "warm", lambda *args: (asked.append((args[1], args[1] + args[2])), warm(*args))
    )
    for offset in range(170, 200, 3):
        assert served(bench, offset, 64 * LENGTH) == (200 - offset) * LENGTH
    assert not [span for span in asked if span[0] <= unreadable * PAGE < span[1]]


def test_each_of_several_unreadable_sectors_ends_what_lies_before_it(bench, unreadable):
    log(bench).node.bad.add(300 * LENGTH // PAGE + 1)
    assert served(bench, 280, 64 * LENGTH) == 20 * LENGTH
    assert served(bench, 180, 400 * LENGTH) == 20 * LENGTH
    assert served(bench, 201, 400 * LENGTH) == 99 * LENGTH
    assert unreadable


def test_a_sector_that_can_be_read_again_is_served(bench, unreadable):
    assert served(bench, 190, 64 * LENGTH) == 10 * LENGTH
    log(bench).node.bad.clear()
    assert served(bench, 200, 64 * LENGTH) == 64 * LENGTH
    assert served(bench, 190, 64 * LENGTH) == 64 * LENGTH
    assert unreadable * PAGE not in log(bench).unreadable


def test_what_sendfile_could_not_read_is_told_to_who_asks_for_it_again(bench, unreadable):
    """Nobody had asked whether that page was in memory, and the next answer would end there, too."""
    log(bench).node.absent.clear()
    log(bench).refused(unreadable * PAGE)
    assert served(bench, 190, 64 * LENGTH) == 10 * LENGTH
    with pytest.raises(DiskError):
        served(bench, 200, 64 * LENGTH)


def test_who_wants_what_is_unreadable_is_told_and_all_others_are_served(bench, unreadable):
    refused = []
    for offset in range(0, BATCHES - STEP, STEP):
        try:
            assert served(bench, offset, AT_ONCE) == AT_ONCE
        except DiskError:
            refused.append(offset)
        bench.settle()
    assert refused == [200]
    with pytest.raises(DiskError):
        served(bench, 200, AT_ONCE)  # it is not forgotten
    assert unreadable * PAGE // LENGTH == 200
