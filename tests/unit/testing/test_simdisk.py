"""The simulated disk is as unkind as the model says, and no more."""

from __future__ import annotations

from errno import ENOSPC

import pytest

from ottla.core.ports import (
    CreateFile,
    DiskError,
    MakeDirectory,
    RenamePath,
    ReplaceFile,
    SyncDirectory,
    SyncFile,
)
from ottla.testing.simdisk import SECTOR, SimDisk
from ottla.testing.simfile import Fault


def made(disk: SimDisk):
    steps = [MakeDirectory("/d"), SyncDirectory("/"), CreateFile("/d/f"), SyncDirectory("/d")]
    return disk.perform_now(steps)[0]


def outcomes(policy: str, data: bytes) -> set[bytes]:
    found = set()
    for seed in range(200):
        disk = SimDisk(seed)
        made(disk).write(data, 0)
        disk.crash(policy)
        found.add(disk.read_file("/d/f"))
    return found


def test_a_synced_file_survives_any_crash():
    for seed in range(50):
        disk = SimDisk(seed)
        file = made(disk)
        file.write(b"x" * 2000, 0)
        disk.perform_now([SyncFile(file)])
        disk.crash()
        assert disk.read_file("/d/f") == b"x" * 2000


def test_what_was_not_synced_may_be_lost_torn_kept_or_zeros():
    data = bytes(range(1, 201)) * 10
    found = outcomes("any", data)
    assert {b"", data} <= found
    assert any(one and data.startswith(one) and len(one) % SECTOR == 0 for one in found)
    assert any(one.strip(b"\0") == b"" for one in found if one)
    for one in found:
        for at in range(0, len(one), SECTOR):
            sector = one[at : at + SECTOR]
            assert sector in (data[at : at + SECTOR][: len(sector)], bytes(len(sector)))


def test_a_prefix_crash_leaves_no_holes():
    data = bytes(range(1, 201)) * 10
    assert all(data.startswith(one) for one in outcomes("prefix", data))


def test_an_unsynced_name_may_be_lost_with_its_synced_content():
    found = set()
    for seed in range(50):
        disk = SimDisk(seed)
        disk.perform_now([MakeDirectory("/d"), SyncDirectory("/")])
        file = disk.perform_now([CreateFile("/d/f", b"x")])[0]
        disk.perform_now([SyncFile(file)])
        disk.crash()
        found.add(disk.read_file("/d/f"))
    assert found == {None, b"x"}


def test_a_rename_may_arrive_before_the_data():
    found = set()
    for seed in range(100):
        disk = SimDisk(seed)
        made(disk).write(b"x" * 600, 0)
        disk.perform_now([RenamePath("/d/f", "/d/g")])
        disk.crash()
        found.add((disk.read_file("/d/f"), disk.read_file("/d/g")))
    assert (None, b"") in found
    assert (None, b"x" * 600) in found


def test_a_replaced_file_is_old_or_new():
    for seed in range(100):
        disk = SimDisk(seed)
        made(disk)
        disk.perform_now([ReplaceFile("/d/f", b"old"), ReplaceFile("/d/f", b"new", False)])
        disk.crash()
        assert disk.read_file("/d/f") in (b"old", b"new")


def test_after_kill_everything_written_is_there_and_nothing_waits():
    disk = SimDisk(0)
    file = made(disk)
    file.write(b"x", 0)
    waiting = disk.perform([CreateFile("/d/later")])
    disk.kill()
    disk.run()
    assert disk.names("/d") == ["f"]
    assert not waiting.done
    with pytest.raises(AssertionError):
        file.write(b"y", 0)


def test_a_planned_fault_refuses_once_and_leaves_a_short_write():
    disk = SimDisk(0)
    file = made(disk)
    disk.faults = [Fault("write", ENOSPC, skip=1, short=2)]
    file.write(b"ab", 0)
    with pytest.raises(DiskError) as refused:
        file.write(b"cdef", 2)
    assert refused.value.errno == ENOSPC
    assert disk.read_file("/d/f") == b"abcd"
    file.write(b"cdef", 2)


def test_a_blocking_call_on_the_loop_is_refused():
    disk = SimDisk(0)
    file = made(disk)
    disk.on_loop = True
    for call in (lambda: file.read(0, 1), lambda: disk.names("/d"), lambda: disk.open("/d/f")):
        with pytest.raises(AssertionError):
            call()
    assert file.read_nowait(0, 1) == b""


def test_steps_are_done_one_at_a_time_and_in_order():
    disk = SimDisk(0)
    made(disk)
    pending = disk.perform([CreateFile("/d/1"), CreateFile("/d/2")])
    disk.step()
    assert disk.names("/d") == ["1", "f"]
    assert not pending.done
    disk.step()
    assert [file.path for file in pending.result()] == ["/d/1", "/d/2"]
