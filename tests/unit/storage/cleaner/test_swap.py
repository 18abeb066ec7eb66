"""What a crash may leave of a compaction, and what becomes of it: by name, as Kafka has it."""

from __future__ import annotations

import pytest

from ottla.core.ports import CreateFile, DiskError, File, MakeDirectory, SyncDirectory, SyncFile
from ottla.storage.cleaner import swap
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault

DIRECTORY = "/t-0"
FIRST, SECOND, THIRD = (f"{base:020d}" for base in (0, 10, 20))


def disk_with(*names: str) -> SimDisk:
    disk = SimDisk(0)
    disk.perform_now([MakeDirectory(DIRECTORY), SyncDirectory("/")])
    for name in names:
        content = b"new" if name.endswith((".swap", ".cleaned")) else b"old"
        [file] = disk.perform_now([CreateFile(f"{DIRECTORY}/{name}", content)])
        disk.perform_now([SyncFile(file)])
        file.close()
    disk.perform_now([SyncDirectory(DIRECTORY)])
    return disk


def finish(disk: SimDisk, end: int | None = 20) -> dict[str, bytes | None]:
    def end_of(file: File) -> int | None:
        assert file.read(0, 10) == b"new"
        return end

    swap.finish(disk, DIRECTORY, disk.names(DIRECTORY), end_of)
    names = disk.names(DIRECTORY)
    return {name: disk.read_file(f"{DIRECTORY}/{name}") for name in names}


def olds(*bases: str) -> list[str]:
    return [f"{base}{suffix}" for base in bases for suffix in (".log", ".index", ".timeindex")]


def test_what_is_not_all_renamed_is_not_taken():
    disk = disk_with(*olds(FIRST, SECOND), f"{FIRST}.log.swap", f"{FIRST}.index.cleaned")
    found = finish(disk)
    assert found.pop(f"{FIRST}.index.cleaned") == b"new"  # for the sweep that follows
    assert found == dict.fromkeys(olds(FIRST, SECOND), b"old")


def test_a_swap_takes_the_place_of_all_it_was_made_of_and_of_nothing_else():
    disk = disk_with(
        *olds(FIRST, SECOND, THIRD),
        f"{SECOND}.txnindex",
        f"{SECOND}.snapshot",
        f"{FIRST}.log.swap",
        f"{FIRST}.index.swap",
        f"{FIRST}.timeindex.swap",
        "leader-epoch-checkpoint",
    )
    found = finish(disk)
    assert found == {
        **dict.fromkeys(olds(FIRST), b"new"),
        **dict.fromkeys(olds(THIRD), b"old"),
        f"{SECOND}.snapshot": b"old",
        "leader-epoch-checkpoint": b"old",
    }


def test_an_index_whose_log_has_its_name_already_gets_its_own():
    disk = disk_with(f"{FIRST}.log", f"{FIRST}.index", f"{FIRST}.index.swap")
    assert finish(disk)[f"{FIRST}.index"] == b"new"


def test_a_swap_without_all_of_its_batches_does_not_take_the_place_of_what_is_there():
    disk = disk_with(*olds(FIRST), f"{FIRST}.log.swap", f"{FIRST}.index.swap")
    assert finish(disk, end=None) == dict.fromkeys(olds(FIRST), b"old")


def test_one_that_is_all_there_is_keeps_its_name_for_recovery_to_judge():
    disk = disk_with(f"{FIRST}.log.swap")
    assert finish(disk, end=None) == {f"{FIRST}.log": b"new"}


def test_files_with_other_names_are_left_alone():
    disk = disk_with("notes.swap", f"{FIRST}.log", "x.cleaned")
    assert set(finish(disk)) == {"notes.swap", f"{FIRST}.log", "x.cleaned"}


@pytest.mark.parametrize("skip", range(12))
def test_a_crash_in_the_midst_of_it_changes_nothing(skip):
    names = [f"{FIRST}.{kind}.swap" for kind in ("log", "index", "timeindex")]
    disk = disk_with(*olds(FIRST, SECOND, THIRD), *names)
    wanted = finish(disk_with(*olds(FIRST, SECOND, THIRD), *names))
    action = ("remove", "sync directory", "rename")[skip % 3]
    disk.faults = [Fault(action, skip=skip // 3)]
    try:
        finish(disk)
    except DiskError:
        disk.crash("any")
    disk.faults.clear()
    found = finish(disk)
    # Indexes are made anew where the crash has taken them; the logs are what counts.
    logs = {name: content for name, content in found.items() if name.endswith(".log")}
    assert logs == {name: wanted[name] for name in wanted if name.endswith(".log")}
