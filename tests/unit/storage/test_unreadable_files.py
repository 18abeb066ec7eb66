"""Files that can't be read: a log opens without what can be made anew, or stays away alone."""

from __future__ import annotations

from errno import EACCES, EIO, ENOSPC

import pytest

from ottla.core.model import Offset, TopicPartition
from ottla.core.ports import CreateFile, DiskError, ReplaceFile, UnlinkFile
from ottla.protocol.errors import ErrorCode
from ottla.storage.checkpoints import (
    HIGH_WATERMARKS,
    PARTITION_METADATA,
    QUARANTINE,
    RECOVERY_POINTS,
    decode_offsets,
    encode_quarantine,
)
from ottla.storage.findings import Case, Finding
from ottla.storage.log import Opened
from ottla.storage.recovery import Hints, open_log
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import TOPIC_ID, Bench
from .test_directory import T0, world
from .test_recovery import FIRST, SETTINGS, bench, stop

__all__ = ["bench", "world"]
T1 = TopicPartition("t", 1)


def reopen(bench: Bench, clean: bool, recovery_point: int) -> tuple[Opened, list[Finding]]:
    hints = Hints(clean, Offset(recovery_point), Offset(4))
    opened, findings = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    bench.log = bench.open(opened)
    return opened, findings


def refuse(bench: Bench, action: str, path: str, errno: int, **more: int) -> None:
    stop(bench)
    bench.disk.kill()
    bench.disk.faults.append(Fault(action, errno, path, **more))


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(("action", "errno"), [("read", EIO), ("open", EACCES)])
def test_a_log_with_a_segment_that_can_not_be_read_opens_failed(bench, clean, action, errno):
    refuse(bench, action, ".log", errno, times=1 << 30)
    opened, [*_, finding] = reopen(bench, clean, 30)
    assert finding.case is Case.UNREADABLE
    assert finding.path.endswith(".log")
    assert finding.path in finding.reason
    assert (opened.failed, opened.start, opened.recovery_point) == (True, 4, 30)
    # Nobody is told that there is nothing, or that an offset is none: it may be there.
    bound = bench.log.end_position()
    for offset in (4, 20, 1000):
        assert bench.log.read(Offset(offset), 1, bound) is ErrorCode.KAFKA_STORAGE_ERROR


def test_no_file_stays_open_of_a_log_that_can_not_be_read(bench, monkeypatch):
    """Or its topic could be deleted, and the room would not come back."""
    refuse(bench, "read", ".log", EIO, times=1 << 30)
    opened_files = []
    opener = bench.disk.open
    monkeypatch.setattr(
        bench.disk, "open", lambda path: (opened_files.append(opener(path)), opened_files[-1])[1]
    )
    reopen(bench, False, 30)
    assert len(opened_files) > 3
    assert all(file.closed for file in opened_files)


def test_a_log_that_can_be_read_again_is_whole(bench):
    refuse(bench, "read", ".log", EIO, times=1 << 30)
    assert reopen(bench, False, 30)[0].failed
    bench.disk.faults.clear()
    opened, findings = reopen(bench, False, 30)
    assert (opened.failed, findings, bench.log.end) == (False, [], 30)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    "name",
    [".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint"],
)
def test_a_derived_file_that_can_not_be_read_is_made_anew(bench, name, clean):
    stop(bench)
    paths = [f"/data/t-0/{one}" for one in bench.disk.names("/data/t-0") if one.endswith(name)]
    before = [bench.disk.read_file(path) for path in paths]
    bench.disk.kill()
    bench.disk.faults.append(Fault("read", EIO, paths[-1 if name == ".snapshot" else 0]))
    opened, _ = reopen(bench, clean, 30)
    assert not opened.failed
    assert bench.log.end == 30
    assert bench.log.producers.entries() != []
    assert bench.log.epochs.latest == 1
    if name != ".snapshot":  # that of the end is written by a stop
        assert [bench.disk.read_file(path) for path in paths] == before


def test_a_note_of_damage_that_can_not_be_read_leaves_the_log_readable(bench):
    stop(bench)
    path = f"/data/t-0/{QUARANTINE}"
    bench.disk.perform_now([ReplaceFile(path, encode_quarantine(Offset(20)))])
    bench.disk.kill()
    bench.disk.faults.append(Fault("read", EIO, path, times=1 << 30))
    opened, findings = reopen(bench, True, 30)
    assert [finding.case for finding in findings] == [Case.QUARANTINED]
    assert opened.failed
    assert bench.read(29) == [29]


def test_an_index_that_was_missing_is_made_anew_though_another_can_not_be_read(bench):
    stop(bench)
    before = bench.disk.read_file(FIRST + ".timeindex")
    bench.disk.kill()
    bench.disk.perform_now([UnlinkFile(FIRST + ".timeindex")])
    bench.disk.faults.append(Fault("read", EIO, "leader-epoch-checkpoint"))
    reopen(bench, True, 30)
    assert bench.disk.read_file(FIRST + ".timeindex") == before


@pytest.mark.parametrize(("action", "errno"), [("read", ENOSPC), ("create", EIO)])
def test_what_another_log_would_meet_as_well_is_no_log_s_own_trouble(bench, action, errno):
    stop(bench)
    bench.disk.kill()
    bench.disk.perform_now([UnlinkFile(FIRST + ".index")])
    bench.disk.faults.append(Fault(action, errno, "/t-0/"))
    with pytest.raises(DiskError):
        reopen(bench, True, 30)


@pytest.mark.parametrize("clean", [True, False])
def test_the_other_logs_of_the_directory_serve(world, clean):
    directory = world.start()
    for name in (T0, T1):
        world.append(directory, name)
    world.settle()
    directory.checkpoint()
    world.settle()
    if clean:
        directory.stop(1)
    world.disk.kill()
    world.disk.faults.append(Fault("read", EIO, "/t-0/00000000000000000000.log", times=1 << 30))
    directory = world.start()
    assert [(found.partition, found.finding.case) for found in directory.found] == [
        (T0, Case.UNREADABLE)
    ]
    assert (directory.logs[T0].failed, directory.logs[T1].failed) == (True, False)
    world.append(directory, T1)
    world.settle()
    directory.stop(2)
    world.disk.faults.clear()
    directory = world.start()
    assert [directory.logs[name].end for name in (T0, T1)] == [1, 2]
    assert [directory.logs[name].failed for name in (T0, T1)] == [False, False]


@pytest.mark.parametrize("name", [RECOVERY_POINTS, "meta.properties", ".kafka_cleanshutdown"])
def test_a_file_of_the_directory_that_can_not_be_read_is_made_anew(world, name):
    directory = world.start()
    world.append(directory)
    world.settle()
    directory.stop(1)
    world.disk.faults.append(Fault("read", EIO, f"/data/{name}"))
    directory = world.start()
    assert directory.logs[T0].end == 1
    assert not directory.was_clean or name != ".kafka_cleanshutdown"
    if name[0] != ".":
        assert directory.rebuilt == [f"/data/{name}"]


def test_a_partition_metadata_that_can_not_be_read_is_that_of_the_topic_so_named(world):
    directory = world.start()
    world.append(directory)
    world.settle()
    directory.stop(1)
    world.disk.faults.append(Fault("read", EIO, PARTITION_METADATA))
    directory = world.start()
    assert directory.adoptable == {T0}
    assert not directory.logs[T0].failed


def test_a_file_with_a_name_like_a_partition_s_is_left_alone(world):
    world.start().stop(1)
    world.disk.perform_now([CreateFile("/data/notes-1")])
    directory = world.start()
    assert directory.logs == {}
    assert directory.found == []
    assert world.disk.read_file("/data/notes-1") == b""


def test_a_file_in_the_place_of_a_partition_s_directory_does_not_pass_for_an_empty_log(world):
    directory = world.start()
    world.append(directory)
    world.settle()
    directory.stop(1)
    for name in world.disk.names("/data/t-0"):
        world.disk.perform_now([UnlinkFile(f"/data/t-0/{name}")])
    world.disk.faults.append(Fault("list", 20, "/data/t-0", times=1 << 30))
    directory = world.start()
    assert [found.finding.case for found in directory.found] == [Case.UNREADABLE]
    assert directory.logs[T0].failed


def test_how_far_a_log_went_is_not_forgotten_while_it_can_not_be_read(world):
    """Under flush.policy=os it went beyond what was synced; a repair goes on behind it."""
    directory = world.start()
    for _ in range(3):
        world.append(directory)
    world.settle()
    directory.checkpoint()
    world.settle()
    world.disk.kill()

    def high() -> dict[TopicPartition, Offset] | None:
        return decode_offsets(world.disk.read_file(f"/data/{HIGH_WATERMARKS}"))

    assert high() == {T0: 3}
    world.disk.faults.append(Fault("read", EIO, "/t-0/00000000000000000000.log", times=1 << 30))
    for _ in range(2):
        directory = world.start()
        directory.checkpoint()
        world.settle()
        directory.stop(1)
        assert high() == {T0: 3}
    directory = world.start()
    directory.delete(T0)
    world.settle()
    directory.create(T0, TOPIC_ID, LogSettings()).failed = True
    directory.logs[T0].on_disk = True
    directory.checkpoint()
    world.settle()
    assert high() == {T0: 0}, "a namesake inherits nothing"
