"""Every call of the ports Disk and File can be refused on the simulated disk, by EIO and ENOSPC.

The names of the ports' methods are read from the ports: a new one fails here until it is either
refusable too, or said to be one that never fails.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, ENOSPC
from typing import get_args

import pytest

from ottla.core import ports
from ottla.core.model import FileSlice
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
    Step,
    SyncDirectory,
    SyncFile,
    UnlinkFile,
)
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault, SimFile

Ask = Callable[[SimDisk, File], object]


def warmed(disk: SimDisk, piece: FileSlice) -> Pending[None]:
    pending = disk.warm(piece)
    pending.then(piece.release)
    return pending


NEVER_FAIL = {
    "File.path": "a name",
    "File.unreadable": "what is known already",
    "File.refused": "notes what is known",
    "File.retain": "counts",
    "File.release": "counts",
    "File.close": "a descriptor that can't be closed well is gone all the same",
    "Disk.read_ahead": "a hint",
}

CALLS: dict[str, list[tuple[str, Ask]]] = {
    "File.fileno": [("open", lambda _, file: file.fileno())],
    "File.size": [("stat", lambda _, file: file.size())],
    "File.write": [("write", lambda _, file: file.write(b"x", 0))],
    "File.read": [("read", lambda _, file: file.read(0, 1))],
    "File.read_nowait": [("read nowait", lambda _, file: file.read_nowait(0, 1))],
    "File.truncate": [("truncate", lambda _, file: file.truncate(0))],
    "Disk.names": [("list", lambda disk, _: disk.names("/d"))],
    "Disk.read_file": [("read", lambda disk, _: disk.read_file("/d/f"))],
    "Disk.open": [("open", lambda disk, _: disk.open("/d/f"))],
    "Disk.sync": [
        ("sync", lambda disk, file: disk.sync([file], [])),
        ("sync directory", lambda disk, _: disk.sync([], ["/d"])),
    ],
    "Disk.warm": [("warm", lambda disk, file: warmed(disk, FileSlice(file, 0, 1)))],
    "Disk.examine": [
        ("examine", lambda disk, file: disk.examine(file, lambda one: one.path)),
        ("stat", lambda disk, file: disk.examine(file, lambda one: one.size())),
    ],
    "Disk.space": [("ask for the space of", lambda disk, _: disk.space("/d"))],
}
PERFORMS = ("perform_now", "perform", "perform_aside")

STEPS: dict[type[Step], list[tuple[str, Callable[[File], Step]]]] = {
    MakeDirectory: [("make directory", lambda _: MakeDirectory("/d/e"))],
    CreateFile: [
        ("create", lambda _: CreateFile("/d/g")),
        ("truncate", lambda _: CreateFile("/d/f")),
        ("write", lambda _: CreateFile("/d/g", b"content")),
    ],
    OpenFile: [("open", lambda _: OpenFile("/d/f", "/d/g"))],
    ReplaceFile: [
        (action, lambda _: ReplaceFile("/d/f", b"content"))
        for action in ("replace", "create", "write", "sync", "rename", "sync directory")
    ],
    RenamePath: [("rename", lambda _: RenamePath("/d/f", "/d/g"))],
    UnlinkFile: [("remove", lambda _: UnlinkFile("/d/f"))],
    RemoveTree: [("remove", lambda _: RemoveTree("/d"))],
    ReserveSpace: [("reserve", lambda file: ReserveSpace(file, 0, 4096))],
    SyncDirectory: [("sync directory", lambda _: SyncDirectory("/d"))],
    SyncFile: [("sync", SyncFile)],
}


def methods() -> set[str]:
    return {
        f"{port.__name__}.{name}"
        for port in (ports.Disk, ports.File)
        for name in vars(port)
        if not name.startswith("_")
    }


def made() -> tuple[SimDisk, File]:
    disk = SimDisk()
    steps = [MakeDirectory("/d"), SyncDirectory("/"), CreateFile("/d/f", b"f"), SyncDirectory("/d")]
    return disk, disk.perform_now(steps)[0]


def outcome(disk: SimDisk, asked: object) -> object:
    if isinstance(asked, Pending):
        disk.run()
        return asked.result()
    return asked


def refuses(action: str, errno: int, ask: Ask) -> None:
    disk, file = made()
    assert isinstance(file, SimFile)
    disk.faults = [Fault(action, errno)]
    with pytest.raises(DiskError) as refused:
        outcome(disk, ask(disk, file))
    assert refused.value.errno == errno
    assert disk.faults[0].times == 0
    assert file.users == 0, "what was refused lets go of its file"


def test_every_method_of_the_ports_is_refused_here_or_said_never_to_fail():
    named = {*CALLS, *NEVER_FAIL, *(f"Disk.{name}" for name in PERFORMS)}
    assert named == methods()


def test_every_kind_of_step_is_refused_here():
    assert set(STEPS) == set(get_args(Step))


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
@pytest.mark.parametrize(
    ("action", "ask"),
    [one for asks in CALLS.values() for one in asks],
    ids=[f"{name}-{action}" for name, asks in CALLS.items() for action, _ in asks],
)
def test_a_call_can_be_refused(action: str, ask: Ask, errno: int) -> None:
    refuses(action, errno, ask)


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
@pytest.mark.parametrize("how", PERFORMS)
@pytest.mark.parametrize(
    ("action", "step"),
    [one for steps in STEPS.values() for one in steps],
    ids=[f"{kind.__name__}-{action}" for kind, steps in STEPS.items() for action, _ in steps],
)
def test_a_step_can_be_refused(
    action: str, step: Callable[[File], Step], how: str, errno: int
) -> None:
    refuses(action, errno, lambda disk, file: getattr(disk, how)([step(file)]))


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
def test_the_sync_of_a_file_that_was_closed_meanwhile_can_be_refused(errno: int) -> None:
    def closed_meanwhile(disk: SimDisk, file: File) -> object:
        pending = disk.sync([file], [])
        file.close()
        return pending

    refuses("sync", errno, closed_meanwhile)
