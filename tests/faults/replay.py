"""A recorded run as a simulated disk: each system call changes its files by the simulation's rules.

Owns the step from what strace saw to `simimage`. With `simcrash` it says which states a power cut
could have left of what the program really called, where the simulation only says what we believe
that it calls. Must not know Kafka. Of calls outside `root` it takes no notice, nor of a
`fallocate` that keeps the size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ottla.testing.simimage import Cut, Folder, Link, Node, Rename, Unlink, Write, apply, redo
from tests.faults.strace import Call, text_of

CALLS = (
    "openat,write,pwrite64,pwritev,pwritev2,writev,ftruncate,rename,renameat,renameat2,unlink,"
    "unlinkat,mkdir,mkdirat,rmdir,fdatasync,fsync,sendto,sendmsg,sendmmsg"
)
_NUMBER = re.compile(r", (0x[0-9a-f]+|\d+)$")
_PATHS = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class _Sync(NamedTuple):
    """A sync in flight: what had been done to the file or folder when it began."""

    target: Node | Folder
    changes: list[object]


class Replay:
    """The disk below `root` as it was after each call."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.disk = Folder()
        self._make_folders(self.root)
        self._settle_all(self.disk)
        self._ends: dict[str, int] = {}  # where `write` goes on, by descriptor and path
        self.unknown: set[str] = set()

    def run(self, calls: list[Call]) -> Iterator[int]:
        """Take in the calls; yields the place in the trace after each that changed something."""
        begins = sorted((c for c in calls if c.name.endswith("sync")), key=lambda c: c.begun)
        syncs: dict[int, _Sync] = {}
        for call in sorted(calls, key=lambda c: c.returned):
            while begins and begins[0].begun <= call.returned:
                sync = begins.pop(0)
                target = self._find(sync.path) if self._ours(sync.path) else None
                if target is not None:
                    syncs[sync.begun] = _Sync(target, list(target.pending))
            if call.result >= 0 and self._take(call, syncs):
                yield call.returned

    def _ours(self, path: str) -> bool:
        return path == self.root or path.startswith(f"{self.root}/")

    def _take(self, call: Call, syncs: dict[int, _Sync]) -> bool:
        if call.name.endswith("sync"):
            sync = syncs.pop(call.begun, None)
            if sync is not None:
                _settle(sync)
            return sync is not None
        if call.name in ("openat", "write", "pwrite64", "ftruncate"):
            if not self._ours(call.path):
                return False
            getattr(self, f"_{call.name}")(call)
            return call.name != "openat" or "O_CREAT" in call.arguments
        paths = [text_of(found) for found in _PATHS.findall(call.arguments)]
        if not paths or not self._ours(paths[0]) or paths[0] == self.root:
            return False  # where `root` itself lies is not part of this
        folder, name = self._parent(paths[0])
        if call.name.startswith("mkdir"):
            folder.change(Link(name, Folder()))
        elif call.name.startswith(("unlink", "rmdir")):
            folder.change(Unlink(name))
        elif call.name.startswith("rename"):
            beside, new_name = self._parent(paths[1])
            assert beside is folder, f"{paths}: renames between directories are not modelled"
            folder.change(Rename(name, new_name, folder.names[name]))
        else:
            self.unknown.add(call.name)
            return False
        return True

    def _openat(self, call: Call) -> None:
        folder, name = self._parent(call.path)
        node = folder.names.get(name)
        if node is None and "O_CREAT" in call.arguments:
            node = Node()
            folder.change(Link(name, node))
        if isinstance(node, Node) and "O_TRUNC" in call.arguments and node.data:
            self._cut(node, 0)
        self._ends[call.path] = 0

    def _write(self, call: Call) -> None:
        node = self._find(call.path)
        assert isinstance(node, Node), f"{call.path} was written before it was made"
        at = self._ends.get(call.path, 0)
        self._put(node, at, call.data())
        self._ends[call.path] = at + call.result

    def _pwrite64(self, call: Call) -> None:
        node = self._find(call.path)
        position = _NUMBER.search(call.arguments)
        if node is None:
            return  # removed meanwhile
        assert isinstance(node, Node), call.path
        assert position is not None, call.arguments
        self._put(node, int(position[1], 0), call.data())

    def _ftruncate(self, call: Call) -> None:
        node = self._find(call.path)
        size = _NUMBER.search(call.arguments)
        if isinstance(node, Node) and size is not None and int(size[1], 0) != len(node.data):
            self._cut(node, int(size[1], 0))

    @staticmethod
    def _put(node: Node, position: int, data: bytes) -> None:
        redo(node.data, Write(position, data))
        node.pending.append(Write(position, data))

    @staticmethod
    def _cut(node: Node, size: int) -> None:
        redo(node.data, Cut(size))
        node.pending.append(Cut(size))

    def _find(self, path: str) -> Node | Folder | None:
        at: Node | Folder | None = self.disk
        for part in path.strip("/").split("/"):
            at = at.names.get(part) if isinstance(at, Folder) else None
        return at

    def _parent(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.rpartition("/")
        folder = self._find(above)
        assert isinstance(folder, Folder), f"{path} lies in no directory that was made"
        return folder, name

    def _make_folders(self, path: str) -> None:
        at = self.disk
        for part in path.strip("/").split("/"):
            below = Folder()
            at.change(Link(part, below))
            at = below

    def _settle_all(self, folder: Folder) -> None:
        folder.sync()
        for below in folder.names.values():
            if isinstance(below, Folder):
                self._settle_all(below)


def _settle(sync: _Sync) -> None:
    """What had been done when the sync began is durable now; what came later is not."""
    target = sync.target
    done = {id(change) for change in sync.changes}
    if isinstance(target, Folder):
        for change in target.pending:
            if id(change) in done:
                apply(target.durable, change)
        target.pending = [change for change in target.pending if id(change) not in done]
    else:
        image = bytearray(target.durable)
        for one in target.pending:
            if id(one) in done:
                redo(image, one)
        target.durable = bytes(image)
        target.pending = [one for one in target.pending if id(one) not in done]
