"""A recorded run as a simulated disk: each system call changes its files by the simulation's rules.

Owns the step from what strace saw to `simimage`. With `simcrash` it says which states a power cut
could have left of what the program really called, where the simulation only says what we believe
that it calls. Must not know Kafka. Of calls outside `root` it takes no notice;
those in it that the model doesn't know are `unknown` by name, for the test to fail on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ottla.testing.simimage import Cut, Folder, Link, Node, Rename, Unlink, Write, apply, redo
from tests.faults.strace import Call

CALLS = (
    "open,openat,openat2,creat,write,pwrite64,pwritev,pwritev2,writev,truncate,ftruncate,fallocate,"
    "copy_file_range,splice,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,mknod,mknodat,fdatasync,fsync,sync,syncfs,sync_file_range,msync,"
    "io_setup,io_uring_setup,sendto,sendmsg,sendmmsg"
)
"""All that may change files, whether the model knows it or not: what it doesn't is `unknown`."""
_SYNCS = ("fdatasync", "fsync")
_OF_A_FILE = {
    "openat": "_openat",
    "write": "_write",
    "writev": "_write",
    "pwrite64": "_pwrite64",
    "pwritev": "_pwrite64",
    "truncate": "_truncate",
    "ftruncate": "_truncate",
    "fallocate": "_fallocate",
    "sync_file_range": "_nothing",  # it promises nothing of what a power cut leaves
}
_ANYWHERE = ("sync", "io_setup", "io_uring_setup")
"""Calls without a path: whatever is done by them is not seen."""
_NUMBER = re.compile(r", (0x[0-9a-f]+|\d+)$")
_FALLOCATED = re.compile(r", (\w[\w|]*), (0x[0-9a-f]+|\d+), (0x[0-9a-f]+|\d+)$")
_FLAG = re.compile(r", (RENAME_\w+(?:\|RENAME_\w+)*)$")


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
        begins = sorted((c for c in calls if c.name in _SYNCS), key=lambda c: c.begun)
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
        if call.name in _SYNCS:
            sync = syncs.pop(call.begun, None)
            if sync is not None:
                _settle(sync)
            return sync is not None
        if call.name in _ANYWHERE:
            self.unknown.add(call.name)
            return False
        paths = call.names()
        path = call.path or (paths[0] if paths else "")
        if call.name in _OF_A_FILE:
            if not self._ours(path):
                return False
            getattr(self, _OF_A_FILE[call.name])(call, path)
            return call.name != "openat" or "O_CREAT" in call.arguments
        if not any(self._ours(one) and one != self.root for one in (*paths, call.path)):
            return False  # where `root` itself lies is not part of this
        if not self._take_names(call, paths):
            self.unknown.add(call.name)
            return False
        return True

    def _take_names(self, call: Call, paths: list[str]) -> bool:
        """A change of a directory; False if it is none that the model knows."""
        if not paths:
            return False
        folder, name = self._parent(paths[0])
        if call.name in ("mkdir", "mkdirat"):
            folder.change(Link(name, Folder()))
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            folder.change(Unlink(name))
        elif call.name in ("rename", "renameat", "renameat2"):
            flag = _FLAG.search(call.arguments)
            if flag is not None and flag[1] != "RENAME_NOREPLACE":
                return False
            beside, new_name = self._parent(paths[1])
            assert beside is folder, f"{paths}: renames between directories are not modelled"
            folder.change(Rename(name, new_name, folder.names[name]))
        elif call.name in ("link", "linkat"):
            beside, new_name = self._parent(paths[1])
            beside.change(Link(new_name, folder.names[name]))
        else:
            return False
        return True

    def _nothing(self, call: Call, path: str) -> None:
        """A call that changes nothing of what the model holds."""

    def _openat(self, call: Call, path: str) -> None:
        if "O_TMPFILE" in call.arguments:
            self.unknown.add("openat(O_TMPFILE)")
            return
        if path == self.root:
            return
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is None and "O_CREAT" in call.arguments:
            node = Node()
            folder.change(Link(name, node))
        if isinstance(node, Node) and "O_TRUNC" in call.arguments and node.data:
            self._cut(node, 0)
        self._ends[path] = 0

    def _write(self, call: Call, path: str) -> None:
        node = self._find(path)
        assert isinstance(node, Node), f"{path} was written before it was made"
        at = self._ends.get(path, 0)
        self._put(node, at, call.data())
        self._ends[path] = at + call.result

    def _pwrite64(self, call: Call, path: str) -> None:
        node = self._find(path)
        position = _NUMBER.search(call.arguments)
        if node is None:
            return  # removed meanwhile
        assert isinstance(node, Node), path
        assert position is not None, call.arguments
        self._put(node, int(position[1], 0), call.data())

    def _truncate(self, call: Call, path: str) -> None:
        node = self._find(path)
        size = _NUMBER.search(call.arguments)
        assert size is not None, call.arguments
        if isinstance(node, Node) and int(size[1], 0) != len(node.data):
            self._cut(node, int(size[1], 0))

    def _fallocate(self, call: Call, path: str) -> None:
        """With its mode: to keep the size changes nothing here, 0 grows a file, others are unknown."""
        node = self._find(path)
        found = _FALLOCATED.search(call.arguments)
        assert found is not None, call.arguments
        mode, end = found[1], int(found[2], 0) + int(found[3], 0)
        if mode == "0":
            if isinstance(node, Node) and end > len(node.data):
                self._cut(node, end)
        elif mode not in ("FALLOC_FL_KEEP_SIZE", "0x1"):
            self.unknown.add(f"fallocate({mode})")

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
