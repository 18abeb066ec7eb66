"""A disk in memory that loses, tears and refuses, as a seed says. The port `Disk`, unchanged users.

Owns what a file system may do between two syncs: a file has a durable image and writes that may or
may not have arrived, a directory durable names and changes of them that may or may not have.
Must not be kinder than a real one: `crash` draws any state that the model allows.

The model. Without a sync of the file, any subset of its 512-byte sectors written since may be
there, and its size may have grown without them (zeros). Without a sync of the directory any subset
of its new, renamed and removed names may be there, whatever the state of the files they name.
Space is not modelled, except that a plan can refuse any call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from errno import EEXIST, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY
from typing import Literal, TypeAlias, TypeVar

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
from ottla.testing.simfile import PAGE, Fault, SimFile, error_of
from ottla.testing.simimage import (
    Cut,
    Folder,
    Link,
    Node,
    Rename,
    Unlink,
    Write,
    apply,
    nodes_below,
    redo,
)

T = TypeVar("T")

SECTOR = 512
_NAME_BYTES_MAX = 255

CrashPolicy: TypeAlias = Literal["any", "prefix", "nothing", "everything"]
"""What a crash keeps of each file's unsynced writes: a drawn mixture, a prefix with a torn end,
none, or all (which is what `kill -9` leaves)."""


class _Job:
    """What a thread would do, one call at a time."""

    def __init__(self, calls: Sequence[Callable[[], File | None]], stop: bool) -> None:
        self.calls = list(calls)
        self.stop_at_error = stop
        self.files: list[File] = []
        self.error: DiskError | None = None
        self.pending: Pending[list[File]] = Pending()

    def step(self) -> bool:
        """Do one call; True when it was the last."""
        if self.calls:
            try:
                file = self.calls.pop(0)()
            except DiskError as error:
                self.error = self.error or error
                if self.stop_at_error:
                    self.calls.clear()
            else:
                if file is not None:
                    self.files.append(file)
        return not self.calls

    def settle(self) -> None:
        if self.error is not None:
            self.pending.fail(self.error)
        else:
            self.pending.complete(self.files)


class SimDisk:
    """The port `Disk`. What would wait is done by `step`, one call at a time, or by `run`."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.root = Folder()
        self.boots = 0
        self.on_loop = False
        """Whether a call that blocks is a fault of the caller."""
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str]] = []
        """What was done, in order: (write | sync | sync directory, path)."""
        self.room = Space(1 << 40, 1 << 39)
        """What `space` tells. Nothing here uses it up: a plan refuses what is to find no room."""
        self._performs: list[_Job] = []  # one thread: in order
        self._asides: list[_Job] = []  # another thread
        self._others: list[_Job] = []  # syncs and warms: in any order

    # -- faults

    def due(self, action: str, path: str) -> Fault | None:
        """The fault that is planned for this call, if one is."""
        for fault in self.faults:
            if fault.action == action and fault.path in path:
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def blocks(self, action: str, path: str) -> None:
        """Refuse what blocks while the loop runs."""
        assert not self.on_loop, f"{action} {path} would block the loop"

    def _check(self, action: str, path: str) -> None:
        fault = self.due(action, path)
        if fault is not None:
            raise error_of(action, path, fault.errno)

    # -- names

    def _find(self, path: str) -> Node | Folder | None:
        at: Node | Folder | None = self.root
        for part in path.strip("/").split("/") if path.strip("/") else ():
            if not isinstance(at, Folder):
                return None
            at = at.names.get(part)
        return at

    def _parent(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.strip("/").rpartition("/")
        folder = self._find(above) if above else self.root
        if not isinstance(folder, Folder):
            raise error_of("open", path, ENOENT)
        return folder, name

    def names(self, path: str) -> list[str]:
        self.blocks("list", path)
        self._check("list", path)
        found = self._find(path)
        if isinstance(found, Node):
            raise error_of("list", path, ENOTDIR)
        return sorted(found.names) if isinstance(found, Folder) else []

    def read_file(self, path: str) -> bytes | None:
        self.blocks("read", path)
        self._check("read", path)
        found = self._find(path)
        return bytes(found.data) if isinstance(found, Node) else None

    def read_ahead(self, logs: Sequence[tuple[str, Offset | None]]) -> Callable[[], None]:
        self.blocks("read ahead", str(logs[:1]))
        return lambda: None

    def open(self, path: str) -> File:
        self.blocks("open", path)
        self._check("open", path)
        found = self._find(path)
        if not isinstance(found, Node):
            raise error_of("open", path, ENOENT)
        return SimFile(self, path, found)

    # -- steps

    def perform_now(self, steps: Sequence[Step]) -> list[File]:
        self.blocks("perform", str(steps[:1]))
        files = [self._do(step) for step in steps]
        return [file for file in files if file is not None]

    def perform(self, steps: Sequence[Step]) -> Pending[list[File]]:
        job = _Job([self._call(step) for step in steps], stop=True)
        self._performs.append(job)
        return job.pending

    def perform_aside(self, steps: Sequence[Step]) -> Pending[list[File]]:
        job = _Job([self._call(step) for step in steps], stop=True)
        self._asides.append(job)
        return job.pending

    def sync(self, files: Sequence[File], directories: Sequence[str]) -> Pending[None]:
        steps: list[Step] = [SyncFile(file) for file in files]
        steps += [SyncDirectory(path) for path in directories]
        self.random.shuffle(steps)
        return self._submit(_Job([self._call(step) for step in steps], stop=False))

    def warm(self, piece: FileSlice, *, ahead: bool = False) -> Pending[None]:  # noqa: ARG002  # as the port has it
        file, position, length = piece.file, piece.position, piece.length
        assert isinstance(file, SimFile)

        def bring_in() -> None:
            self._check("warm", file.path)
            file.warm(position, length)

        return self._submit(_Job([bring_in], stop=True))

    def examine(self, file: File, look: Callable[[File], T]) -> Pending[T]:
        found: list[T] = []
        file.retain()
        result: Pending[T] = Pending()

        def examine() -> None:
            self._check("examine", file.path)
            found.append(look(file))

        job = _Job([examine], stop=True)
        self._others.append(job)

        def pass_on() -> None:
            file.release()
            if job.error is not None:
                result.fail(job.error)
            else:
                result.complete(found[0])

        job.pending.then(pass_on)
        return result

    def space(self, path: str) -> Pending[Space]:
        result: Pending[Space] = Pending()
        job = _Job([lambda: self._check("ask for the space of", path)], stop=True)
        self._others.append(job)

        def pass_on() -> None:
            if job.error is not None:
                result.fail(job.error)
            else:
                result.complete(self.room)

        job.pending.then(pass_on)
        return result

    def _submit(self, job: _Job) -> Pending[None]:
        self._others.append(job)
        result: Pending[None] = Pending()

        def pass_on() -> None:
            if job.error is not None:
                result.fail(job.error)
            else:
                result.complete(None)

        job.pending.then(pass_on)
        return result

    def _call(self, step: Step) -> Callable[[], File | None]:
        return lambda: self._do(step)

    def _do(self, step: Step) -> File | None:
        match step:
            case CreateFile(path, content):
                return self._create(path, content)
            case OpenFile(path, becomes):
                self._check("open", path)
                found = self._find(path)
                if not isinstance(found, Node):
                    raise error_of("open", path, ENOENT)
                return SimFile(self, becomes, found)
            case ReplaceFile(path, content, sync_directory):
                self._replace(path, content, sync_directory)
            case SyncFile(file):
                assert isinstance(file, SimFile)
                self._check("sync", file.path)
                file.node.sync()
                self.log.append(("sync", file.path))
            case SyncDirectory(path):
                self._check("sync directory", path)
                folder = self._find(path)
                if not isinstance(folder, Folder):
                    raise error_of("sync directory", path, ENOENT)
                folder.sync()
                self.log.append(("sync directory", path))
            case ReserveSpace(file, _, _):
                self._check("reserve", file.path)
            case MakeDirectory(path, new):
                self._check("make directory", path)
                if new and self._find(path) is not None:
                    raise error_of("make directory", path, EEXIST)
                self._make_directory(path)
            case RenamePath(source, target):
                self._check("rename", source)
                self._rename(source, target)
            case UnlinkFile(path) | RemoveTree(path):
                self._check("remove", path)
                self._remove(path)
        return None

    def _create(self, path: str, content: bytes) -> SimFile:
        self._check("create", path)
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if not isinstance(node, Node):
            node = Node()
            folder.change(Link(name, node))
        file = SimFile(self, path, node)
        file.truncate(0)
        if content:
            file.write(content, 0)
        return file

    def _replace(self, path: str, content: bytes, sync_directory: bool) -> None:
        self._check("replace", path)
        aside = self._create(f"{path}.tmp", content)
        self._check("sync", aside.path)
        aside.node.sync()
        aside.close()
        self._check("rename", aside.path)
        self._rename(aside.path, path)
        if sync_directory:
            self._do(SyncDirectory(path.rpartition("/")[0]))

    def _make_directory(self, path: str) -> None:
        at = self.root
        for part in path.strip("/").split("/"):
            below = at.names.get(part)
            if not isinstance(below, Folder):
                below = Folder()
                at.change(Link(part, below))
            at = below

    def _rename(self, source: str, target: str) -> None:
        folder, name = self._parent(source)
        beside, new_name = self._parent(target)
        assert folder is beside, "renames between directories are not modelled"
        node = folder.names.get(name)
        if node is None:
            raise error_of("rename", source, ENOENT)
        if len(new_name.encode("utf-8", "surrogateescape")) > _NAME_BYTES_MAX:
            raise error_of("rename", source, ENAMETOOLONG)
        there = beside.names.get(new_name)
        if isinstance(there, Folder) and there.names:
            raise error_of("rename", source, ENOTEMPTY)
        folder.change(Rename(name, new_name, node))

    def _remove(self, path: str) -> None:
        try:
            folder, name = self._parent(path)
        except DiskError:
            return
        if name in folder.names:
            folder.change(Unlink(name))

    # -- time passes

    @property
    def busy(self) -> bool:
        """Whether something asked for is not done yet."""
        return bool(self._performs or self._asides or self._others)

    def step(self) -> None:
        """Do one call of one job that waits; complete its Pending when it was the last."""
        queues = [queue for queue in (self._performs, self._asides, self._others) if queue]
        if not queues:
            return
        queue = self.random.choice(queues)
        job = self.random.choice(queue) if queue is self._others else queue[0]
        blocked, self.on_loop = self.on_loop, False
        try:
            done = job.step()
        finally:
            self.on_loop = blocked
        if done:
            queue.remove(job)
            job.settle()

    def run(self) -> None:
        """Do all that waits, and what that leads to."""
        while self.busy:
            self.step()

    def evict(self) -> None:
        """Forget all pages: every read without blocking finds nothing until they are warmed."""
        for node in nodes_below(self.root):
            node.absent = set(range(-(-len(node.data) // PAGE)))

    def kill(self) -> None:
        """The process dies, the machine doesn't: what was written is there, what waited is not."""
        self.boots += 1
        self._performs.clear()
        self._asides.clear()
        self._others.clear()

    def crash(self, policy: CrashPolicy = "any") -> None:
        """The power fails. Draws a state that may be found afterwards; it is durable then."""
        self.kill()
        seen: set[int] = set()
        self._crash_folder(self.root, policy, seen)
        self.evict()

    def _crash_folder(self, folder: Folder, policy: CrashPolicy, seen: set[int]) -> None:
        if id(folder) in seen:
            return
        seen.add(id(folder))
        names = dict(folder.durable)
        for operation in self._kept(folder.pending, policy):
            apply(names, operation)
        folder.names, folder.durable = names, dict(names)
        folder.pending.clear()
        for below in list(names.values()):
            if isinstance(below, Folder):
                self._crash_folder(below, policy, seen)
            elif id(below) not in seen:
                seen.add(id(below))
                self._crash_node(below, policy)

    def _kept(
        self, pending: list[Link | Unlink | Rename], policy: CrashPolicy
    ) -> list[Link | Unlink | Rename]:
        match policy:
            case "nothing":
                return []
            case "everything":
                return pending
            case "prefix":
                return pending[: self.random.randint(0, len(pending))]
        share = self.random.choice((0.0, 0.5, 0.9, 1.0))
        return [operation for operation in pending if self.random.random() < share]

    def _crash_node(self, node: Node, policy: CrashPolicy) -> None:
        kind: str = policy
        if policy == "any":
            kind = self.random.choice(("nothing", "everything", "prefix", "prefix", "sectors"))
        image = bytearray(node.durable)
        match kind:
            case "everything":
                image = bytearray(node.data)
            case "prefix":
                self._keep_prefix(image, node.pending)
            case "sectors":
                self._keep_sectors(image, node.pending)
        if policy == "any" and self.random.random() < 0.2 and len(node.data) > len(image):
            image += bytes(self.random.randint(0, len(node.data) - len(image)))  # a zero tail
        node.data = image
        node.sync()

    def _keep_prefix(self, image: bytearray, pending: list[Write | Cut]) -> None:
        """The first operations, and a part of the next one up to a sector's end."""
        count = self.random.randint(0, len(pending))
        for operation in pending[:count]:
            redo(image, operation)
        if count < len(pending):
            torn = pending[count]
            if isinstance(torn, Write):
                end = torn.position + self.random.randint(0, len(torn.data))
                end -= end % SECTOR
                redo(image, Write(torn.position, torn.data[: max(end - torn.position, 0)]))

    def _keep_sectors(self, image: bytearray, pending: list[Write | Cut]) -> None:
        share = self.random.choice((0.5, 0.9, 0.97))
        for operation in pending:
            if isinstance(operation, Cut):
                if self.random.random() < share:
                    redo(image, operation)
                continue
            at = 0
            while at < len(operation.data):
                length = SECTOR - (operation.position + at) % SECTOR
                if self.random.random() < share:
                    piece = operation.data[at : at + length]
                    redo(image, Write(operation.position + at, piece))
                at += length
