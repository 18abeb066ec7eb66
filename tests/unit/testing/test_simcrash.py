"""The states that a power cut may leave are those that the model allows, and those that matter."""

from __future__ import annotations

import random

from ottla.core.ports import CreateFile, MakeDirectory, RenamePath, SyncDirectory, SyncFile
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simimage import files_below, folder_of


def states(disk: SimDisk, drawn: int = 50) -> list[dict[str, bytes]]:
    return list(crash_states(disk.root, random.Random(1), drawn))


def a_disk(*names: str) -> SimDisk:
    disk = SimDisk(1)
    disk.perform_now([MakeDirectory("/d"), SyncDirectory("/")])
    for name in names:
        disk.perform_now([CreateFile(f"/d/{name}")])
    disk.perform_now([SyncDirectory("/d")])
    return disk


def test_a_disk_at_rest_has_one_state():
    disk = a_disk("f")
    file = disk.open("/d/f")
    file.write(b"abc", 0)
    disk.perform_now([SyncFile(file)])
    assert {tuple(one.items()) for one in states(disk)} == {(("/d/f", b"abc"),)}


def test_a_write_is_there_not_there_torn_at_a_sector_or_a_tail_of_zeros():
    disk = a_disk("f")
    disk.open("/d/f").write(b"x" * 1200, 0)
    found = {one["/d/f"] for one in states(disk)}
    assert {b"", b"x" * 512, b"x" * 1024, b"x" * 1200, bytes(1200)} <= found
    assert all(set(content) <= {0, ord("x")} for content in found)


def test_the_second_write_may_be_there_without_the_first():
    disk = a_disk("f")
    file = disk.open("/d/f")
    file.write(b"a" * 10, 0)
    file.write(b"b" * 10, 10)
    assert bytes(10) + b"b" * 10 in {one["/d/f"] for one in states(disk)}


def test_files_are_independent_of_each_other_and_of_their_names():
    disk = a_disk("f", "g")
    disk.open("/d/f").write(b"f", 0)
    disk.open("/d/g").write(b"g", 0)
    disk.perform_now([RenamePath("/d/f", "/d/h")])
    found = {tuple(sorted(one.items())) for one in states(disk)}
    for name in "fh":
        for f in (b"", b"f"):
            for g in (b"", b"g"):
                assert tuple(sorted({f"/d/{name}": f, "/d/g": g}.items())) in found


def test_a_disk_can_be_made_of_a_state():
    files = {"/d/f": b"1", "/d/e/": b"", "/g": b""}
    disk = SimDisk()
    disk.root = folder_of(files)
    assert files_below(disk.root) == files
    disk.crash("any")
    assert files_below(disk.root) == files
