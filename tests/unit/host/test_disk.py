"""The real disk: what it promises beyond what the operating system does. Real files in tmp_path."""

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import (
    CreateFile,
    DiskError,
    MakeDirectory,
    RemoveTree,
    RenamePath,
    ReplaceFile,
    ReserveSpace,
    SyncDirectory,
    SyncFile,
    UnlinkFile,
)
from ottla.host import disk as disk_module
from ottla.host import linux
from ottla.host.disk import OsDisk


class Loop:
    """Stands in for an event loop: runs what threads hand over, when the test says so."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.wakes_count = 0

    def wake(self, call: Callable[[], None]) -> None:
        self.wakes_count += 1
        self.calls.put(call)

    def until(self, pending: Pending[object]) -> object:
        while not pending.done:
            self.calls.get(timeout=60)()
        return pending.result()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture(params=[False, True], ids=["linux", "portable"])
def disk(loop, request) -> Iterator[OsDisk]:
    disk = OsDisk(loop.wake, portable=request.param)
    yield disk
    disk.close()


@pytest.fixture
def file(disk, tmp_path):
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/file", b"0123456789")])
    yield file
    file.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_steps_work_before_there_is_a_loop_and_start_no_thread(tmp_path):
    def no_loop(_: Callable[[], None]) -> None:
        raise AssertionError("nothing to deliver")

    disk = OsDisk(no_loop)
    before = threading.active_count()
    disk.perform_now([MakeDirectory(f"{tmp_path}/a/b"), ReplaceFile(f"{tmp_path}/a/b/c", b"x")])
    assert disk.read_file(f"{tmp_path}/a/b/c") == b"x"
    assert threading.active_count() == before
    disk.close()


def test_a_created_file_has_its_content_and_is_as_long_as_what_was_written(file):
    file.write(b"abc", 10)
    assert file.size() == 13
    assert file.read(8, 100) == b"89abc"
    assert file.read_nowait(0, 4) == b"0123"
    assert file.read_nowait(8, 100) == b"89abc"
    assert file.read_nowait(13, 5) == b""


def test_reserved_space_does_not_lengthen_the_file_and_a_truncate_frees_it(disk, file):
    disk.perform_now([ReserveSpace(file, 10, 1 << 20)])
    assert file.size() == 10
    file.truncate(10)
    assert file.size() == 10
    assert os.fstat(file.fileno()).st_blocks * 512 < 1 << 20


def test_a_page_that_is_not_resident_is_none_and_warm_brings_it_in(loop, disk, tmp_path):
    path = f"{tmp_path}/cold"
    with open(path, "wb") as cold:
        cold.write(os.urandom(8 << 20))
        cold.flush()
        os.fsync(cold.fileno())
        os.posix_fadvise(cold.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file = disk.open(path)
    if not disk._portable:
        if file.read_nowait(4 << 20, 4096) is not None:
            pytest.skip("this file system keeps its pages or cannot read without waiting")
        piece = FileSlice(file, 0, 8 << 20)
        loop.until(disk.warm(piece))
        piece.release()
    found = file.read_nowait(4 << 20, 4096)
    assert found == file.read(4 << 20, 4096)
    file.close()


def test_what_is_read_ahead_keeps_nobody_waiting(loop, disk, file, monkeypatch):
    go_on = threading.Event()
    touch = disk._touch

    def slow(of: object, position: int, length: int) -> int:
        if position < 5:
            go_on.wait()
        return touch(of, position, length)

    monkeypatch.setattr(disk, "_touch", slow)
    pieces = [FileSlice(file, 0, 5) for _ in range(20)]
    ahead = [disk.warm(piece, ahead=True) for piece in pieces]
    piece = FileSlice(file, 5, 5)
    loop.until(disk.warm(piece))
    assert not any(one.done for one in ahead)
    go_on.set()
    for one in ahead:
        loop.until(one)
    for one in [piece, *pieces]:
        one.release()


def test_what_is_long_is_brought_in_by_pieces_with_a_rest_between(
    loop, disk, tmp_path, monkeypatch
):
    done: list[object] = []
    touch = disk._touch

    def noted(of: object, position: int, length: int) -> int:
        done.append((position, length))
        return touch(of, position, length)

    monkeypatch.setattr(disk, "_touch", noted)
    monkeypatch.setattr("ottla.host.disk.sleep", lambda _: done.append("rest"))
    (tmp_path / "long").write_bytes(bytes((2 << 20) + 10))
    piece = FileSlice(disk.open(str(tmp_path / "long")), 5, 2 << 20)
    loop.until(disk.warm(piece))
    assert done == [(5, 1 << 20), "rest", (5 + (1 << 20), 1 << 20)]
    piece.release()


def test_past_the_end_of_a_file_nothing_is_waited_for(loop, disk, file):
    piece = FileSlice(file, 5, 1 << 30)
    loop.until(disk.warm(piece))
    piece.release()


@pytest.mark.skipif(not linux.AVAILABLE, reason="only Linux has such a policy")
def test_threads_that_read_take_the_processor_from_nobody(loop, disk, file):
    before = os.sched_getscheduler(0)
    found = loop.until(disk.examine(file, lambda _: os.sched_getscheduler(0)))
    assert found == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before


@pytest.mark.skipif(not linux.AVAILABLE, reason="only Linux has such a policy")
def test_where_the_policy_may_not_be_changed_threads_read_as_well(loop, disk, file, monkeypatch):
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    assert loop.until(disk.examine(file, lambda one: one.read(0, 3))) is not None


def test_closing_reads_nothing_more_ahead(disk, file, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    touch, touched = disk._touch, []

    def slow(of: object, position: int, length: int) -> int:
        touched.append(position)
        begun.set()
        go_on.wait()
        return touch(of, position, length)

    monkeypatch.setattr(disk, "_touch", slow)
    pieces = [FileSlice(file, position, 1) for position in range(10)]
    ahead = [disk.warm(piece, ahead=True) for piece in pieces]
    begun.wait()
    threads = type(disk._aheads)
    close = threads.close
    monkeypatch.setattr(threads, "close", lambda one: (go_on.set(), close(one)))
    disk.close()
    assert set(touched) <= {0, 1}  # one for each thread
    assert all(one.done for one in ahead)
    for piece in pieces:
        piece.release()


def test_where_nothing_can_be_thrown_away_a_warm_fails_as_a_read_does(loop, file, monkeypatch):
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    disk = OsDisk(loop.wake, portable=False)
    piece = FileSlice(file, 0, 10)
    with pytest.raises(DiskError):
        loop.until(disk.warm(piece))
    piece.release()
    disk.close()


def test_a_partly_resident_range_counts_as_not_there(monkeypatch, tmp_path):
    disk = OsDisk(lambda _: None, portable=False)
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f", bytes(8192))])
    monkeypatch.setattr(linux, "read_resident", lambda *_: 4096)
    assert file.read_nowait(0, 8192) is None
    assert file.read_nowait(4096, 8192) == bytes(4096)
    file.close()


def test_a_file_system_without_nonblocking_reads_is_read_all_the_same(monkeypatch, tmp_path):
    def refused(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    disk = OsDisk(lambda _: None, portable=False)
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f", b"abc")])
    monkeypatch.setattr(linux, "read_resident", refused)
    assert file.read_nowait(0, 3) == b"abc"
    file.close()


def test_a_short_write_is_carried_on(monkeypatch, file):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:3], at))
    file.write(b"abcdefgh", 0)
    assert file.read(0, 10) == b"abcdefgh89"


def test_a_write_that_stays_short_is_an_error(monkeypatch, file):
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(DiskError) as caught:
        file.write(b"abc", 0)
    assert caught.value.errno == errno.EIO


def test_a_closed_file_keeps_its_descriptor_until_the_last_user_lets_go(disk, tmp_path):
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f", b"abc")])
    before = open_descriptors()
    piece = FileSlice(file, 0, 3)
    file.close()
    file.close()
    assert os.pread(file.fileno(), 3, 0) == b"abc"
    piece.release()
    assert open_descriptors() == before - 1


def test_a_closed_file_cannot_be_retained(disk, tmp_path):
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f")])
    file.close()
    with pytest.raises(AssertionError, match="closed"):
        file.retain()


def test_replacing_a_file_leaves_the_whole_new_content_and_nothing_aside(disk, tmp_path):
    path = f"{tmp_path}/checkpoint"
    disk.perform_now([ReplaceFile(path, b"old, and longer"), ReplaceFile(path, b"new")])
    assert disk.read_file(path) == b"new"
    assert disk.names(str(tmp_path)) == ["checkpoint"]


def test_what_is_not_there_is_none_or_empty_and_may_be_removed(disk, tmp_path):
    assert disk.read_file(f"{tmp_path}/none") is None
    assert disk.names(f"{tmp_path}/none") == []
    disk.perform_now([UnlinkFile(f"{tmp_path}/none"), RemoveTree(f"{tmp_path}/none")])


def test_steps_rename_and_remove_files_and_directories(disk, tmp_path):
    disk.perform_now(
        [
            MakeDirectory(f"{tmp_path}/d/e"),
            ReplaceFile(f"{tmp_path}/d/f", b"x"),
            RenamePath(f"{tmp_path}/d", f"{tmp_path}/g"),
            SyncDirectory(str(tmp_path)),
        ]
    )
    assert disk.names(f"{tmp_path}/g") == ["e", "f"]
    disk.perform_now([UnlinkFile(f"{tmp_path}/g/f"), RemoveTree(f"{tmp_path}/g")])
    assert disk.names(str(tmp_path)) == []


def test_every_failure_is_a_disk_error_that_names_the_path(disk, tmp_path):
    with pytest.raises(DiskError, match=r"rename .*/none"):
        disk.perform_now([RenamePath(f"{tmp_path}/none", f"{tmp_path}/other")])
    with pytest.raises(DiskError, match=r"open .*/none") as caught:
        disk.open(f"{tmp_path}/none").read(0, 1)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(DiskError, match="sync directory"):
        disk.perform_now([SyncDirectory(f"{tmp_path}/none")])


def test_files_made_before_a_step_that_fails_are_closed_again(disk, tmp_path):
    before = open_descriptors()
    with pytest.raises(DiskError):
        disk.perform_now([CreateFile(f"{tmp_path}/f"), RenamePath("/none/a", "/none/b")])
    assert open_descriptors() == before


def test_performed_steps_complete_on_the_loop_with_their_files(loop, disk, tmp_path):
    pending = disk.perform([CreateFile(f"{tmp_path}/f", b"abc"), SyncDirectory(str(tmp_path))])
    assert not pending.done
    [file] = loop.until(pending)
    assert file.read(0, 3) == b"abc"
    file.close()


def test_performs_happen_in_the_order_of_the_calls(loop, disk, tmp_path):
    path = f"{tmp_path}/checkpoint"
    pendings = [disk.perform([ReplaceFile(path, b"%d" % n)]) for n in range(20)]
    loop.until(pendings[-1])
    assert all(pending.done for pending in pendings)
    assert disk.read_file(path) == b"19"


def test_a_round_of_many_files_and_directories_completes_once(loop, disk, tmp_path):
    files = disk.perform_now([CreateFile(f"{tmp_path}/{n}", b"x") for n in range(40)])
    loop.until(disk.sync(files, [str(tmp_path)]))
    assert loop.wakes_count == 1
    for file in files:
        file.close()


def test_an_empty_round_completes(loop, disk):
    loop.until(disk.sync([], []))


def test_a_round_pins_its_files_until_it_is_delivered(loop, disk, tmp_path):
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f", b"x")])
    before = open_descriptors()
    pending = disk.sync([file], [])
    file.close()
    assert file.fileno() >= 0
    loop.until(pending)
    assert open_descriptors() == before - 1


def test_one_file_that_fails_fails_the_round_and_the_others_are_synced(loop, monkeypatch, tmp_path):
    disk = OsDisk(loop.wake, portable=False)
    files = disk.perform_now([CreateFile(f"{tmp_path}/{n}") for n in range(4)])
    synced = []

    def fdatasync(fd: int) -> None:
        if fd == files[1].fileno():
            raise OSError(errno.EIO, "bad")
        synced.append(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(DiskError, match=r"sync .*/1: bad"):
        loop.until(disk.sync(files, []))
    assert sorted(synced) == sorted(f.fileno() for f in files if f is not files[1])
    disk.close()
    for file in files:
        file.close()


def test_completions_that_pile_up_are_delivered_with_one_wake_up(loop, disk, tmp_path):
    gate = threading.Event()
    first = disk._submit(disk._steps, [gate.wait], [], 1)
    others = [disk.perform([MakeDirectory(f"{tmp_path}/{n}")]) for n in range(10)]
    last = disk._submit(disk._steps, [gate.clear], [], 1)
    gate.set()
    disk._steps.close()  # all done; the loop has not run since the first completion woke it
    assert loop.wakes_count == 1
    loop.until(last)
    assert first.done
    assert all(pending.done for pending in others)


def test_closing_finishes_what_was_asked_for_and_ends_the_threads(loop, disk, tmp_path):
    before = threading.active_count()
    pendings = [disk.perform([ReplaceFile(f"{tmp_path}/f", b"%d" % n)]) for n in range(5)]
    disk.close()
    assert all(pending.done for pending in pendings)
    assert threading.active_count() == before
    assert disk.read_file(f"{tmp_path}/f") == b"4"


def test_a_closed_disk_refuses_with_an_error(disk, tmp_path):
    disk.close()
    with pytest.raises(DiskError, match="closed"):
        disk.perform([MakeDirectory(f"{tmp_path}/d")]).result()


def test_a_loop_that_is_gone_does_not_kill_the_threads(tmp_path):
    def gone(_: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    disk = OsDisk(gone)
    pending = disk.perform([MakeDirectory(f"{tmp_path}/d")])
    disk.close()
    assert pending.done


def test_a_continuation_that_raises_does_not_strand_the_others(loop, disk):
    def bug() -> None:
        raise KeyError("bug")

    first = disk.perform([])
    first.then(bug)
    second = disk.perform([])
    disk._steps.close()
    with pytest.raises(KeyError):
        loop.calls.get(timeout=60)()
    loop.until(second)


def test_a_step_that_syncs_or_reserves_pins_its_file(loop, disk, tmp_path):
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f", b"x")])
    pending = disk.perform([ReserveSpace(file, 0, 4096), SyncFile(file)])
    file.close()
    loop.until(pending)
    assert file.gone


def test_the_space_of_a_file_system_is_told_and_a_missing_path_is_an_error(loop, disk, tmp_path):
    space = loop.until(disk.space(str(tmp_path)))
    assert 0 < space.usable <= space.total
    with pytest.raises(DiskError):
        loop.until(disk.space(f"{tmp_path}/missing"))


def test_a_disk_that_need_not_last_does_everything_but_sync(loop, tmp_path, monkeypatch):
    def refuse(fd):
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "fdatasync", refuse, raising=False)
    disk = OsDisk(loop.wake, durable=False)
    path = f"{tmp_path}/small"
    [file] = disk.perform_now([ReplaceFile(path, b"new"), CreateFile(f"{tmp_path}/made")])
    assert disk.read_file(path) == b"new"
    done = disk.sync([file], [str(tmp_path)])
    disk.close()
    assert done.result() is None
    file.close()


def test_a_directory_is_synced_also_when_no_descriptor_is_left(disk, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take_all() -> None:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))

    disk.perform_now([SyncDirectory(f"{tmp_path}")])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            take_all()
        for _ in range(2):  # the spare one is taken back afterwards
            disk.perform_now([SyncDirectory(f"{tmp_path}")])
        with pytest.raises(DiskError) as refused:
            disk.open(f"{tmp_path}/file").fileno()
        assert refused.value.errno == errno.EMFILE
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_being_made_keeps_its_descriptor_while_the_loop_closes_those_of_others(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = OsDisk(loop.wake, files_max=0)
    write = os.pwrite

    def written(fd: int, data: bytes, position: int) -> int:
        for _ in range(2):  # what was used lately has a second chance
            monkeypatch.setattr(disk.open_files, "_thread", threading.get_ident())
            disk.open_files.trim()
        return write(fd, data, position)

    monkeypatch.setattr(os, "pwrite", written)
    made, replaced = f"{tmp_path}/made", f"{tmp_path}/replaced"
    steps = [CreateFile(made, b"made"), ReplaceFile(replaced, b"replaced")]
    [early] = disk.perform_now(steps)
    [file] = loop.until(disk.perform(steps))
    assert (disk.read_file(made), disk.read_file(replaced)) == (b"made", b"replaced")
    file.write(b"more", 4)
    assert disk.read_file(made) == b"mademore"
    disk.close()
    for one in (early, file):
        assert one.users == 0
        one.close()
    assert len(disk.open_files) == 0


@pytest.mark.parametrize("durable", [True, False])
def test_what_replaces_a_file_is_synced_before_it_has_its_name(
    loop, tmp_path, monkeypatch, durable
):
    disk = OsDisk(loop.wake, durable=durable)
    calls: list[str] = []
    sync, replace = disk_module._sync_whole, os.replace
    monkeypatch.setattr(disk_module, "_sync_whole", lambda fd: (calls.append("sync"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names)))
    try:
        disk.perform_now([ReplaceFile(f"{tmp_path}/file", b"new")])
    finally:
        disk.close()
    assert calls == (["sync"] if durable else []) + ["rename"]
