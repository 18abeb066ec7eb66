"""The real file system behind the Disk port.

Owns the threads that wait for the disk, and what only Linux has (reserving past the end of a
file), each beside a portable fallback; open files are in `files.py`. Must not know what the files
mean. Threads never touch a Pending or a file's count of users: they hand results
to the loop's thread, which alone does.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from errno import EBADF, EMFILE, ENFILE
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from time import sleep
from typing import TypeVar, cast

from ottla.core.model import FileSlice, Offset
from ottla.core.pending import Pending
from ottla.core.ports import (
    CreateFile,
    DiskError,
    File,
    MakeDirectory,
    OpenFile,
    RemoveTree,
    RenamePath,
    ReplaceFile,
    ReserveSpace,
    Space,
    Step,
    SyncDirectory,
    SyncFile,
    UnlinkFile,
)
from ottla.host import ahead, linux
from ottla.host.files import OpenFiles, OsFile, check_regular
from ottla.host.mailbox import Mailbox, WakeLoop

T = TypeVar("T")

SYNC_THREADS_MAX = 8
"""A file each, up to this many: 4 files take 0.4 ms instead of 0.9 by one thread, 100 take 7
instead of 18, and the waiting costs less CPU."""
WARM_THREADS_MAX = 4
AHEAD_THREADS_MAX = 2
"""Of their own, so that what nobody has asked for yet keeps nobody waiting."""
_TOGETHER = (SyncFile, ReplaceFile, SyncDirectory)
_WARM_CHUNK = 1 << 20
_WARM_REST_S = 20e-6
"""Between two chunks; the kernel makes some 70 µs of it. A thread that reads ahead is awake for 0.3
to 1 ms for 8 MiB, and who wants its processor meanwhile would wait until it sleeps."""
_SMALL = 64 << 10


class _Job:
    """Calls for one Pending, done by one thread or shared out over several."""

    __slots__ = ("_calls", "_lock", "_parts", "created", "error", "files", "pending", "value")

    def __init__(
        self, calls: Iterable[Callable[[], object]], files: Sequence[File], parts: int
    ) -> None:
        self._calls = deque(calls)
        self._lock = threading.Lock()
        self._parts = parts
        self.files = files
        self.created: Sequence[File] = ()
        """Files that the calls make: nobody else knows them before they are delivered."""
        self.pending: Pending[object] = Pending()
        self.value: object = None
        self.error: DiskError | None = None

    def work(self) -> bool:
        """Do calls until none is left; True for the thread that finishes last.

        A failure doesn't stop the others: the caller learns of the first when all have returned.
        """
        while True:
            try:
                call = self._calls.popleft()  # atomic, so threads share the work without a lock
            except IndexError:
                break
            try:
                self.value = call()
            except DiskError as error:
                self.error = error
        with self._lock:
            self._parts -= 1
            return self._parts == 0


class _Threads:
    """Up to `threads_max` threads, each started when first needed: start-up pays for none."""

    __slots__ = (
        "_begin", "_jobs", "_lock", "_name", "_on_done", "_outstanding", "_threads", "_threads_max",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        threads_max: int,
        on_done: Callable[[_Job], None],
        begin: Callable[[], None] | None = None,
    ) -> None:
        """`begin` is the first that each thread does."""
        self._begin = begin
        self._name = name
        self._threads_max = threads_max
        self._on_done = on_done
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._outstanding = 0

    def submit(self, job: _Job, parts: int) -> None:
        with self._lock:
            self._outstanding += parts
            wanted = min(self._outstanding, self._threads_max)
        while len(self._threads) < wanted:
            # Daemons: a process that ends without close() must not hang on a thread that waits.
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        for _ in range(parts):
            self._jobs.put(job)

    def close(self) -> None:
        """Finish what was asked for, then end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self) -> None:
        if self._begin is not None:
            self._begin()
        while (job := self._jobs.get()) is not None:
            last = job.work()
            with self._lock:
                self._outstanding -= 1
            if last:
                self._on_done(job)
            del job  # or an idle thread would keep files and buffers alive


class OsDisk:
    """The Disk port on the real machine. Every OSError becomes a DiskError.

    Steps of `perform` are done in the order of the calls, by one thread: two replacements of
    one file can't overtake each other. Syncs, warms and what is performed aside have threads of
    their own, so that neither cold reads nor large deletions hold up anything. `portable` (or
    OTTLA_PORTABLE=1) forces every fallback.
    """

    def __init__(
        self,
        wake_loop: WakeLoop,
        *,
        portable: bool | None = None,
        durable: bool = True,
        sync_threads_max: int = SYNC_THREADS_MAX,
        files_max: int = 1 << 20,
    ) -> None:
        """`wake_loop` is first called when a `perform`, `sync` or `warm` completes.

        `durable` of False is for files that nobody opens again: all goes its way, with the syncs
        themselves left out. `files_max` files keep a descriptor while nothing needs it.
        """
        self._mailbox = Mailbox(wake_loop)
        self._durable = durable
        if portable is None:
            portable = os.environ.get("OTTLA_PORTABLE") == "1"
        self._portable = portable or not linux.AVAILABLE
        self._closed = False
        self.open_files = OpenFiles(files_max)
        self.open_files.sync = self._sync_ahead
        self._null = -1
        self._spare = -1
        self._opening = threading.Lock()
        self._sync_threads_max = sync_threads_max
        self._steps = _Threads("ottla-disk", 1, self._finished)
        self._asides = _Threads("ottla-aside", 1, self._finished)
        self._syncs = _Threads("ottla-sync", sync_threads_max, self._finished)
        back = linux.stand_back
        self._warms = _Threads("ottla-warm", WARM_THREADS_MAX, self._finished, back)
        self._aheads = _Threads("ottla-ahead", AHEAD_THREADS_MAX, self._finished, back)

    # Blocking: at start, at stop and in tools.

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DiskError("list", path, error) from error

    def read_file(self, path: str) -> bytes | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiskError("read", path, error) from error
        try:
            return _read_whole(fd)
        except OSError as error:
            raise DiskError("read", path, error) from error
        finally:
            os.close(fd)

    def read_ahead(self, logs: Sequence[tuple[str, Offset | None]]) -> Callable[[], None]:
        return ahead.read_ahead(logs)

    def open(self, path: str) -> File:
        return OsFile(path, self.open_files, nowait=not self._portable)

    def perform_now(self, steps: Sequence[Step]) -> list[File]:
        created: list[File] = []
        try:
            for kind, group in groupby(steps, type):
                if kind in _TOGETHER:
                    self._sync_all(list(group))
                else:
                    self._perform_all(list(group), created)
        except DiskError:
            _throw_away(created)
            raise
        for file in created:
            file.release()
        self.open_files.trim()
        return created

    def _sync_all(self, steps: Sequence[Step]) -> None:
        """Steps of one kind that sync depend on nothing among them: several at a time."""
        threads_max = min(self._sync_threads_max, len(steps) // 4)
        calls = [partial(self._perform, step, []) for step in steps]
        job = _Job(calls, [], threads_max + 1)
        threads = [threading.Thread(target=job.work) for _ in range(threads_max)]
        for thread in threads:
            thread.start()
        job.work()
        for thread in threads:
            thread.join()
        if job.error is not None:
            raise job.error

    def _perform_all(self, steps: Sequence[Step], created: list[File]) -> list[File]:
        """What is created is held until it is delivered, lest its descriptor be closed under us."""
        for step in steps:
            self._perform(step, created)
        return created

    def _perform_one(self, steps: Sequence[Step], created: list[File]) -> list[File]:
        try:
            return [*self._perform_all(steps, created)]  # the caller's own, to do with as it likes
        except DiskError:
            _throw_away(created)
            created.clear()
            raise

    # Not blocking.

    def perform(self, steps: Sequence[Step]) -> Pending[list[File]]:
        files = [step.file for step in steps if isinstance(step, ReserveSpace | SyncFile)]
        pending = self._submit_steps(self._steps, steps, files)
        return cast("Pending[list[File]]", pending)

    def perform_aside(self, steps: Sequence[Step]) -> Pending[list[File]]:
        files = [step.file for step in steps if isinstance(step, ReserveSpace | SyncFile)]
        pending = self._submit_steps(self._asides, steps, files)
        return cast("Pending[list[File]]", pending)

    def sync(self, files: Sequence[File], directories: Sequence[str]) -> Pending[None]:
        calls: list[Callable[[], None]] = [self._sync_call(file) for file in files]
        calls += [self._sync_directory_call(path) for path in directories]
        parts = min(self._sync_threads_max, len(calls)) or 1
        return cast("Pending[None]", self._submit(self._syncs, calls, files, parts))

    def warm(self, piece: FileSlice, *, ahead: bool = False) -> Pending[None]:
        file, position, length = piece.file, piece.position, piece.length
        threads = self._aheads if ahead else self._warms

        def bring() -> None:
            if not (ahead and self._closed):  # nobody will ask for it: a stop need not wait for it
                self._warm(file, position, length)

        return cast("Pending[None]", self._submit(threads, [bring], [file], 1))

    def examine(self, file: File, look: Callable[[File], T]) -> Pending[T]:
        pending = self._submit(self._warms, [lambda: look(file)], [file], 1)
        return cast("Pending[T]", pending)

    def space(self, path: str) -> Pending[Space]:
        pending = self._submit(self._warms, [lambda: _space(path)], [], 1)
        return cast("Pending[Space]", pending)

    def close(self) -> None:
        """Finish what was asked for, end the threads, complete every Pending. On the loop's thread.

        What is to be read ahead and is not begun is left out. Files stay open: they belong to
        their logs.
        """
        if self._closed:
            return
        self._closed = True
        self.open_files.sync = None  # it would be refused, and asked for again, without end
        for threads in (self._steps, self._asides, self._syncs, self._warms, self._aheads):
            threads.close()
        self._mailbox.drain()
        for fd in (self._null, self._spare):
            if fd >= 0:
                os.close(fd)
        self._null = self._spare = -1

    def _submit_steps(
        self, threads: _Threads, steps: Sequence[Step], files: Sequence[File]
    ) -> Pending[object]:
        created: list[File] = []
        call = partial(self._perform_one, steps, created)
        return self._submit(threads, [call], files, 1, created)

    def _submit(
        self,
        threads: _Threads,
        calls: Sequence[Callable[[], object]],
        files: Sequence[File],
        parts: int,
        created: Sequence[File] = (),
    ) -> Pending[object]:
        if self._closed:
            refused: Pending[object] = Pending()
            path = files[0].path if files else "."
            refused.fail(DiskError("use", path, OSError(EBADF, "the disk is closed")))
            return refused
        for file in files:
            file.retain()
        job = _Job(calls, files, parts)
        job.created = created
        threads.submit(job, parts)
        return job.pending

    def _finished(self, job: _Job) -> None:
        self._mailbox.post(lambda: self._deliver(job))

    def _deliver(self, job: _Job) -> None:
        for file in job.files:
            file.release()
        self.open_files.trim()
        try:
            if job.error is not None:
                job.pending.fail(job.error)
            else:
                job.pending.complete(job.value)
        finally:
            for file in job.created:
                file.release()  # by now whoever needs it longer has said so

    def _sync_ahead(self, files: list[OsFile]) -> None:
        def done() -> None:
            with suppress(DiskError):  # each file remembers its own, for whoever asks next
                pending.result()
            self.open_files.synced_ahead()

        pending = self.sync(files, [])
        pending.then(done)

    def _perform(self, step: Step, created: list[File]) -> None:
        match step:
            case CreateFile(path, content):
                file = self._open("create", path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                created.append(file)
                if content:
                    file.write(content, 0)
            case OpenFile(path, becomes):
                created.append(self._open_renamed(path, becomes))
            case SyncFile(file):
                self._sync(file)
            case SyncDirectory(path):
                self._sync_directory(path)
            case ReserveSpace(file, position, length):
                self._reserve(file, position, length)
            case ReplaceFile(path, content, sync_directory):
                self._replace(path, content, sync_directory)
            case MakeDirectory(path, new):
                _attempt("make directory", path, lambda: os.makedirs(path, exist_ok=not new))
            case RenamePath(source, target):
                _attempt("rename", source, lambda: os.replace(source, target))
            case UnlinkFile(path):
                _attempt("remove", path, lambda: _unlink(path))
            case RemoveTree(path):
                _attempt("remove", path, lambda: _remove_tree(path))

    def _open(self, action: str, path: str, flags: int) -> OsFile:
        file = OsFile(path, self.open_files, nowait=not self._portable)
        file.retain()  # before it is known to `open_files`, which the loop trims meanwhile
        file.open(action, flags)
        return file

    def _open_renamed(self, path: str, becomes: str) -> OsFile:
        file = OsFile(becomes, self.open_files, nowait=not self._portable)
        file.retain()
        _attempt("open", path, lambda: self.open_files.opened(path, file, os.O_RDWR))
        return file

    def _replace(self, path: str, content: bytes, sync_directory: bool) -> None:
        aside = f"{path}.tmp"
        file = self._open("create", aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            if content:
                file.write(content, 0)
            if self._durable:
                _attempt("sync", aside, lambda: _sync_whole(file.fileno()))
        finally:
            _throw_away([file])
        _attempt("rename", aside, lambda: os.replace(aside, path))
        if sync_directory:
            self._sync_directory(os.path.dirname(path) or ".")

    def _sync_call(self, file: File) -> Callable[[], None]:
        return lambda: self._sync(file)

    def _sync_directory_call(self, path: str) -> Callable[[], None]:
        return lambda: self._sync_directory(path)

    def _sync(self, file: File) -> None:
        assert isinstance(file, OsFile), "files of another disk"
        if not self._durable:
            file.unsynced = False
            return
        file.sync(_sync_whole if self._portable else os.fdatasync)

    def _sync_directory(self, path: str) -> None:
        if not self._durable:
            return
        try:
            _fsync_directory(path)
        except OSError as error:
            if error.errno not in (EMFILE, ENFILE):
                raise DiskError("sync directory", path, error) from error
            self._sync_directory_with_the_spare(path)
        else:
            self._keep_a_spare()

    def _keep_a_spare(self) -> None:
        if self._spare < 0:
            with self._opening:
                if self._spare < 0 and not self._closed:
                    self._spare = _spare_descriptor()

    def _sync_directory_with_the_spare(self, path: str) -> None:
        # A round that fails takes the whole directory offline, and rightly so where the disk has
        # failed. Descriptors that have run out are not that.
        with self._opening:
            if self._spare >= 0:
                os.close(self._spare)
                self._spare = -1
            _attempt("sync directory", path, lambda: _fsync_directory(path))
            self._spare = _spare_descriptor()

    def _reserve(self, file: File, position: int, length: int) -> None:
        if not self._portable:
            _attempt("reserve", file.path, lambda: linux.reserve(file.fileno(), position, length))

    def _warm(self, file: File, position: int, length: int) -> None:
        end = position + length
        assert isinstance(file, OsFile), "files of another disk"
        if file.gone:
            return  # whoever reads again finds that it is no longer part of a log
        start = position
        try:
            while count := self._touch(file, position, min(end - position, _WARM_CHUNK)):
                position += count
                if position == end:
                    break
                sleep(_WARM_REST_S)
        except OSError as error:
            file.refused(position)
            raise DiskError("read", file.path, error) from error
        if file.unreadable:
            file.given(start, position)

    def _touch(self, file: File, position: int, length: int) -> int:
        if self._portable:
            return len(os.pread(file.fileno(), length, position))
        return os.sendfile(self._null_descriptor(), file.fileno(), position, length)

    def _null_descriptor(self) -> int:
        with self._opening:
            if self._null < 0:
                self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            return self._null


def _throw_away(files: Iterable[File]) -> None:
    for file in files:
        file.close()
        file.release()


def _read_whole(fd: int) -> bytes:
    # Most are a few lines, and thousands at a start: making a file object takes longer than that.
    part = os.read(fd, _SMALL)
    if not 0 < len(part) < _SMALL:  # a pipe that nobody writes ends at once, and a device never
        check_regular(os.fstat(fd).st_mode)
    parts = [part]
    while part := os.read(fd, _SMALL):
        parts.append(part)
    return b"".join(parts)


def _space(path: str) -> Space:
    try:
        found = os.statvfs(path)
    except OSError as error:
        raise DiskError("ask for the space of", path, error) from error
    size = found.f_frsize
    return Space(size * found.f_blocks, size * found.f_bavail, found.f_files, found.f_favail)


def _fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _spare_descriptor() -> int:
    """A descriptor to give up when there is no other; -1 where there is none even now."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _attempt(action: str, path: str, call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as error:
        raise DiskError(action, path, error) from error


def _sync_whole(fd: int) -> None:
    if full_sync := linux.FULL_SYNC:  # macOS: fsync alone leaves bytes in the drive's cache
        full_sync(fd)
    else:
        os.fsync(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _remove_tree(path: str) -> None:
    import shutil  # late: rarely needed, and 3 ms on the way to the first answer

    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
