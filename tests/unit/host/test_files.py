"""Open files: how many have a descriptor, and which never lose theirs. Real files in tmp_path."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from ottla.cli.log_files import mapped
from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.core.ports import CreateFile, DiskError, RenamePath
from ottla.host.disk import OsDisk
from ottla.host.files import OsFile
from ottla.storage.opening import is_of_one_file

FILES_MAX = 8


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
def disk(loop) -> Iterator[OsDisk]:
    disk = OsDisk(loop.calls.put, portable=False, files_max=FILES_MAX)
    yield disk
    disk.close()


@pytest.fixture
def files(disk, tmp_path) -> Iterator[list[OsFile]]:
    """More files than may be open, with content, of which some had to be closed already."""
    names = [f"{tmp_path}/{number:02}" for number in range(3 * FILES_MAX)]
    for name in names:
        with open(name, "wb") as made:
            made.write(name.encode())
    files = [disk.open(name) for name in names]
    yield files
    for file in files:
        file.close()


def content(file: OsFile) -> bytes:
    return os.path.basename(file.path).encode()


def has(file: OsFile) -> bool:
    return file.descriptor >= 0


def read(file: OsFile) -> bytes:
    return file.read(0, 1000)[-2:]


def test_a_file_is_opened_at_its_first_use_and_its_size_needs_no_descriptor(disk, files):
    assert len(disk.open_files) == 0
    assert files[0].size() == len(files[0].path)
    assert not has(files[0])
    assert read(files[0]) == content(files[0])
    assert has(files[0])


def test_however_many_files_are_read_only_so_many_stay_open(disk, files):
    for file in files * 3:
        assert read(file) == content(file)
        assert len(disk.open_files) <= FILES_MAX + 1
    in_use = len(os.listdir("/proc/self/fd"))
    for file in files:
        file.close()
    assert len(disk.open_files) == 0
    assert len(os.listdir("/proc/self/fd")) <= in_use - FILES_MAX


def test_the_file_that_is_used_again_and_again_stays_open(files):
    for file in files[1:]:
        files[0].read_nowait(0, 1)
        read(files[0])
        first = files[0].descriptor
        read(file)
        assert files[0].descriptor == first, "it was closed and opened again"


def test_to_read_without_waiting_a_closed_file_must_be_warmed_first(loop, disk, files):
    for file in files:
        read(file)
    closed = next(file for file in files if not has(file))
    assert closed.read_nowait(0, 10) is None
    piece = FileSlice(closed, 0, closed.size())
    loop.until(disk.warm(piece))
    assert closed.read_nowait(0, 1000)[-2:] == content(closed)
    piece.release()


def test_a_slice_that_is_being_sent_keeps_its_descriptor(files):
    piece = FileSlice(files[0], 0, 4)
    fd = piece.file.fileno()
    for file in files[1:] * 3:
        read(file)
    assert piece.file.fileno() == fd
    piece.release()
    for file in files[1:] * 3:
        read(file)
    assert not has(files[0])


def test_a_file_that_was_written_stays_open_until_it_is_synced(loop, disk, files):
    files[0].write(b"xx", files[0].size())
    fd = files[0].descriptor
    for file in files[1:] * 3:
        read(file)
    assert files[0].descriptor == fd
    loop.until(disk.sync([files[0]], []))
    while files[0].users:  # it may have been synced ahead, too
        loop.calls.get(timeout=60)()
    for file in files[1:] * 3:
        read(file)
    assert not has(files[0])
    assert read(files[0]) == b"xx"


def test_what_is_written_while_a_sync_runs_waits_for_the_next_one(files):
    files[0].write(b"x", 0)
    files[0].sync(lambda fd: files[0].write(b"y", 0))
    assert files[0].unsynced


def test_where_all_were_written_the_oldest_are_synced_ahead_and_closed(loop, disk, files):
    for file in files:
        file.write(b"x", 0)
    assert len(disk.open_files) == len(files), "none may be closed before it is synced"
    while len(disk.open_files) > FILES_MAX:
        loop.calls.get(timeout=60)()
        read(files[-1])
    assert all(file.read(0, 1) == b"x" for file in files)


def test_a_disk_that_closes_while_it_syncs_ahead_leaves_what_is_unsynced_to_its_logs(disk, files):
    for file in files:
        file.write(b"x", 0)
    disk.close()
    assert len(disk.open_files) > FILES_MAX
    assert all(file.read(0, 1) == b"x" for file in files)


def test_a_sync_ahead_that_fails_is_told_to_whoever_asks_next(loop, disk, files, monkeypatch):
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "bad")

    monkeypatch.setattr(os, "fdatasync", refuse)
    for file in files:
        file.write(b"x", 0)
    failed = []
    while not failed:
        loop.calls.get(timeout=60)()
        failed = [file for file in files if file.failure is not None]
    monkeypatch.undo()
    assert has(failed[0])
    with pytest.raises(DiskError, match=r"sync .*: bad"):
        loop.until(disk.sync([failed[0]], []))


def test_a_descriptor_that_cant_be_closed_well_ends_nobody(disk, files, monkeypatch):
    """As a file system over a network may: the kernel has taken it back all the same."""

    def refused(_fd: int) -> None:
        raise OSError(errno.EIO, "bad")

    for file in files[:FILES_MAX]:
        read(file)
    lent, *_, last = (file for file in files if has(file))
    lent.retain()
    lent.close()
    with monkeypatch.context() as patch:
        patch.setattr("ottla.host.files.os.close", refused)
        lent.release()
        last.close()
        for file in files[FILES_MAX:]:  # which pushes the others out
            read(file)
    assert not has(lent)
    assert not has(last)
    assert len(disk.open_files) <= FILES_MAX


def test_a_closed_file_is_not_opened_again_for_its_name_may_be_anothers(loop, disk, tmp_path):
    [file] = disk.perform_now([CreateFile(f"{tmp_path}/f", b"old")])
    loop.until(disk.sync([file], []))
    other = OsDisk(loop.calls.put, files_max=0)
    again = other.open(f"{tmp_path}/f")
    piece = FileSlice(again, 0, 3)
    again.close()
    disk.perform_now([RenamePath(f"{tmp_path}/f", f"{tmp_path}/f.deleted")])
    [new] = disk.perform_now([CreateFile(f"{tmp_path}/f", b"new")])
    with pytest.raises(DiskError, match="closed"):
        piece.file.fileno()
    loop.until(other.warm(piece))  # nothing to warm, and nobody's fault
    piece.release()
    other.close()
    for one in (file, new):
        one.close()


@pytest.fixture
def bad(disk, tmp_path, monkeypatch) -> OsFile:
    """A file whose third page the disk can't read: pread and sendfile end before it, then fail."""
    path = tmp_path / "bad"
    path.write_bytes(bytes(5 * 4096))
    file = disk.open(str(path))

    def refusing(call, fd_at, position_at, count_at):
        def refuse(*args):
            args = [*args]
            if args[fd_at] == file.descriptor and args[position_at] < 3 * 4096:
                left = 2 * 4096 - args[position_at]
                if left <= 0:
                    raise OSError(errno.EIO, "Input/output error")
                args[count_at] = min(args[count_at], left)
            return call(*args)

        return refuse

    monkeypatch.setattr(os, "pread", refusing(os.pread, 0, 2, 1))
    monkeypatch.setattr(os, "sendfile", refusing(os.sendfile, 1, 2, 3))
    return file


def test_a_file_knows_where_the_disk_could_not_read_it(loop, disk, bad, monkeypatch):
    piece = FileSlice(bad, 100, 4 * 4096)
    with pytest.raises(DiskError):
        loop.until(disk.warm(piece))
    assert bad.unreadable == (2 * 4096,)
    with pytest.raises(DiskError):
        bad.read(200, 4 * 4096)
    assert bad.unreadable == (2 * 4096,)
    with pytest.raises(DiskError):
        bad.read(2 * 4096 + 7, 10)
    assert bad.unreadable == (2 * 4096, 2 * 4096 + 7)
    bad.read(100, 4096)
    assert bad.unreadable == (2 * 4096, 2 * 4096 + 7)
    monkeypatch.undo()
    loop.until(disk.warm(piece))
    assert bad.unreadable == ()
    piece.release()
    bad.close()


def test_of_many_unreadable_places_the_last_are_remembered(disk, tmp_path):
    file = disk.open(str(tmp_path / "f"))
    for position in range(1000):
        file.refused(position)
    assert (len(file.unreadable), file.unreadable[-1]) == (64, 999)


@pytest.fixture(params=["pipe", "socket", "device"])
def no_file(request, tmp_path) -> str:
    path = str(tmp_path / "no file")
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)
    else:
        os.symlink("/dev/zero", path)
    return path


def test_what_is_no_file_is_unreadable_at_once_and_not_waited_for(disk, no_file):
    for use in (disk.read_file, lambda path: disk.open(path).size()):
        with pytest.raises(DiskError, match="no file") as caught:
            use(no_file)
        assert is_of_one_file(caught.value), "of a log it keeps away that log alone"
    with pytest.raises(OSError, match=r"pipe, a socket or a device|No such device"):
        mapped(no_file)
